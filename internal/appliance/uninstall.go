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
	return timings, u.finish(context.WithoutCancel(ctx))
}

func (u *Uninstall) inventory() []Resource { return Inventory(u.Journal.Records()) }

func (u *Uninstall) disable(context.Context) error {
	for _, r := range u.inventory() {
		if r.Kind == File && filepath.Dir(r.Name) == u.Layout.Wants {
			if err := u.removeFile(r.Name); err != nil {
				return err
			}
		}
	}
	return nil
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
			if err := u.Host.Remove(ctx, r.Name); err != nil {
				return err
			}
		case r.Kind == File && filepath.Dir(r.Name) == u.Layout.Units:
			if err := u.removeFile(r.Name); err != nil {
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
		r := Resource{Kind: Image, Name: id}
		if err := u.Journal.Append(Record{Event: Removed, Resource: &r}); err != nil {
			return err
		}
	}
	if slices.Contains(u.inventory(), socket) {
		if err := u.Systemd.Stop(ctx, podmanSocket); err != nil {
			return err
		}
		return u.Journal.Append(Record{Event: Removed, Resource: &socket})
	}
	return nil
}

// ours are the files that the installation's own bookkeeping is in; they go last.
func (u *Uninstall) bookkeeping() []string {
	l := u.Layout
	return []string{l.StateFile(), l.JournalFile()}
}

func (u *Uninstall) removeFiles(ctx context.Context) error {
	for _, r := range slices.Backward(u.inventory()) {
		if r.Kind == Linger {
			if err := u.Host.SetLinger(ctx, false); err != nil {
				return err
			}
			if err := u.Journal.Append(Record{Event: Removed, Resource: &r}); err != nil {
				return err
			}
		}
	}
	for _, r := range slices.Backward(u.inventory()) {
		if r.Keep && !u.DeleteData || slices.Contains(u.bookkeeping(), r.Name) {
			continue
		}
		var err error
		switch r.Kind {
		case Tree:
			err = u.Host.Remove(ctx, r.Name)
		case File:
			// The pointer to the data goes when they have gone.
			if r.Name != u.Layout.pointer() {
				err = u.removeFile(r.Name)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish removes the bookkeeping itself, the pointer to it, and the directories that are empty then. Interrupted before
// its end it leaves no more than these.
func (u *Uninstall) finish(context.Context) error {
	inventory := u.inventory()
	for _, f := range u.bookkeeping() {
		if err := u.removeFile(f); err != nil {
			return err
		}
	}
	var files []string
	if u.DeleteData {
		files = append(files, u.Layout.pointer())
	}
	for _, pass := range []bool{false, true} { // first all directories but that of the pointer
		for _, r := range slices.Backward(inventory) {
			if r.Kind != Dir || r.Keep && !u.DeleteData || (r.Name == u.Layout.Config || strings.HasPrefix(u.Layout.Config, r.Name+"/")) != pass {
				continue
			}
			if err := removeEmpty(r.Name); err != nil {
				return err
			}
		}
		for _, f := range files {
			if err := u.removeFile(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *Uninstall) removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// removeEmpty removes a directory if nothing is in it: what others put there is theirs.
func removeEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) > 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}
