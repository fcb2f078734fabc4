// Package host is what touches the machine: Podman through its API, systemd over D-Bus, files and their owners, the
// registry's front door and database. It implements the interfaces that internal/appliance declares.
package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/quayctl/quayctl/internal/appliance"
)

// Systemd is the manager of the machine, or of the user. It implements appliance.Systemd.
type Systemd struct {
	conn     *dbus.Conn
	rootless bool
}

// OpenSystemd connects to the system's or to the user's systemd.
func OpenSystemd(ctx context.Context, rootless bool) (*Systemd, error) {
	open, remedy := dbus.NewSystemConnectionContext, "run quayctl on a machine that was booted with systemd"
	if rootless {
		open, remedy = dbus.NewUserConnectionContext, "sign in as this user (ssh or machinectl shell, not su or sudo), so that the user's systemd runs"
	}
	// The connection ends with the context it was opened with, and is needed to tidy up after an interruption.
	conn, err := open(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("reach systemd: %w; %s", err, remedy)
	}
	return &Systemd{conn, rootless}, nil
}

// Close ends the connection.
func (s *Systemd) Close() { s.conn.Close() }

// Reload has systemd read all units again, generators included.
func (s *Systemd) Reload(ctx context.Context) error {
	if err := s.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return nil
}

// Start starts a unit and waits for the job.
func (s *Systemd) Start(ctx context.Context, unit string) error {
	return s.job(ctx, "start", unit, s.conn.StartUnitContext)
}

// Restart restarts a unit, or starts it, and waits for the job.
func (s *Systemd) Restart(ctx context.Context, unit string) error {
	return s.job(ctx, "restart", unit, s.conn.RestartUnitContext)
}

// Stop stops a unit and waits for the job. A unit that does not exist is stopped.
func (s *Systemd) Stop(ctx context.Context, unit string) error {
	err := s.job(ctx, "stop", unit, s.conn.StopUnitContext)
	var e interface{ Name() string }
	if err != nil && (strings.Contains(err.Error(), "not loaded") || errors.As(err, &e) && e.Name() == "org.freedesktop.systemd1.NoSuchUnit") {
		return nil
	}
	return err
}

func (s *Systemd) job(ctx context.Context, verb, unit string, do func(context.Context, string, string, chan<- string) (int, error)) error {
	since := time.Now()
	ended := make(chan string, 1)
	if _, err := do(ctx, unit, "replace", ended); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	select {
	case result := <-ended:
		if result == "done" || result == "skipped" {
			return nil
		}
		return s.failure(ctx, verb, unit, result, since)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// journalLines is how much of a failed unit's output an error shows.
const journalLines = 15

// failure tells why a job ended badly, with what the unit wrote meanwhile.
func (s *Systemd) failure(ctx context.Context, verb, unit, result string, since time.Time) error {
	why := map[string]string{
		"failed":     "it failed",
		"timeout":    "it did not become ready in time",
		"dependency": "a unit that it needs failed",
		"canceled":   "another job took its place",
	}[result]
	if why == "" {
		why = "the job ended with " + result
	}
	err := fmt.Errorf("%s %s: %s", verb, unit, why)
	lines, journalErr := s.Logs(ctx, unit, journalLines, since)
	if journalErr != nil || len(lines) == 0 {
		return fmt.Errorf("%w; see `quayctl logs`", err)
	}
	return fmt.Errorf("%w; its last lines:\n  %s", err, strings.Join(lines, "\n  "))
}

// Logs gives the last lines of a unit's journal since a time, oldest first, without time stamps.
func (s *Systemd) Logs(ctx context.Context, unit string, lines int, since time.Time) ([]string, error) {
	name := "--unit="
	if s.rootless {
		name = "--user-unit="
	}
	out, err := exec.CommandContext(ctx, "journalctl", "--no-pager", "--quiet", "--output=cat", fmt.Sprintf("--lines=%d", lines),
		fmt.Sprintf("--since=@%d", since.Unix()), name+unit).Output()
	if err != nil {
		return nil, fmt.Errorf("read journal of %s: %w", unit, err)
	}
	text := strings.TrimSpace(string(out))
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// Units gives the state of units.
func (s *Systemd) Units(ctx context.Context, names ...string) ([]appliance.UnitState, error) {
	found, err := s.conn.ListUnitsByNamesContext(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("ask systemd for units: %w", err)
	}
	states := make([]appliance.UnitState, len(names))
	for i, n := range names {
		states[i] = appliance.UnitState{Name: n, Load: "not-found", Active: "inactive", Sub: "dead"}
		for _, f := range found {
			if f.Name == n {
				states[i].Load, states[i].Active, states[i].Sub = f.LoadState, f.ActiveState, f.SubState
			}
		}
		p, err := s.conn.GetUnitPropertyContext(ctx, n, "StateChangeTimestamp")
		if err != nil {
			continue
		}
		if usec, ok := p.Value.Value().(uint64); ok && usec > 0 {
			states[i].Since = time.UnixMicro(int64(usec)).UTC()
		}
	}
	return states, nil
}

// ResetFailed forgets that a unit failed.
func (s *Systemd) ResetFailed(ctx context.Context, unit string) error {
	err := s.conn.ResetFailedUnitContext(ctx, unit)
	if err != nil && !strings.Contains(err.Error(), "not loaded") {
		return fmt.Errorf("reset %s: %w", unit, err)
	}
	return nil
}
