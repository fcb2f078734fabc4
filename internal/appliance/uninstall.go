package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quayctl/quayctl/internal/quadlet"
)

// Uninstall is one run of a removal. All fields are required.
type Uninstall struct {
	Layout     Layout
	DeleteData bool
	Journal    *Journal
	Podman     Podman
	Systemd    Systemd
	Host       Host
}

// The steps of a removal, by name.
const (
	StepDisable      = "disable"
	StepStop         = "stop"
	StepRemoveUnits  = "remove-units"
	StepRemoveImages = "remove-images"
	StepRemoveFiles  = "remove-files"
)

// UninstallSteps names the steps of a removal, in order.
func UninstallSteps() []string {
	var names []string
	for _, s := range (&Uninstall{}).Steps() {
		names = append(names, s.Name)
	}
	return names
}

// Steps gives the steps.
func (u *Uninstall) Steps() []Step {
	return []Step{
		{StepDisable, "start no more at boot", nil, u.disable},
		{StepStop, "stop services", []string{StepDisable}, u.stop},
		{StepRemoveUnits, "remove units", []string{StepStop}, u.removeUnits},
		{StepRemoveImages, "remove images", []string{StepRemoveUnits}, u.removeImages},
		{StepRemoveFiles, "remove files", []string{StepRemoveImages}, u.removeFiles},
	}
}

// Run removes what the journal and the state say was made. Interrupted, it can be run again.
func (u *Uninstall) Run(ctx context.Context, o Observer) ([]Timing, error) {
	t := &Transaction{Journal: u.Journal, Operation: "uninstall", Observer: o}
	timings, err := t.Run(ctx, u.Steps())
	if err != nil {
		return timings, err
	}
	return timings, u.finish()
}

func (u *Uninstall) inventory() []Resource { return Inventory(u.Journal.Records()) }

func (u *Uninstall) disable(context.Context) error {
	for _, r := range u.inventory() {
		if r.Kind == File && filepath.Dir(r.Name) == u.Layout.Wants {
			if err := errors.Join(u.removeFile(r.Name), u.gone(r)); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone records that a resource is there no more.
func (u *Uninstall) gone(r Resource) error {
	return u.Journal.Append(Record{Event: Removed, Resource: &r})
}

// stop stops every unit of the appliance that systemd knows, the socket first, so that nothing is started again.
func (u *Uninstall) stop(ctx context.Context) error {
	if err := u.Systemd.Stop(ctx, quadlet.SocketName); err != nil {
		return err
	}
	if err := u.Systemd.Stop(ctx, quadlet.TargetName); err != nil {
		return err
	}
	for _, s := range slices.Backward(u.services()) {
		if err := u.Systemd.Stop(ctx, s); err != nil {
			return err
		}
		if err := u.Systemd.ResetFailed(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// services are the units made of the quadlets that are in place.
func (u *Uninstall) services() []string {
	entries, err := os.ReadDir(u.Layout.Quadlets)
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".container"); ok {
			all = append(all, base+".service")
		}
	}
	return all
}

func (u *Uninstall) removeUnits(ctx context.Context) error {
	for _, r := range u.inventory() {
		switch {
		case r.Kind == Tree && (r.Name == u.Layout.Quadlets || r.Name == u.Layout.staged()):
			if err := errors.Join(u.Host.Remove(ctx, r.Name), u.gone(r)); err != nil {
				return err
			}
		case r.Kind == File && filepath.Dir(r.Name) == u.Layout.Units:
			if err := errors.Join(u.removeFile(r.Name), u.gone(r)); err != nil {
				return err
			}
		}
	}
	return u.Systemd.Reload(ctx)
}

func (u *Uninstall) removeImages(ctx context.Context) error {
	var ids []string
	for _, r := range u.inventory() {
		if r.Kind == Image {
			ids = append(ids, r.Name)
		}
	}
	socket := Resource{Kind: PodmanSocket, Name: podmanSocket}
	if len(ids) > 0 {
		states, err := u.Systemd.Units(ctx, podmanSocket)
		if err != nil {
			return err
		}
		if !states[0].Running() {
			if err := u.Journal.Creating(socket); err != nil {
				return err
			}
			if err := u.Systemd.Start(ctx, podmanSocket); err != nil {
				return err
			}
		}
	}
	for _, id := range ids {
		if err := u.Podman.RemoveImage(ctx, id); err != nil {
			return err
		}
		if err := u.gone(Resource{Kind: Image, Name: id}); err != nil {
			return err
		}
	}
	if slices.Contains(u.inventory(), socket) {
		if err := u.Systemd.Stop(ctx, podmanSocket); err != nil {
			return err
		}
		return u.gone(socket)
	}
	return nil
}

func (u *Uninstall) removeFiles(ctx context.Context) error {
	l := u.Layout
	// Without the state nothing is installed; from here on it is only the rest that is cleared away.
	if err := u.removeFile(l.StateFile()); err != nil {
		return err
	}
	for _, r := range slices.Backward(u.inventory()) {
		if r.Keep && !u.DeleteData || r.Name == l.pointer() {
			continue // the pointer to the data goes when they have gone
		}
		var err error
		switch r.Kind {
		case Linger:
			err = u.Host.SetLinger(ctx, false)
		case Tree:
			err = u.Host.Remove(ctx, r.Name)
		case File:
			err = u.removeFile(r.Name)
		default:
			continue
		}
		if err := errors.Join(err, u.gone(r)); err != nil {
			return err
		}
	}
	return nil
}

// finish removes the directories that are empty now, and with the data the journal and the pointer to them. What stays
// of the journal together with the data tells a later removal what there is. Interrupted, it is finished by the next run,
// which finds the pointer.
func (u *Uninstall) finish() error {
	l := u.Layout
	inventory := u.inventory()
	if u.DeleteData {
		if err := u.removeFile(l.JournalFile()); err != nil {
			return err
		}
	}
	aboveSettings := func(r Resource) bool { return r.Name == l.Config || strings.HasPrefix(l.Config, r.Name+"/") }
	var rest []Resource
	for _, r := range slices.Backward(inventory) {
		switch {
		case r.Kind != Dir || r.Keep && !u.DeleteData:
		case aboveSettings(r):
			rest = append(rest, r)
		default:
			if err := u.removeEmpty(r); err != nil {
				return err
			}
		}
	}
	if u.DeleteData {
		if err := u.removeFile(l.pointer()); err != nil {
			return err
		}
	}
	for _, r := range rest {
		if err := u.removeEmpty(r); err != nil {
			return err
		}
	}
	return nil
}

// removeFile removes a file, and what a process that was killed while it wrote the file has left beside it: renameio
// writes .NAME with a number, and renames it.
func (u *Uninstall) removeFile(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "."+filepath.Base(path))
		if ok && number != "" && strings.Trim(number, "0123456789") == "" {
			if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove: %w", err)
			}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// removeEmpty removes a directory if nothing is in it: what others put there is theirs.
func (u *Uninstall) removeEmpty(r Resource) error {
	entries, err := os.ReadDir(r.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) > 0:
		return nil
	case err == nil:
		err = os.Remove(r.Name)
	}
	if err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	if u.DeleteData {
		return nil // the journal is gone already
	}
	return u.gone(r)
}
