package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quayctl/quayctl/internal/clock"
)

// TestLostData: without its data, and the journal in them, an installation can still be removed.
func TestLostData(t *testing.T) {
	root, m := t.TempDir(), newMachine()
	l := testLayout(root)
	if _, err := install(t, l, m, request, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(CheckData(l), os.RemoveAll(l.Data)); err != nil {
		t.Fatal(err)
	}
	if err := CheckData(l); !errors.Is(err, ErrDataMissing) {
		t.Fatal(err)
	}
	j, err := OpenForInstall(l, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := Recover(l, j); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Uninstall{Layout: l, DeleteData: true, Journal: j, Podman: m, Systemd: m, Host: m}).Run(t.Context(), silent{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.Config, l.Data, l.Quadlets, filepath.Join(l.Trust, "registry.example.com:8443")} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
	for _, unit := range []string{"quay.target", "quay-edge.socket"} {
		if exists(l.Units+"/"+unit) || m.active[unit] {
			t.Errorf("%s is left", unit)
		}
	}
}
