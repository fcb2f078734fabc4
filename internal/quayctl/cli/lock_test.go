package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quayctl.lock")
	l, err := AcquireLock(path, "install")
	if err != nil {
		t.Fatal(err)
	}
	_, err = AcquireLock(path, "uninstall")
	var e *Error
	if !errors.As(err, &e) || e.Code != ExitLocked || !strings.Contains(e.Error(), "quayctl install (process ") {
		t.Errorf("second lock: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock's file after its release: %v", err)
	}
}

// However removals and attempts mix, there is never more than one holder.
func TestLockIsHeldOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quayctl.lock")
	var holders, held atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				l, err := AcquireLock(path, "install")
				if err != nil {
					continue
				}
				held.Add(1)
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				holders.Add(-1)
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if held.Load() == 0 {
		t.Error("nobody ever held the lock")
	}
}
