package prompt

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

var defaults = InstallAnswers{Hostname: "registry.example.com", DataDir: "/var/lib/quay", InitUser: "admin"}

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

func TestInstallDefaults(t *testing.T) {
	s, in, out, _ := iostreams.Test()
	in.WriteString(lines("", "", "", "", "", ""))
	got, err := Install(t.Context(), s, true, defaults)
	want := defaults
	want.Port = 8443
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"(--hostname) [registry.example.com]: ", "(--port) [8443]: ", "(--data-dir) [/var/lib/quay]: ", "(--init-user) [admin]: ", "certificate   made by quayctl", "Install now? yes or no [yes]: "} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is not in\n%s", text, out)
		}
	}
}

func TestInstallAnswersAndCorrections(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for _, f := range []string{cert, key} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, in, out, _ := iostreams.Test()
	in.WriteString(lines(
		"https://r.example.com", "r.example.com:443", "my_host", "2001:db8::1",
		"0", "65536", "https", "443",
		"srv/quay", "/", "/srv/quay",
		"A B", "ops",
		"perhaps", "N",
		filepath.Join(dir, "none"), dir, cert, key,
		"Y"))
	got, err := Install(t.Context(), s, true, defaults)
	want := InstallAnswers{Hostname: "2001:db8::1", Port: 443, DataDir: "/srv/quay", CertFile: cert, KeyFile: key, InitUser: "ops"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, n := range map[string]int{
		"without a scheme or a port": 3, "from 1 to 65535": 3, "give an absolute path": 2, "answer yes or no": 1, "there is no such file": 1, "that is no file": 1,
	} {
		if c := strings.Count(out.String(), text); c != n {
			t.Errorf("%q is there %d times, not %d", text, c, n)
		}
	}
}

func TestDeclined(t *testing.T) {
	for name, answers := range map[string]string{
		"no":                   lines("", "", "", "", "", "no"),
		"the end of the input": lines("", ""),
		"nothing":              "",
	} {
		s, in, _, _ := iostreams.Test()
		in.WriteString(answers)
		_, err := Install(t.Context(), s, true, defaults)
		var e *cli.Error
		if !errors.As(err, &e) || e.Code != cli.ExitInterrupted || e.Error() != "cancelled; nothing was changed" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInterrupted: a signal ends a question that nobody answers.
func TestInterrupted(t *testing.T) {
	s, _, _, _ := iostreams.Test()
	r, w := io.Pipe()
	defer w.Close()
	s.In = r
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cli.ErrInterrupted)
	if _, err := Install(ctx, s, true, defaults); !errors.Is(err, cli.ErrInterrupted) {
		t.Errorf("got %v", err)
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"": false, "y": true, "YES": true, "no": false} {
		s, in, out, _ := iostreams.Test()
		in.WriteString(answer + "\n")
		got, err := Confirm(t.Context(), s, true, "Remove Quay?", "The data stay.")
		if err != nil || got != want || out.String() != "The data stay.\nRemove Quay? yes or no [no]: " {
			t.Errorf("%q: %t, %v, %q", answer, got, err, out)
		}
	}
}

func TestTyped(t *testing.T) {
	s, in, out, _ := iostreams.Test()
	in.WriteString(lines("", "yes", "delete"))
	if err := Typed(t.Context(), s, true, "This deletes everything.", "delete"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), `type "delete", or press Ctrl-C`); n != 2 {
		t.Errorf("corrected %d times:\n%s", n, out)
	}
	in.WriteString(lines("yes"))
	if err := Typed(t.Context(), s, true, "This deletes everything.", "delete"); err == nil {
		t.Error("went on without the word")
	}
}

func TestAccessible(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        bool
	}{{"TERM", "dumb", true}, {"TERM", "xterm", false}, {"ACCESSIBLE", "1", true}} {
		if got := Accessible(func(k string) string { return map[string]string{c.name: c.value}[k] }); got != c.want {
			t.Errorf("%s=%s: %t", c.name, c.value, got)
		}
	}
}
