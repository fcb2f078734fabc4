package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gofrs/flock"
)

// Lock is the one lock of an installation, held by whoever changes it.
type Lock struct{ fl *flock.Flock }

// AcquireLock takes the lock file at path without waiting and notes in it who holds it. The directory must exist.
// If another process holds it the error is an *Error with ExitLocked that names that process. The kernel
// releases the lock when the process ends, however it ends; the file stays.
func AcquireLock(path, verb string) (*Lock, error) {
	fl := flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	ok, err := fl.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !ok {
		holder := "another quayctl"
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			holder = strings.TrimSpace(string(b))
		}
		return nil, NewError(ExitLocked, "installation", fmt.Errorf("%s is changing it (lock %s)", holder, path),
			"wait until it has ended, then run the command again")
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "quayctl %s (process %d)\n", verb, os.Getpid()), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("note the holder in %s: %w", path, err), fl.Unlock())
	}
	return &Lock{fl}, nil
}

// Release gives the lock back.
func (l *Lock) Release() error {
	if err := l.fl.Unlock(); err != nil {
		return fmt.Errorf("unlock %s: %w", l.fl.Path(), err)
	}
	return nil
}
