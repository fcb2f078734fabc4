package logscmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quadlet"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/quayctl/quayctl/profiles"
	"github.com/quayctl/quayctl/quadlets"
)

func TestArguments(t *testing.T) {
	const common = "--no-pager --quiet --output=short-iso"
	all := "--unit=quay-edge-a.service --unit=quay-edge-b.service --unit=quay-edge.socket --unit=quay-registryd.service --unit=quay-workers.service --unit=quay-postgresql.service --unit=quay-migrate.service"
	for _, c := range []struct {
		uid  int
		args []string
		want string
	}{
		{0, nil, all + " --lines=200"},
		{1000, nil, strings.ReplaceAll(all, "--unit=", "--user-unit=") + " --lines=200"},
		{0, []string{"registryd"}, "--unit=quay-registryd.service --lines=200"},
		{0, []string{"workers", "edge"}, "--unit=quay-workers.service --unit=quay-edge-a.service --unit=quay-edge-b.service --unit=quay-edge.socket --lines=200"},
		{1000, []string{"postgresql", "-f"}, "--user-unit=quay-postgresql.service --lines=200 --follow"},
		{0, []string{"migrate", "-n", "0"}, "--unit=quay-migrate.service"},
		{0, []string{"migrate", "-n", "0", "--follow"}, "--unit=quay-migrate.service --no-tail --follow"},
		{0, []string{"migrate", "--since", "10 min ago", "--lines=5"}, "--unit=quay-migrate.service --since=10|min|ago --lines=5"},
		{0, []string{"migrate", "--since", "-1h"}, "--unit=quay-migrate.service --since=-1h --lines=200"},
	} {
		t.Run(fmt.Sprint(c.uid, c.args), func(t *testing.T) {
			got, err := arguments(parse(t, c.uid, c.args...))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, a := range strings.Fields(common + " " + c.want) {
				want = append(want, strings.ReplaceAll(a, "|", " "))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// parse gives what the flags become.
func parse(t *testing.T, uid int, args ...string) *options {
	t.Helper()
	io, _, _, _ := iostreams.Test()
	f := &cli.Factory{IO: io, UID: uid, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler), Getenv: func(string) string { return "" }}
	var got *options
	cmd := newCmd(f, func(_ context.Context, o *options) error { got = o; return nil })
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRefused(t *testing.T) {
	for _, args := range [][]string{{"nosuch"}, {"edge", "nosuch"}, {"--lines", "-1"}} {
		_, err := arguments(parse(t, 0, args...))
		var e *cli.Error
		if !errors.As(err, &e) || e.Code != cli.ExitUsage {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestComponents: the log of every unit that a profile has is within reach, and none that no profile has.
func TestComponents(t *testing.T) {
	b, err := profiles.Files.ReadFile("registry-only.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := quadlet.ParseProfile("registry-only", b)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := quadlet.Components(quadlets.Files, p)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, c := range parts {
		want = append(want, c.Name)
	}
	for _, c := range components() {
		got = append(got, c.name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("components are %q, the profile has %q", got, want)
	}
}
