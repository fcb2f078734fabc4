package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestForeign(t *testing.T) {
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []func(Layout) string{
		func(l Layout) string { return filepath.Join(l.Quadlets, "quay.container") },
		func(l Layout) string { return filepath.Join(l.Units, "quay.target") },
		func(l Layout) string { return filepath.Join(l.Units, "quay-edge.socket") },
		func(l Layout) string { return filepath.Join(l.Wants, "quay.target") },
		Layout.ConfigFile, Layout.CACert, Layout.CAKey, Layout.AdminPassword, Layout.Cert, Layout.CertKey,
		func(l Layout) string { return filepath.Join(l.Data, "holiday.jpg") },
	} {
		l := testLayout(t.TempDir())
		path := file(l)
		write(path, "theirs")
		var e *ForeignError
		if err := Foreign(l, nil); !errors.As(err, &e) || e.Path != path || e.Remedy == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
	l := testLayout(t.TempDir())
	write(l.Cert(), "chain")
	write(l.CertKey(), "key")
	write(filepath.Join(l.Config, "notes"), "theirs")
	write(filepath.Join(l.Data, "lost+found", "x"), "")
	if err := Foreign(l, &KeyPair{Certificate: []byte("chain"), Key: []byte("key")}); err != nil {
		t.Errorf("the very certificate that is given: %v", err)
	}
}

// TestForeignKnowsItsOwn: whatever an installation leaves, interrupted, removed or without its journal, is not in its way.
func TestForeignKnowsItsOwn(t *testing.T) {
	var records []Record
	if _, err := install(t, testLayout(t.TempDir()), newMachine(), request, func(r Record) error { records = append(records, r); return nil }); err != nil {
		t.Fatal(err)
	}
	for n := range records {
		l, seen := testLayout(t.TempDir()), 0
		_, _ = install(t, l, newMachine(), request, func(Record) error { // interrupted, or at its end
			if seen++; seen == n+1 {
				return errCut
			}
			return nil
		})
		if err := Foreign(l, nil); err != nil {
			t.Errorf("after record %d: %v", n, err)
		}
	}
	l, m := testLayout(t.TempDir()), newMachine()
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	journal := read(t, l.JournalFile())
	if err := os.RemoveAll(l.Data); err != nil {
		t.Fatal(err)
	}
	if err := Foreign(l, nil); err != nil {
		t.Errorf("without the data: %v", err)
	}
	if err := errors.Join(os.Mkdir(l.Data, 0o700), os.WriteFile(l.JournalFile(), append(journal, '\n'), 0o600), uninstall(t, l, m, false), Foreign(l, nil)); err != nil {
		t.Errorf("after an uninstallation: %v", err)
	}
}
