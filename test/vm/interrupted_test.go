//go:build machine

package vm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/appliance"
	vm "github.com/quayctl/quayctl/test/vm"
)

// awaitStep waits until the journal on the machine's disk says that step has begun. The journal is watched, not polled: the file
// and its directories appear while we look, so the nearest existing ancestor is watched until the next one exists.
func (s *site) awaitStep(ctx context.Context, step string) error {
	s.t.Helper()
	root := s.Path("/")
	journal := filepath.Join(root, s.dataDir(), "journal.jsonl")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() {
		// The only error is that f is closed, and then nobody reads.
		f.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck
	})
	defer stop()
	buf := make([]byte, 4096)
	for {
		next := ""
		for p := journal; ; p = filepath.Dir(p) {
			if _, err := unix.InotifyAddWatch(fd, p, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY|unix.IN_DELETE_SELF); err == nil {
				break
			} else if p == filepath.Clean(root) || !errors.Is(err, unix.ENOENT) {
				return &os.PathError{Op: "watch", Path: p, Err: err}
			}
			next = p
		}
		if begun(journal, step) {
			return nil
		}
		// What appeared before its directory was watched makes no event.
		if _, err := os.Lstat(next); next != "" && err == nil {
			continue
		}
		if _, err := f.Read(buf); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// begun tells whether a journal says that a step has begun.
func begun(journal, step string) bool {
	f, err := os.Open(journal)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r appliance.Record
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.Step == step && r.Event == appliance.Enter {
			return true
		}
	}
	return false
}

// during runs install, calls do when step has begun, and gives how install ended.
func (s *site) during(step string, do func()) vm.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ended, endedCancel := context.WithCancelCause(ctx)
	var result vm.Result
	go func() {
		result = s.ExecContext(ctx, s.User, "cd ~/appliance && exec ./quayctl "+s.installArgs()+" --output json", nil)
		endedCancel(errors.New("install has ended"))
	}()
	if err := s.awaitStep(ended, step); err != nil {
		cancel()
		<-ended.Done()
		s.t.Fatalf("wait for step %s: %v; install: exit %d\n%s%s", step, err, result.Code, result.Stdout, result.Stderr)
	}
	do()
	<-ended.Done()
	return result
}

// installBesideAnother installs while a second installer tries the same, and is refused.
func (s *site) installBesideAnother() installed {
	s.t.Helper()
	r := s.during(appliance.StepImages, func() {
		s.want(s.quayctl(s.installArgs()), exitLocked, "quayctl install", "process")
	})
	if r.Code != 0 {
		s.t.Fatalf("install beside another exited %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	var in installed
	s.decode(r.Stdout, &in)
	return in
}

// finish runs install again after an interruption: it ends healthy, and what it has proven with a push and a pull is so.
// Was the interruption too late, all is done already, and install says so.
func (s *site) finish() {
	s.t.Helper()
	r := s.quayctl(s.installArgs())
	if r.Code != 0 && r.Code != exitAlreadyInstalled {
		s.t.Fatalf("install after the interruption exited %d\n%s%s\n%s", r.Code, r.Stdout, r.Stderr, s.journal())
	}
	s.wantHealthy()
}

// TestPowerCut cuts the power at every journal step of install, on one machine after the other; install run again ends healthy.
func TestPowerCut(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		for _, step := range appliance.InstallSteps() {
			t.Run(step, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, user, vm.Options{})
				s.during(step, s.Cut)
				s.On()
				s.finish()
			})
		}
	})
}

// TestInterrupt ends install at every journal step, by Ctrl-C and by kill -9; run again it ends healthy, and Ctrl-C has its own exit code.
func TestInterrupt(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		signal := map[string]string{"root": "INT", "quay": "KILL"}[user]
		s := newSite(t, user, vm.Options{})
		before := s.inventory()
		for _, step := range appliance.InstallSteps() {
			began := time.Now()
			r := s.during(step, func() { s.Exec("root", "pkill -"+signal+" -x quayctl", nil) })
			if signal == "INT" && r.Code != exitInterrupted && r.Code != 0 {
				t.Errorf("at %s: Ctrl-C ends install with %d\n%s%s", step, r.Code, r.Stdout, r.Stderr)
			}
			s.finish()
			s.want(s.quayctl("uninstall --yes --delete-data"), 0)
			t.Logf("%s at %s: exit %d, finished; %.1f s", signal, step, r.Code, time.Since(began).Seconds())
		}
		s.wantSame(before, "uninstall after interruptions")
	})
}
