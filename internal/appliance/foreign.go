package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/quayctl/quayctl/internal/quadlet"
)

// ForeignError is a file or directory that an installation would replace and that none has made.
type ForeignError struct {
	Path   string
	Remedy string
}

// Error implements error.
func (e *ForeignError) Error() string {
	return e.Path + " is there already and is not an installation's: it would be overwritten"
}

// Foreign looks for what somebody else put where an installation puts its own, before anything is changed: those places
// are replaced and removed as a whole. pair is the certificate that was asked for, nil for none. The error is a *ForeignError
// for the first that is found. What the journal says was made, and units that bear quayctl's mark, are an installation's.
func Foreign(l Layout, pair *KeyPair) error {
	records, err := ReadJournal(l.JournalFile())
	if err != nil {
		return err
	}
	ours := Inventory(records)
	made := func(path string) bool {
		return slices.ContainsFunc(ours, func(r Resource) bool { return r.Name == path })
	}
	const away = "move it away, or remove it if nobody needs it"
	entries, err := os.ReadDir(l.Quadlets)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at units: %w", err)
	}
	units := []string{filepath.Join(l.Units, quadlet.TargetName), filepath.Join(l.Units, quadlet.SocketName), filepath.Join(l.Wants, quadlet.TargetName)}
	for _, e := range entries {
		if !made(l.Quadlets) {
			units = append(units, filepath.Join(l.Quadlets, e.Name()))
		}
	}
	for _, path := range units {
		if made(path) || !exists(path) {
			continue
		}
		if text, err := os.ReadFile(path); err == nil && quadlet.Rendered(text) {
			continue
		}
		return &ForeignError{path, away}
	}
	if !exists(l.pointer()) {
		for _, f := range []struct {
			path string
			same []byte // content that may be there
		}{{l.ConfigFile(), nil}, {l.CACert(), nil}, {l.CAKey(), nil}, {l.AdminPassword(), nil}, {l.Cert(), pair.certificate()}, {l.CertKey(), pair.key()}} {
			if !exists(f.path) {
				continue
			}
			if text, err := os.ReadFile(f.path); err == nil && f.same != nil && bytes.Equal(text, f.same) {
				continue
			}
			return &ForeignError{f.path, "move it away; to use it, give it from there with --config, or with --ssl-cert and --ssl-key"}
		}
	}
	if exists(l.JournalFile()) {
		return nil
	}
	entries, err = os.ReadDir(l.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" { // of a file system's own root
			return &ForeignError{filepath.Join(l.Data, e.Name()), "give an empty directory, or one that does not exist yet, with --data-dir"}
		}
	}
	return nil
}

func (p *KeyPair) certificate() []byte {
	if p == nil {
		return nil
	}
	return p.Certificate
}

func (p *KeyPair) key() []byte {
	if p == nil {
		return nil
	}
	return p.Key
}
