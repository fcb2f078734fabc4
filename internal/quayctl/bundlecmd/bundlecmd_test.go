package bundlecmd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

// execute runs `bundle ARGS` and gives what it printed and the error.
func execute(t *testing.T, env map[string]string, args ...string) (string, error) {
	t.Helper()
	io, _, out, _ := iostreams.Test()
	f := &cli.Factory{IO: io, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler), Getenv: func(k string) string { return env[k] }, Executable: os.Executable}
	cmd := New(f)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func code(t *testing.T, err error) cli.ExitCode {
	t.Helper()
	return cli.AsError(context.Background(), err).Code
}

// writeKeys makes a pair of keys as openssl would.
func writeKeys(t *testing.T) (private, public string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := bundle.EncodePublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "sign.pem"), filepath.Join(dir, "sign.pub")
	for file, b := range map[string][]byte{private: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), public: pub} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

func TestUsage(t *testing.T) {
	private, public := writeKeys(t)
	missing := filepath.Join(t.TempDir(), "none")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no command":     {nil, "name one of the commands"},
		"create nothing": {[]string{"create"}, "needs --version and --sign-key"},
		"no key file":    {[]string{"create", "--version=1.0.0", "--sign-key", missing}, "none"},
		"public key":     {[]string{"create", "--version=1.0.0", "--sign-key", public}, "expected \"PRIVATE KEY\""},
		"binary":         {[]string{"create", "--version=1.0.0", "--sign-key", private, "--binary", "edge"}, "expected NAME=FILE"},
		"profiles":       {[]string{"create", "--version=1.0.0", "--sign-key", private, "--profiles", missing}, "no such directory"},
		"two bundles":    {[]string{"verify", "a", "b"}, "takes one bundle, not 2"},
		"private key":    {[]string{"verify", "--key", private, "x.tar"}, "expected \"PUBLIC KEY\""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := execute(t, map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || code(t, err) != cli.ExitUsage {
				t.Errorf("got %v, expected a usage error with %q", err, c.want)
			}
		})
	}
	if _, err := execute(t, map[string]string{"SOURCE_DATE_EPOCH": "today"}, "create", "--version=1.0.0", "--sign-key", private); err == nil || code(t, err) != cli.ExitUsage {
		t.Errorf("SOURCE_DATE_EPOCH=today: %v", err)
	}
}

func TestRefused(t *testing.T) {
	_, public := writeKeys(t)
	for _, verb := range []string{"verify", "inspect"} {
		_, err := execute(t, nil, verb, "--key", public, t.TempDir())
		if !errors.Is(err, bundle.NotABundle) || code(t, err) != cli.ExitBundle {
			t.Errorf("%s of an empty directory: %v", verb, err)
		}
		if e := cli.AsError(context.Background(), err); e.Remedy == "" || e.Details == nil {
			t.Errorf("%s: no remedy or details: %+v", verb, e)
		}
	}
}

// TestCreateInspectVerify makes a bundle with all images and reads it back.
func TestCreateInspectVerify(t *testing.T) {
	private, public := writeKeys(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "b.tar")
	program := buildProgram(t)
	args := []string{"create", "--version=1.2.3", "--arch=amd64", "--commit=abc", "--sign-key", private, "--file", file}
	for _, name := range []string{"quayctl", "registryd", "edge", "workers", "postgresql"} {
		args = append(args, "--binary", name+"="+program)
	}
	cache := os.Getenv("QUAY_CACHE") // else the user's own
	out, err := execute(t, map[string]string{"SOURCE_DATE_EPOCH": "1700000000", "QUAY_CACHE": cache}, args...)
	if err != nil || !strings.Contains(out, file+": quay-appliance 1.2.3 for linux/amd64, ") {
		t.Fatalf("create: %q, %v", out, err)
	}
	out, err = execute(t, nil, "verify", "--key", public, file)
	if err != nil || !strings.Contains(out, "signature and ") {
		t.Errorf("verify: %q, %v", out, err)
	}
	out, err = execute(t, nil, "inspect", "--key", public, file)
	for _, want := range []string{"Signature  good", "2023-11-14T22:13:20Z", "localhost/quay/postgresql:1.2.3", "oci/index.json", "Podman 4.9.0 or newer"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("inspect does not tell %q: %v\n%s", want, err, out)
		}
	}
	for _, verb := range []string{"inspect", "verify"} {
		out, err = execute(t, nil, verb, "--output=json", "--key", public, file)
		var d struct {
			Schema, Path, Signature string
			Manifest                bundle.Manifest
		}
		if err != nil || json.Unmarshal([]byte(out), &d) != nil || d.Schema != "quayctl/bundle/v1" || d.Signature != "valid" || len(d.Manifest.Images) != 4 {
			t.Errorf("%s --output=json: %v\n%.300s", verb, err, out)
		}
	}
	_, other := writeKeys(t)
	if out, err = execute(t, nil, "inspect", "--key", other, file); err != nil || !strings.Contains(out, "NOT GOOD") {
		t.Errorf("inspect with another key: %v\n%.300s", err, out)
	}
	if _, err = execute(t, nil, "verify", "--key", other, file); !errors.Is(err, bundle.BadSignature) || code(t, err) != cli.ExitBundle {
		t.Errorf("verify with another key: %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.LastIndexByte(b[:len(b)-2048], 'e')] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = execute(t, nil, "verify", "--key", public, file); !errors.Is(err, bundle.Altered) || code(t, err) != cli.ExitBundle {
		t.Errorf("verify of an altered bundle: %v", err)
	}
}

// TestOptions looks at what the flags become.
func TestOptions(t *testing.T) {
	var got *createOptions
	cmd := newCreate(&cli.Factory{}, func(_ *cobra.Command, o *createOptions) error { got = o; return nil })
	cmd.SetArgs([]string{"--version=1.0.0", "--sign-key=k", "--binary=edge=e", "--binary=workers=w", "-o", "json"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	if got.version != "1.0.0" || got.signKey != "k" || len(got.binaries) != 2 || got.arch != "" || got.source != "." || got.format != cli.FormatJSON {
		t.Errorf("%+v", got)
	}
}

// buildProgram builds a small static program of this module.
func buildProgram(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", file, "../../../cmd/postgresql")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}
