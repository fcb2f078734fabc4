package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/quayctl/quayctl/internal/quadlet"
)

// ErrDataMissing is that the settings name data that are not there, such as on a disk that is not mounted.
var ErrDataMissing = errors.New("its data are not there")

// CheckData tells with ErrDataMissing whether the data of the installation at l, whose settings are there, are missing: the
// journal is the first file of the data and the last to go.
func CheckData(l Layout) error {
	if exists(l.JournalFile()) {
		return nil
	}
	return fmt.Errorf("%w: %s has no %s", ErrDataMissing, l.Data, filepath.Base(l.JournalFile()))
}

// Recover records what an installation has made outside of data that are lost with their journal, as far as it can be told
// by where it lies, so that it can be removed. Images and quayctl itself cannot: they stay.
func Recover(l Layout, j *Journal) error {
	all := []Resource{{Kind: Dir, Name: l.Data, Keep: true}, {Kind: Dir, Name: l.Config, Keep: true}, {Kind: Tree, Name: l.Passwords(), Keep: true}}
	for _, f := range []string{l.ConfigFile(), l.CACert(), l.CAKey(), l.Cert(), l.CertKey(), l.AdminPassword(), l.pointer()} {
		all = append(all, Resource{Kind: File, Name: f, Keep: true})
	}
	// Foreign lets no installation begin where somebody else's are.
	all = append(all, Resource{Kind: Tree, Name: l.Quadlets}, Resource{Kind: Tree, Name: l.staged()},
		Resource{Kind: File, Name: filepath.Join(l.Units, quadlet.TargetName)}, Resource{Kind: File, Name: filepath.Join(l.Units, quadlet.SocketName)},
		Resource{Kind: File, Name: filepath.Join(l.Wants, quadlet.TargetName)})
	if ca, err := os.ReadFile(l.CACert()); err == nil {
		copies, err := filepath.Glob(filepath.Join(l.Trust, "*", "*.crt"))
		if err != nil {
			return err
		}
		for _, c := range copies {
			if text, err := os.ReadFile(c); err == nil && bytes.Equal(text, ca) {
				all = append(all, Resource{Kind: Dir, Name: filepath.Dir(c)}, Resource{Kind: File, Name: c})
			}
		}
	}
	for _, r := range all {
		if exists(r.Name) {
			if err := j.Creating(r); err != nil {
				return err
			}
		}
	}
	return nil
}
