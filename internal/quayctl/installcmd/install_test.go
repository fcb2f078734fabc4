package installcmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/quadlet"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

func TestFlags(t *testing.T) {
	var got *options
	cmd := newCmd(&cli.Factory{}, func(_ context.Context, o *options) error { got = o; return nil })
	cmd.SetArgs([]string{"--profile=full", "--hostname", "r.example.com", "--port=443", "--data-dir=/d", "--config=c", "--ssl-cert=a", "--ssl-key=b",
		"--init-user=ops", "--init-password-stdin", "--bundle=x", "--key=k", "--non-interactive", "--yes", "--ignore-preflight=disk-space", "--output=json"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	want := &options{profile: "full", hostname: "r.example.com", port: 443, dataDir: "/d", config: "c", cert: "a", key: "b", user: "ops", passwordStdin: true,
		bundle: "x", publicKey: "k", nonInteractive: true, yes: true, waive: []string{"disk-space"}, format: cli.FormatJSON}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{}), cmpopts.IgnoreFields(options{}, "factory")); diff != "" {
		t.Error(diff)
	}
}

func TestRequestRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, []byte("- no mapping\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*options)
		code   cli.ExitCode
	}{
		"port":                    {func(o *options) { o.port = 70000 }, cli.ExitUsage},
		"no host name":            {func(o *options) { o.hostname = "" }, cli.ExitUsage},
		"user":                    {func(o *options) { o.user = "Not A Name" }, cli.ExitUsage},
		"certificate without key": {func(o *options) { o.cert = file }, cli.ExitUsage},
		"missing key":             {func(o *options) { o.cert, o.key = file, file+".none" }, cli.ExitUsage},
		"settings":                {func(o *options) { o.config = file }, cli.ExitConfig},
		"empty password":          {func(o *options) { o.passwordStdin = true }, cli.ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			io, _, _, _ := iostreams.Test()
			o := &options{factory: &cli.Factory{IO: io}, hostname: "r.example.com", port: 8443, user: "admin"}
			if _, err := o.request(); err != nil {
				t.Fatal(err)
			}
			c.change(o)
			_, err := o.request()
			var e *cli.Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	m := &bundle.Manifest{Version: "1"}
	for _, c := range []string{"registryd", "edge", "workers", "postgresql"} {
		m.Images = append(m.Images, bundle.Image{Component: c})
	}
	for _, name := range []string{"registry-only", "full"} {
		p, err := readProfile(name)
		if err != nil {
			t.Fatal(err)
		}
		components, err := chooseComponents(p, m)
		if name == "registry-only" {
			if err != nil || len(components) != 5 {
				t.Errorf("%s: %d components, %v", name, len(components), err)
			}
			continue
		}
		var e *cli.Error
		if !errors.As(err, &e) || e.Code != cli.ExitPreflight || !strings.Contains(e.Error(), "core-api") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readProfile("no-such-profile"); err == nil {
		t.Error("a profile that does not exist was taken")
	}
	m.Images = m.Images[1:]
	p, err := quadlet.ParseProfile("x", []byte("name: mine\ncomponents: [postgresql, migrate, registryd]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chooseComponents(p, m); err == nil || !strings.Contains(err.Error(), "registryd") {
		t.Errorf("an image that is missing: %v", err)
	}
}
