package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/quayctl/quayctl/internal/preflight"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/spf13/cobra"
)

func TestExitCodesAreDistinctAndNamed(t *testing.T) {
	codes, names := map[ExitCode]bool{}, map[string]bool{}
	last := ExitCode(-1)
	for _, d := range ExitCodes() {
		if codes[d.Code] || names[d.Name] || d.Code <= last || d.Meaning == "" || d.ThenDo == "" || d.Code.String() != d.Name {
			t.Errorf("%+v", d)
		}
		codes[d.Code], names[d.Name], last = true, true, d.Code
	}
	for _, c := range []ExitCode{ExitOK, ExitFailure, ExitUsage, ExitPreflight, ExitBundle, ExitUnhealthy, ExitConfig, ExitLocked, ExitAlreadyInstalled, ExitNotInstalled, ExitInterrupted} {
		if !codes[c] {
			t.Errorf("exit code %d is not described", c)
		}
	}
	if got := ExitCode(77).String(); got != "exit-77" {
		t.Errorf("got %q", got)
	}
}

func TestAsError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	plain := errors.New("broken")
	inner := NewError(ExitBundle, "bundle x.tar", plain, "copy it again")
	if AsError(ctx, nil) != nil {
		t.Error("an error of nothing")
	}
	if e := AsError(ctx, plain); e.Code != ExitFailure || e.Error() != "broken" || !errors.Is(e, plain) {
		t.Errorf("plain: %+v", e)
	}
	if e := AsError(ctx, inner); e != inner {
		t.Errorf("itself: %+v", e)
	}
	if e := AsError(ctx, fmt.Errorf("verify: %w", inner)); e.Code != ExitBundle || e.Error() != "verify: bundle x.tar: broken" || e.Remedy != "copy it again" {
		t.Errorf("wrapped: %+v", e)
	}
	if e := AsError(ctx, fmt.Errorf("run: %w", context.Canceled)); e.Code != ExitFailure {
		t.Errorf("cancelled by nobody: %+v", e)
	}
	cancel(ErrInterrupted)
	for _, err := range []error{ErrInterrupted, fmt.Errorf("run: %w", context.Canceled), fmt.Errorf("run: %w", ErrInterrupted)} {
		if e := AsError(ctx, err); e.Code != ExitInterrupted || e.Remedy == "" {
			t.Errorf("%v: %+v", err, e)
		}
	}
}

func TestReport(t *testing.T) {
	e := &Error{Code: ExitPreflight, Thing: "port 8443", Cause: errors.New("taken by nginx & co"), Remedy: "stop it,\nor give another", Details: map[string]int{"pid": 7}}
	for _, c := range []struct {
		name          string
		e             *Error
		format        Format
		color         bool
		out, errWords string
	}{
		{"words", e, FormatTable, false, "", "error: port 8443: taken by nginx & co\nremedy: stop it,\n        or give another\n"},
		{"colours", e, FormatTable, true, "", "\x1b[31merror:\x1b[0m port 8443: taken by nginx & co\n\x1b[1mremedy:\x1b[0m stop it,\n        or give another\n"},
		{"json", e, FormatJSON, false, `{
  "schema": "quayctl/error/v1",
  "error": {
    "code": "preflight",
    "exit_code": 3,
    "message": "port 8443: taken by nginx & co",
    "thing": "port 8443",
    "cause": "taken by nginx & co",
    "remedy": "stop it,\nor give another",
    "details": {
      "pid": 7
    }
  }
}
`, "error: port 8443: taken by nginx & co\nremedy: stop it,\n        or give another\n"},
		{"reported", Exit(ExitUnhealthy), FormatJSON, false, "", ""},
		{"no remedy", Usagef("no %s", "way"), FormatTable, false, "", "error: no way\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, out, errOut := iostreams.Test()
			s.SetTTY(c.color, c.color, c.color)
			c.e.Report(s, c.format)
			if out.String() != c.out || errOut.String() != c.errWords {
				t.Errorf("out %q\nerr %q", out, errOut)
			}
		})
	}
}

func TestWriteJSON(t *testing.T) {
	var b strings.Builder
	if err := WriteJSON(&b, "thing", 2, struct {
		URL string `json:"url"`
	}{"https://a/?b&c"}); err != nil || b.String() != "{\n  \"schema\": \"quayctl/thing/v2\",\n  \"url\": \"https://a/?b&c\"\n}\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	b.Reset()
	if err := WriteJSON(&b, "empty", 1, struct{}{}); err != nil || !json.Valid([]byte(b.String())) {
		t.Errorf("%q, %v", b.String(), err)
	}
	for _, v := range []any{[]int{1}, "text", nil, make(chan int)} {
		if err := WriteJSON(&b, "thing", 1, v); err == nil {
			t.Errorf("%T was written", v)
		}
	}
}

func TestTable(t *testing.T) {
	s, _, out, _ := iostreams.Test()
	table := NewTable("name", "state", "image")
	table.Row("registryd", "active", "1.0")
	table.Row("edge")
	if err := table.Write(s); err != nil {
		t.Fatal(err)
	}
	if want := "NAME       STATE   IMAGE\nregistryd  active  1.0\nedge\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	out.Reset()
	s.SetTTY(true, true, true)
	if err := table.Write(s); err != nil || !strings.HasPrefix(out.String(), "\x1b[1mNAME       STATE   IMAGE\x1b[0m\nregistryd") {
		t.Errorf("on a terminal: %q, %v", out, err)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", -2048: "-2.0 KiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestArgs(t *testing.T) {
	for _, c := range []struct {
		given []string
		want  string
	}{
		{nil, "missing argument: NAME FILE"},
		{[]string{"a"}, "missing argument: FILE"},
		{[]string{"a", "b"}, ""},
		{[]string{"a", "b", "c"}, `unexpected argument "c"`},
	} {
		err := Args("NAME", "FILE")(nil, c.given)
		switch {
		case c.want == "" && err == nil:
		case err == nil || err.Error() != c.want || AsError(t.Context(), err).Code != ExitUsage:
			t.Errorf("%q: %v, want %q", c.given, err, c.want)
		}
	}
}

func TestOutputFlag(t *testing.T) {
	var f Format
	cmd := &cobra.Command{Run: func(*cobra.Command, []string) {}}
	AddOutputFlag(cmd, &f)
	if f != FormatTable {
		t.Errorf("the default is %q", f)
	}
	if err := cmd.ParseFlags([]string{"-o", "json"}); err != nil || f != FormatJSON {
		t.Errorf("%q, %v", f, err)
	}
	if err := cmd.ParseFlags([]string{"-o", "yaml"}); err == nil || f != FormatJSON {
		t.Errorf("%q, %v", f, err)
	}
}

func TestIgnorePreflightFlag(t *testing.T) {
	var names []string
	cmd := &cobra.Command{Run: func(*cobra.Command, []string) {}}
	AddIgnorePreflightFlag(cmd, &names)
	if err := cmd.ParseFlags([]string{"--ignore-preflight", "memory,inodes", "--ignore-preflight=clock"}); err != nil || strings.Join(names, " ") != "memory inodes clock" {
		t.Errorf("%q, %v", names, err)
	}
	if err := cmd.ParseFlags([]string{"--ignore-preflight", "nosuch"}); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("%v", err)
	}
}

func TestReportPreflight(t *testing.T) {
	s, _, _, errOut := iostreams.Test()
	if err := ReportPreflight(s, &preflight.Report{Results: []preflight.Result{{Name: "memory", Status: preflight.Warning, Cause: "short"}}}); err != nil {
		t.Errorf("a warning stands in the way: %v", err)
	}
	if !strings.Contains(errOut.String(), "warn  memory: short") {
		t.Errorf("the warning is not told: %q", errOut)
	}
	r := &preflight.Report{Results: []preflight.Result{
		{Name: "podman", Class: preflight.Block, Status: preflight.Failed, Cause: "Podman is not installed", Remedy: "sudo apt-get install podman"},
		{Name: "port-free", Class: preflight.Block, Status: preflight.Failed, Cause: "port 8443 is taken", Remedy: "stop it"},
	}}
	e := AsError(t.Context(), ReportPreflight(s, r))
	if e.Code != ExitPreflight || e.Error() != "preflight, 2 findings: Podman is not installed; port 8443 is taken" || e.Remedy != "sudo apt-get install podman\nstop it" || e.Details != r {
		t.Errorf("%+v", e)
	}
}

func TestValidHostname(t *testing.T) {
	for _, s := range []string{"localhost", "registry", "registry.example.com", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.example", "R.example.COM", strings.Repeat("a", 63)} {
		if err := ValidHostname(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a b", "https://a", "a:443", "[::1]", "fe80::1%eth0", "-a", "a-", "my_host", ".a", "a.", "a..b", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"} {
		if err := ValidHostname(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestInstallationOfNobody(t *testing.T) {
	home := t.TempDir()
	f := &Factory{UID: 1000, Getenv: func(k string) string { return map[string]string{"HOME": home}[k] }}
	if _, err := f.Installation(); AsError(t.Context(), err).Code != ExitNotInstalled {
		t.Errorf("%v", err)
	}
	f.Getenv = func(string) string { return "" }
	if _, err := f.Layout(""); err == nil {
		t.Error("a layout without a home")
	}
	f.UID = 0
	if l, err := f.Layout("/srv/quay"); err != nil || l.Data != "/srv/quay" || l.Config != "/etc/quay" || f.Rootless() {
		t.Errorf("%+v, %v", l, err)
	}
}
