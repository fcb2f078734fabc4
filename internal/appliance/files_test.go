package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUmask: other users can read what they need to, and nothing else, whatever the administrator's umask is.
func TestUmask(t *testing.T) {
	for _, mask := range []int{0o077, 0} {
		l := testLayout(t.TempDir())
		before := unix.Umask(mask)
		_, err := install(t, l, newMachine(), request, nil)
		unix.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]os.FileMode{
			filepath.Join(l.Trust, "registry.example.com:8443"):           0o755,
			filepath.Join(l.Trust, "registry.example.com:8443", "ca.crt"): 0o644,
			l.Quadlets: 0o755, filepath.Join(l.Quadlets, "quay-migrate.container"): 0o644, l.Binary: 0o755, filepath.Dir(l.Binary): 0o755,
			filepath.Join(l.Units, "quay.target"): 0o644, l.Data: 0o700, l.Config: 0o700, l.CAKey(): 0o600, l.ConfigFile(): 0o600,
			l.JournalFile(): 0o600, l.StateFile(): 0o600,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("umask %04o: %s: %v, want %04o (%v)", mask, path, info.Mode(), want, err)
			}
		}
	}
}

func TestReplaceDir(t *testing.T) {
	for _, exchange := range []func(a, b string) error{
		renameExchange,
		func(string, string) error { return unix.EINVAL }, // as NFS answers
	} {
		dir := t.TempDir()
		staged, target := filepath.Join(dir, "staged"), filepath.Join(dir, "target")
		for _, text := range []string{"first", "second"} {
			if err := errors.Join(makeDir(staged, 0o755), os.WriteFile(filepath.Join(staged, text), []byte(text), 0o644), replaceDir(staged, target, exchange)); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(target)
			if err != nil || len(entries) != 1 || entries[0].Name() != text || exists(staged) {
				t.Errorf("%v, %v", entries, err)
			}
		}
	}
}
