// Package appliance is the installer's domain: what an installation consists of, the steps that make and remove it, the
// journal that lets them be taken up again after any interruption, and the state that is left. It declares the small
// interfaces it needs of the machine and knows neither the command line nor Podman.
package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Layout says where an installation lies. All paths are absolute.
type Layout struct {
	Rootless bool
	Config   string // settings and the sources of secrets
	Data     string
	Quadlets string // directory of Podman's units: exchanged as a whole
	Units    string // directory of plain units
	Wants    string // directory of links that start units at boot
	Binary   string // where quayctl itself is kept
	Runtime  string // directory of the lock, gone after a reboot
	Trust    string // where Podman and other tools look for the CAs of registries, by HOST[:PORT]
}

// DefaultLayout is the layout of the machine (uid 0) or of a user. dataDir replaces the default when it is not empty.
func DefaultLayout(uid int, getenv func(string) string, home, dataDir string) Layout {
	l := Layout{
		Config: "/etc/quay", Data: "/var/lib/quay", Quadlets: "/etc/containers/systemd/quay", Units: "/etc/systemd/system",
		Wants: "/etc/systemd/system/multi-user.target.wants", Binary: "/usr/local/bin/quayctl", Runtime: "/run",
		Trust: "/etc/containers/certs.d",
	}
	if uid != 0 {
		or := func(variable, otherwise string) string {
			if v := getenv(variable); filepath.IsAbs(v) {
				return filepath.Clean(v)
			}
			return otherwise
		}
		config := or("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
		units := filepath.Join(config, "systemd/user")
		l = Layout{
			Rootless: true,
			Config:   filepath.Join(config, "quay"),
			Data:     filepath.Join(or("XDG_DATA_HOME", filepath.Join(home, ".local/share")), "quay"),
			Quadlets: filepath.Join(config, "containers/systemd/quay"),
			Units:    units,
			Wants:    filepath.Join(units, "default.target.wants"),
			Binary:   filepath.Join(home, ".local/bin/quayctl"),
			Trust:    filepath.Join(config, "containers/certs.d"),
			Runtime:  or("XDG_RUNTIME_DIR", filepath.Join("/run/user", strconv.Itoa(uid))),
		}
	}
	if dataDir != "" {
		l.Data = filepath.Clean(dataDir)
	}
	return l
}

// Files of the settings.
func (l Layout) ConfigFile() string    { return filepath.Join(l.Config, "config.yaml") }
func (l Layout) CACert() string        { return filepath.Join(l.Config, "ca.crt") }
func (l Layout) CAKey() string         { return filepath.Join(l.Config, "ca.key") }
func (l Layout) Cert() string          { return filepath.Join(l.Config, "ssl.cert") }
func (l Layout) CertKey() string       { return filepath.Join(l.Config, "ssl.key") }
func (l Layout) Passwords() string     { return filepath.Join(l.Config, "passwords") } // of further users
func (l Layout) AdminPassword() string { return filepath.Join(l.Config, "admin-password") }

// pointer tells where the data lie, for those who know only the settings' fixed place.
func (l Layout) pointer() string { return filepath.Join(l.Config, "installation.json") }

// Lock is the file whose lock whoever changes the installation holds. It lies outside of it, so that being refused
// changes nothing. It is there only while the lock is held, or after its holder was killed until the next or a reboot.
func (l Layout) Lock() string { return filepath.Join(l.Runtime, "quayctl.lock") }

// Files and directories of the data.
func (l Layout) StateFile() string   { return filepath.Join(l.Data, "state.json") }
func (l Layout) JournalFile() string { return filepath.Join(l.Data, "journal.jsonl") }
func (l Layout) Run() string         { return filepath.Join(l.Data, "run") }
func (l Layout) Storage() string     { return filepath.Join(l.Data, "storage") }
func (l Layout) Release(version string) string {
	return filepath.Join(l.Data, "releases", version)
}

// DSN reaches the database from outside of the containers.
func (l Layout) DSN() string { return "postgresql://quay@/quay?host=" + filepath.Join(l.Run(), "pg") }

// AdminSocket is where a component, or a slot of one, answers /readyz.
func (l Layout) AdminSocket(component, slot string) string {
	if slot != "" {
		component += "-" + slot
	}
	return filepath.Join(l.Run(), component+"-admin.sock")
}

// staged is where a new directory of quadlets waits: on the same file system, out of the generator's sight.
func (l Layout) staged() string {
	return filepath.Join(filepath.Dir(filepath.Dir(l.Quadlets)), ".quay-units")
}

// maxSocketPath is the longest path of a Unix socket, sockaddr_un's 108 bytes with a NUL at the end.
const maxSocketPath = 107

// Validate refuses paths that units or sockets cannot have.
func (l Layout) Validate() error {
	if !filepath.IsAbs(l.Data) || strings.ContainsAny(l.Data, " \t\n:%\\\"'$,") {
		return fmt.Errorf("data directory %q: use an absolute path without blanks and without any of : %% \\ \" ' $ ,", l.Data)
	}
	if longest := filepath.Join(l.Run(), "registryd-admin.sock"); len(longest)+8 > maxSocketPath {
		return fmt.Errorf("data directory %q is too long: sockets below it may have %d bytes in all; use a shorter path", l.Data, maxSocketPath)
	}
	for _, other := range []string{l.Config, l.Quadlets, l.Units} {
		if l.Data == other || strings.HasPrefix(other, l.Data+"/") || strings.HasPrefix(l.Data, other+"/") {
			return fmt.Errorf("data directory %q and %q must not lie in one another", l.Data, other)
		}
	}
	return nil
}

type pointerFile struct {
	Schema  int    `json:"schema"`
	DataDir string `json:"data_dir"`
}

// FindData gives the data directory of the installation whose settings lie in l.Config, and false if there is none.
func FindData(l Layout) (string, bool, error) {
	b, err := os.ReadFile(l.pointer())
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("find installation: %w", err)
	}
	var p pointerFile
	if err := json.Unmarshal(b, &p); err != nil || p.Schema != 1 || !filepath.IsAbs(p.DataDir) {
		return "", false, fmt.Errorf("find installation: %s is damaged; write {\"schema\":1,\"data_dir\":\"PATH OF THE DATA\"} into it", l.pointer())
	}
	return p.DataDir, true, nil
}

func writePointer(l Layout) error {
	b, err := json.Marshal(pointerFile{1, l.Data})
	if err != nil {
		return err
	}
	return writeFile(l.pointer(), append(b, '\n'), 0o600)
}
