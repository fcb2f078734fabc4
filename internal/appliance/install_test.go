package appliance

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errCut = errors.New("power cut")

func TestInstall(t *testing.T) {
	root, m := t.TempDir(), newMachine()
	l := testLayout(root)
	r, err := install(t, l, m, request, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Resumed || r.Attached || r.Proof != "push-pull" || r.URL != "https://registry.example.com:8443" {
		t.Errorf("result %+v", r)
	}
	if len(r.Steps) != len(InstallSteps()) {
		t.Errorf("%d timings for %d steps", len(r.Steps), len(InstallSteps()))
	}
	if string(read(t, r.PasswordFile)) != m.users["admin"] || len(m.users["admin"]) < 20 {
		t.Error("the password file does not tell the user's password")
	}
	if len(m.repos) > 0 {
		t.Errorf("the proof left %v", m.repos)
	}
	for unit, want := range map[string]bool{"quay.target": true, "quay-edge.socket": true, "quay-edge-a.service": true, "quay-edge-b.service": false, "podman.socket": false} {
		if m.active[unit] != want {
			t.Errorf("%s active: %v, want %v", unit, m.active[unit], want)
		}
	}
	if !m.linger {
		t.Error("the user does not linger")
	}
	if slices.Index(m.running, "quay-postgresql.service") > slices.Index(m.running, "quay-migrate.service") {
		t.Errorf("order of starts: %v", m.running)
	}
	for _, secret := range []string{l.ConfigFile(), l.AdminPassword(), l.CertKey(), l.CAKey()} {
		if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, info.Mode(), err)
		}
	}
}

// TestInstallInterrupted cuts the power as each record reaches the disk, runs the installation again, and expects what an
// uninterrupted one leaves.
func TestInstallInterrupted(t *testing.T) {
	plainRoot := t.TempDir()
	var records []Record
	if _, err := install(t, testLayout(plainRoot), newMachine(), request, func(r Record) error { records = append(records, r); return nil }); err != nil {
		t.Fatal(err)
	}
	want, wantTree := comparable(t, testLayout(plainRoot)), tree(t, plainRoot)
	for n := range records {
		if records[n].Event == End {
			continue
		}
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			root, m := t.TempDir(), newMachine()
			l := testLayout(root)
			seen := 0
			_, err := install(t, l, m, request, func(Record) error {
				if seen++; seen == n+1 {
					return errCut
				}
				return nil
			})
			if err == nil {
				// Cut after the last step: there is nothing left that could have been interrupted.
				if r := records[n]; r.Event != Done && r.Event != Removed {
					t.Fatalf("record %d (%+v): the installation went on", n, r)
				}
				return
			}
			m.cut()
			secret, hadSecret := os.ReadFile(l.ConfigFile())
			ca, hadCA := os.ReadFile(l.CACert())
			if _, err := install(t, l, m, request, nil); err != nil {
				t.Fatalf("record %d (%s %s): run again: %v", n, records[n].Event, records[n].Step, err)
			}
			if diff := cmp.Diff(want, comparable(t, l)); diff != "" {
				t.Errorf("record %d (%s %s): state (-uninterrupted +run again):\n%s", n, records[n].Event, records[n].Step, diff)
			}
			if diff := cmp.Diff(wantTree, tree(t, root)); diff != "" {
				t.Errorf("record %d (%s %s): files:\n%s", n, records[n].Event, records[n].Step, diff)
			}
			if hadSecret == nil && string(read(t, l.ConfigFile())) != strings.TrimSpace(string(secret)) {
				t.Errorf("record %d: the secrets were made anew", n)
			}
			if hadCA == nil && string(read(t, l.CACert())) != strings.TrimSpace(string(ca)) {
				t.Errorf("record %d: the CA was made anew", n)
			}
			if err := uninstall(t, l, m, true); err != nil {
				t.Fatal(err)
			}
			if left := tree(t, root); len(left) != 1 || len(m.images) != 0 || m.linger || len(m.active) != 0 {
				t.Errorf("record %d: left after uninstall: %v, images %v, linger %v, units %v", n, left, m.images, m.linger, m.active)
			}
		})
	}
}

// TestEmptyImagesAreLoadedAgain shows that an image is not believed to be whole because it is listed.
func TestEmptyImagesAreLoadedAgain(t *testing.T) {
	m := newMachine()
	l := testLayout(t.TempDir())
	_, err := install(t, l, m, request, func(r Record) error {
		if r.Event == Create && r.Resource.Kind == Image {
			m.images[r.Resource.Name] = false // it gets no further than the list
			return errCut
		}
		return nil
	})
	if !errors.Is(err, errCut) {
		t.Fatalf("first run: %v", err)
	}
	m.cut()
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	for id, whole := range m.images {
		if !whole {
			t.Errorf("image %s is empty", id)
		}
	}
}

func TestUninstallKeepsDataForALaterInstall(t *testing.T) {
	root, m := t.TempDir(), newMachine()
	l := testLayout(root)
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(l.Storage(), "blob")
	if err := os.WriteFile(blob, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca, password, settings := read(t, l.CACert()), read(t, l.AdminPassword()), read(t, l.ConfigFile())
	if err := uninstall(t, l, m, false); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{l.StateFile(), l.Quadlets, l.Units, l.Binary, filepath.Join(l.Data, "conf"), filepath.Join(l.Data, "tls"), l.Run()} {
		if exists(gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	if len(m.images) != 0 || m.linger {
		t.Errorf("images %v, linger %v", m.images, m.linger)
	}
	r, err := install(t, l, m, request, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Attached || r.Resumed || r.Proof != "push-pull" {
		t.Errorf("result %+v", r)
	}
	for path, want := range map[string][]byte{l.CACert(): ca, l.AdminPassword(): password, l.ConfigFile(): settings, blob: []byte("x")} {
		if got := read(t, path); string(got) != string(want) {
			t.Errorf("%s changed", path)
		}
	}
	m.users["admin"] = "changed by the user"
	if err := uninstall(t, l, m, false); err != nil {
		t.Fatal(err)
	}
	if r, err = install(t, l, m, request, nil); err != nil || r.Proof != "answer" || r.PasswordFile != "" {
		t.Errorf("with a password that is not known: %+v, %v", r, err)
	}
	if err := uninstall(t, l, m, false); err != nil {
		t.Fatal(err)
	}
	if err := uninstall(t, l, m, true); err != nil {
		t.Fatal(err)
	}
	if left := tree(t, root); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestUninstallLeavesWhatIsNotOurs(t *testing.T) {
	root, m := t.TempDir(), newMachine()
	l := testLayout(root)
	m.active["podman.socket"], m.linger = true, true
	theirs := []string{filepath.Join(l.Units, "other.service"), l.Binary, filepath.Join(filepath.Dir(l.Quadlets), "other.container")}
	for _, f := range theirs {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o755), os.WriteFile(f, []byte("theirs"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, root)
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	if err := uninstall(t, l, m, true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	if !m.active["podman.socket"] || !m.linger {
		t.Error("what was on before is off")
	}
}

func TestRestartSwitchesSlots(t *testing.T) {
	m := newMachine()
	l := testLayout(t.TempDir())
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"b", "a"} {
		s, err := ReadState(l)
		if err != nil {
			t.Fatal(err)
		}
		j, err := OpenForInstall(l, testClock)
		if err != nil {
			t.Fatal(err)
		}
		r := &Restart{Layout: l, State: s, Components: []string{"registryd", "edge"}, Journal: j, Clock: testClock, Systemd: m, Host: m}
		_, err = r.Run(t.Context(), silent{})
		j.Close()
		if err != nil {
			t.Fatal(err)
		}
		if s, err = ReadState(l); err != nil || s.Slot != want {
			t.Fatalf("slot %q, want %q (%v)", s.Slot, want, err)
		}
		for _, slot := range []string{"a", "b"} {
			unit := "quay-edge-" + slot + ".service"
			if m.active[unit] != (slot == want) {
				t.Errorf("%s active: %v", unit, m.active[unit])
			}
			for _, f := range []string{"quay.target", "quay-edge.socket"} {
				if strings.Contains(string(read(t, filepath.Join(l.Units, f))), unit) != (slot == want) {
					t.Errorf("%s names %s wrongly", f, unit)
				}
			}
		}
	}
}

// TestRestartAfterAnInterruptedSwitch: the slot that an interrupted switch did not stop does not pass for a new one.
func TestRestartAfterAnInterruptedSwitch(t *testing.T) {
	m := newMachine()
	l := testLayout(t.TempDir())
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	restart := func(after func(Record)) error {
		s, err := ReadState(l)
		if err != nil {
			t.Fatal(err)
		}
		j, err := OpenForInstall(l, testClock)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		j.After = func(r Record) {
			if after == nil && r.Event == Done && r.Step == "switch-edge" {
				cancel(errCut)
			}
		}
		_, err = (&Restart{Layout: l, State: s, Components: []string{"edge"}, Journal: j, Clock: testClock, Systemd: m, Host: m}).Run(ctx, silent{})
		return err
	}
	if err := restart(nil); !errors.Is(err, errCut) || !m.active["quay-edge-a.service"] || !m.active["quay-edge-b.service"] {
		t.Fatalf("%v, %v", err, m.active)
	}
	m.running = nil
	if err := restart(func(Record) {}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.running, []string{"quay-edge-a.service"}) || m.active["quay-edge-b.service"] {
		t.Errorf("started %v, active %v", m.running, m.active)
	}
}

// TestPasswordOfKeptData: the file never ends up with a password that is not the user's.
func TestPasswordOfKeptData(t *testing.T) {
	m := newMachine()
	l := testLayout(t.TempDir())
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	valid := string(read(t, l.AdminPassword()))
	if err := uninstall(t, l, m, false); err != nil {
		t.Fatal(err)
	}
	other := request
	other.Password = "another-password"
	if r, err := install(t, l, m, other, nil); err != nil || r.Proof != "answer" {
		t.Fatalf("%+v, %v", r, err)
	}
	if now := string(read(t, l.AdminPassword())); now != valid || m.users["admin"] != valid {
		t.Errorf("the file tells %q, the user has %q", now, m.users["admin"])
	}
	if err := errors.Join(uninstall(t, l, m, false), os.Remove(l.AdminPassword())); err != nil {
		t.Fatal(err)
	}
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	if exists(l.AdminPassword()) {
		t.Error("a password was made up for a user who has another one")
	}
}

// TestProbeOfAnInterruptedProof: the repository that was pushed as power failed is removed by the next run.
func TestProbeOfAnInterruptedProof(t *testing.T) {
	m := newMachine()
	l := testLayout(t.TempDir())
	m.proving = errCut
	if _, err := install(t, l, m, request, nil); !errors.Is(err, errCut) || len(m.repos) != 1 {
		t.Fatalf("%v, %v", err, m.repos)
	}
	m.cut()
	m.proving = nil
	if _, err := install(t, l, m, request, nil); err != nil || len(m.repos) != 0 {
		t.Errorf("%v, left %v", err, m.repos)
	}
}

// TestTrustKeepsTheirs: a CA that somebody else wants trusted for this registry stays.
func TestTrustKeepsTheirs(t *testing.T) {
	m := newMachine()
	l := testLayout(t.TempDir())
	dir := filepath.Join(l.Trust, "registry.example.com:8443")
	theirs := filepath.Join(dir, "ca.crt")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(theirs, []byte("theirs"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(dir, "quayctl-ca.crt")
	if string(read(t, theirs)) != "theirs" || string(read(t, ours)) != string(read(t, l.CACert())) {
		t.Errorf("theirs: %s", read(t, theirs))
	}
	if err := uninstall(t, l, m, true); err != nil {
		t.Fatal(err)
	}
	if exists(ours) || string(read(t, theirs)) != "theirs" {
		t.Error("theirs was removed, or ours was not")
	}
}

func TestCertificate(t *testing.T) {
	l := testLayout(t.TempDir())
	if err := os.MkdirAll(l.Config, 0o700); err != nil {
		t.Fatal(err)
	}
	now := testClock.Now()
	verify := func(name string) *x509.Certificate {
		t.Helper()
		chain, err := Certificates(read(t, l.Cert()))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(read(t, l.CACert()))
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			t.Fatal(err)
		}
		return chain[0]
	}
	ensure := func(names ...string) {
		t.Helper()
		if own, err := ensureCertificate(l, names, nil, now); err != nil || !own {
			t.Fatalf("own %v, %v", own, err)
		}
	}
	ensure("registry.example.com", "192.0.2.7", "::1")
	first := verify("registry.example.com")
	verify("192.0.2.7")
	verify("::1")
	ca := read(t, l.CACert())
	ensure("registry.example.com")
	if !verify("registry.example.com").Equal(first) {
		t.Error("a good certificate was replaced")
	}
	ensure("other.example.com")
	verify("other.example.com")
	now = now.Add(leafLifetime - leafRenewal + 1)
	last := verify("other.example.com")
	ensure("other.example.com")
	if verify("other.example.com").Equal(last) {
		t.Error("a certificate that expires soon was kept")
	}
	if string(read(t, l.CACert())) != string(ca) {
		t.Error("the CA was made anew")
	}
	if err := os.Remove(l.CAKey()); err != nil {
		t.Fatal(err)
	}
	if _, err := ensureCertificate(l, []string{"x.example.com"}, nil, now); err == nil {
		t.Error("a CA without its key was replaced")
	}
}

func TestSettings(t *testing.T) {
	fresh, err := settings(nil, "registry.example.com:8443", "admin")
	if err != nil {
		t.Fatal(err)
	}
	again, err := settings(fresh, "registry.example.com:8443", "admin")
	if err != nil || string(again) != string(fresh) {
		t.Errorf("settings that are complete were changed (%v)", err)
	}
	moved, err := settings(fresh, "other.example.com", "admin")
	if err != nil || !strings.Contains(string(moved), "SERVER_HOSTNAME: other.example.com\n") {
		t.Errorf("host name: %v\n%s", err, moved)
	}
	given, err := settings([]byte("# mine\nSECRET_KEY: kept-kept-kept\nMAXIMUM_LAYER_SIZE: 10G\n"), "registry.example.com", "admin")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# mine\n", "SECRET_KEY: kept-kept-kept\n", "MAXIMUM_LAYER_SIZE: 10G\n", "DB_URI: postgresql://", "DATABASE_SECRET_KEY: "} {
		if !strings.Contains(string(given), want) {
			t.Errorf("no %q in\n%s", want, given)
		}
	}
	for _, bad := range []string{"DB_URI: postgresql://u@elsewhere/quay\n", "- a list\n", "SECRET_KEY: [\n"} {
		if _, err := settings([]byte(bad), "registry.example.com", "admin"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	merged, err := keepSecrets([]byte("MAXIMUM_LAYER_SIZE: 10G\n"), fresh)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := settings(merged, "registry.example.com:8443", "admin")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(fresh), "\n") {
		if strings.Contains(line, "SECRET_KEY:") && !strings.Contains(string(whole), line) {
			t.Errorf("a secret was lost: %.20s", line)
		}
	}
}
