package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Paths are where an installation of this user lies.
type Paths struct {
	Config string // settings and the sources of secrets, 0700
	Data   string // everything else
}

// Paths gives the places of ARCHITECTURE.md: those of the machine for root, and the XDG base directories
// for any other user. The error is a home directory that is not known.
func (f *Factory) Paths() (Paths, error) {
	if !f.Rootless() {
		return Paths{Config: "/etc/quay", Data: "/var/lib/quay"}, nil
	}
	config, err := f.xdg("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return Paths{}, err
	}
	data, err := f.xdg("XDG_DATA_HOME", ".local/share")
	if err != nil {
		return Paths{}, err
	}
	return Paths{Config: filepath.Join(config, "quay"), Data: filepath.Join(data, "quay")}, nil
}

func (f *Factory) xdg(variable, fallback string) (string, error) {
	// A relative path is to be ignored, says the XDG base directory specification.
	if v := f.Getenv(variable); filepath.IsAbs(v) {
		return v, nil
	}
	home := f.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", NewError(ExitFailure, "home directory", errors.New("neither "+variable+" nor HOME is set"), "log in as a user with a home directory, or set HOME")
	}
	return filepath.Join(home, fallback), nil
}

// NotInstalled is the error of a command that needs an installation and found none at data.
func NotInstalled(data string) *Error {
	return NewError(ExitNotInstalled, "installation", fmt.Errorf("there is none in %s", data),
		"install first: quayctl install; or run as the user who did: root and every other user have installations of their own")
}

// RequireData returns NotInstalled unless the directory data exists.
func RequireData(data string) error {
	_, err := os.Stat(data)
	if errors.Is(err, fs.ErrNotExist) {
		return NotInstalled(data)
	}
	return err
}
