package appliance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quadlet"
)

// Restart restarts components. A component with slots is not restarted but switched: the other slot starts, and when it
// is ready the first one stops, so that no request fails. All fields are required.
type Restart struct {
	Layout     Layout
	State      *State
	Components []string
	Journal    *Journal
	Clock      clock.Clock
	Systemd    Systemd
	Host       Host
}

// Run restarts the components one after the other.
func (r *Restart) Run(ctx context.Context, o Observer) ([]Timing, error) {
	var steps []Step
	var before []string
	add := func(s Step) {
		s.Needs = before
		before = []string{s.Name}
		steps = append(steps, s)
	}
	for _, name := range r.Components {
		i := slices.IndexFunc(r.State.Components, func(c ComponentState) bool { return c.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("the installation has no component %s", name)
		}
		c := r.State.Components[i]
		if len(c.Slots) == 0 {
			add(Step{Name: "restart-" + name, Title: "restart " + name, Run: func(ctx context.Context) error { return r.restart(ctx, c) }})
			continue
		}
		old := r.State.Slot
		next := c.Slots[(slices.Index(c.Slots, old)+1)%len(c.Slots)]
		add(Step{Name: "start-" + name + "-" + next, Title: "start " + name + " in slot " + next, Run: func(ctx context.Context) error {
			// Not just a start: an interrupted switch may have left an old one running there.
			if err := r.Systemd.Restart(ctx, quadlet.Service(name, next)); err != nil {
				return err
			}
			return r.ready(ctx, name, next)
		}})
		add(Step{Name: "switch-" + name, Title: "make slot " + next + " the one that starts at boot", Run: func(ctx context.Context) error {
			return r.enable(ctx, name, old, next)
		}})
		add(Step{Name: "stop-" + name + "-" + old, Title: "stop " + name + " in slot " + old, Run: func(ctx context.Context) error {
			return r.Systemd.Stop(ctx, quadlet.Service(name, old))
		}})
	}
	t := &Transaction{Journal: r.Journal, Operation: "restart", Version: r.State.Version, Observer: o}
	return t.Run(ctx, steps)
}

func (r *Restart) restart(ctx context.Context, c ComponentState) error {
	if err := r.Systemd.Restart(ctx, quadlet.Service(c.Name, "")); err != nil {
		return err
	}
	if c.Oneshot || c.Name == databaseComponent {
		return nil
	}
	return r.ready(ctx, c.Name, "")
}

func (r *Restart) ready(ctx context.Context, component, slot string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return r.Host.Ready(ctx, r.Layout.AdminSocket(component, slot))
}

// enable changes which slot the target and the socket name, and records it.
func (r *Restart) enable(ctx context.Context, component, old, next string) error {
	from, to := quadlet.Service(component, old), quadlet.Service(component, next)
	for name, key := range map[string][2]string{quadlet.TargetName: {"Unit", "Wants"}, quadlet.SocketName: {"Socket", "Service"}} {
		path := filepath.Join(r.Layout.Units, name)
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read unit: %w", err)
		}
		u, err := quadlet.Parse(name, string(b))
		if err != nil {
			return err
		}
		for _, s := range u.Sections {
			for i, e := range s.Entries {
				if s.Name == key[0] && e.Key == key[1] && e.Value == from {
					s.Entries[i].Value = to
				}
			}
		}
		text := []byte(u.String())
		if err := writeFile(path, text, 0o644); err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		r.State.Units[name] = hex.EncodeToString(sum[:])
	}
	r.State.Slot = next
	r.State.Updated = r.Clock.Now().UTC()
	if err := r.State.Write(r.Layout); err != nil {
		return err
	}
	return r.Systemd.Reload(ctx)
}
