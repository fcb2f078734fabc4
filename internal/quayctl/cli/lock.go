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
// releases the lock when the process ends, however it ends.
func AcquireLock(path, verb string) (*Lock, error) {
	fl, ok, err := tryLock(path)
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

// tryLock locks the file that has the name path. Whoever held it before may have removed the file that was opened, and
// then another process may hold a new one of that name.
func tryLock(path string) (*flock.Flock, bool, error) {
	for {
		fl := flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDWR))
		ok, err := fl.TryLock()
		if err != nil || !ok {
			return nil, false, err
		}
		locked, err := fl.Stat()
		if err != nil {
			return nil, false, errors.Join(err, fl.Unlock())
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(locked, named) {
			return fl, true, nil
		}
		if err := fl.Unlock(); err != nil {
			return nil, false, err
		}
	}
}

// Release gives the lock back and removes its file.
func (l *Lock) Release() error {
	if err := os.Remove(l.fl.Path()); err != nil {
		return errors.Join(fmt.Errorf("remove lock: %w", err), l.fl.Unlock())
	}
	if err := l.fl.Unlock(); err != nil {
		return fmt.Errorf("unlock %s: %w", l.fl.Path(), err)
	}
	return nil
}
