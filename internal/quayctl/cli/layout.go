package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/quayctl/quayctl/internal/appliance"
)

// Layout is where an installation of this user lies or will lie: that of the machine for root, below the user's
// home otherwise. dataDir replaces the default data directory when it is not empty. The error is a home
// directory that is not known.
func (f *Factory) Layout(dataDir string) (appliance.Layout, error) {
	home := f.Getenv("HOME")
	if f.Rootless() && !filepath.IsAbs(home) {
		return appliance.Layout{}, NewError(ExitFailure, "home directory", errors.New("HOME is not set"), "log in as a user with a home directory, or set HOME")
	}
	return appliance.DefaultLayout(f.UID, f.Getenv, home, dataDir), nil
}

// Installation is the layout of this user's installation, wherever its data lie. Without one the error has ExitNotInstalled.
func (f *Factory) Installation() (appliance.Layout, error) {
	l, err := f.Layout("")
	if err != nil {
		return l, err
	}
	data, found, err := appliance.FindData(l)
	if err != nil {
		return l, err
	}
	if !found {
		return l, NewError(ExitNotInstalled, "installation", fmt.Errorf("there is none: %s knows of no data", l.Config),
			"install first: quayctl install; or run as the user who did: root and every other user have installations of their own")
	}
	return f.Layout(data)
}
