//go:build machine

package vm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/appliance"
	vm "github.com/quayctl/quayctl/test/vm"
)

// journalSize is how many bytes the journal on the machine's disk has now.
func (s *site) journalSize() int64 {
	s.t.Helper()
	info, err := os.Stat(s.Path(s.dataDir() + "/journal.jsonl"))
	if err != nil {
		return 0 // none yet
	}
	return info.Size()
}

// awaitStep waits until the journal on the machine's disk says, beyond its first bytes, that step has begun. The journal is watched, not polled: the file
// and its directories appear while we look, so the nearest existing ancestor is watched until the next one exists.
func (s *site) awaitStep(ctx context.Context, step string, beyond int64) error {
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
		if begun(journal, step, beyond) {
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

// begun tells whether a journal says, beyond its first bytes, that a step has begun.
func begun(journal, step string, beyond int64) bool {
	f, err := os.Open(journal)
	if err != nil {
		return false
	}
	defer f.Close()
	if _, err := f.Seek(beyond, io.SeekStart); err != nil {
		return false
	}
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
	return s.while(s.installArgs()+" --output json", step, do)
}

// while runs quayctl, calls do when step has begun, and gives how quayctl ended.
func (s *site) while(args, step string, do func()) vm.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	beyond := s.journalSize()
	ended, endedCancel := context.WithCancelCause(ctx)
	var result vm.Result
	go func() {
		result = s.ExecContext(ctx, s.User, "cd ~/appliance && exec ./quayctl "+args, nil)
		endedCancel(errors.New("quayctl has ended"))
	}()
	if err := s.awaitStep(ended, step, beyond); err != nil {
		cancel()
		<-ended.Done()
		s.t.Fatalf("wait for step %s: %v; quayctl: exit %d\n%s%s", step, err, result.Code, result.Stdout, result.Stderr)
	}
	do()
	<-ended.Done()
	return result
}

// signal sends a signal to quayctl from outside of the machine, which takes no time there.
func (s *site) signal(signal unix.Signal) {
	s.t.Helper()
	for _, pid := range s.processes("quayctl") {
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			s.t.Errorf("signal quayctl: %v", err)
		}
	}
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
// Was the interruption too late, all is done already, install says so, and the appliance comes up by itself.
func (s *site) finish() {
	s.t.Helper()
	switch r := s.quayctl(s.installArgs()); r.Code {
	case 0:
		s.wantHealthy()
	case exitAlreadyInstalled:
		s.awaitHealthy()
	default:
		s.t.Fatalf("install after the interruption exited %d\n%s%s\n%s", r.Code, r.Stdout, r.Stderr, s.journal())
	}
}

// TestPowerCut cuts the power at every journal step of install, on one machine after the other; install run again ends healthy.
func TestPowerCut(t *testing.T) {
	t.Parallel()
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

// TestInterrupt ends install at every journal step, one after the other, by Ctrl-C and by kill -9. Each run takes up what the one
// before has left and comes at least one step further, the last ends healthy. Ctrl-C has its own exit code.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	forUsers(t, func(t *testing.T, user string) {
		signal := map[string]unix.Signal{"root": unix.SIGINT, "quay": unix.SIGKILL}[user]
		s := newSite(t, user, vm.Options{})
		before := s.inventory()
		for _, step := range appliance.InstallSteps() {
			began := time.Now()
			r := s.during(step, func() { s.signal(signal) })
			t.Logf("%v at %s: exit %d, after %.1f s", signal, step, r.Code, time.Since(began).Seconds())
			if r.Code == 0 && (step == appliance.StepEnable || step == appliance.StepRecord) {
				break // these take milliseconds, and all is done before the signal comes
			}
			if signal == unix.SIGINT && r.Code != exitInterrupted {
				t.Errorf("at %s: Ctrl-C ends install with %d\n%s%s", step, r.Code, r.Stdout, r.Stderr)
			}
		}
		s.finish()
		s.want(s.quayctl("uninstall --yes --delete-data"), 0)
		s.wantSame(before, "uninstall after interruptions")
	})
}

// TestInterruptedUninstall ends uninstall at every journal step, by kill -9 and at last by a power cut; run again it leaves nothing.
func TestInterruptedUninstall(t *testing.T) {
	t.Parallel()
	s := newSite(t, "root", vm.Options{})
	before := s.inventory()
	s.install()
	const uninstall = "uninstall --yes --delete-data"
	steps := appliance.UninstallSteps()
	for i, step := range steps {
		how := func() { s.signal(unix.SIGKILL) }
		if i == len(steps)-1 {
			how = s.Cut
		}
		s.while(uninstall, step, how)
		if i == len(steps)-1 {
			s.On()
		}
	}
	if r := s.quayctl(uninstall); r.Code != 0 && r.Code != exitNotInstalled {
		t.Errorf("uninstall after interruptions exited %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	s.wantSame(before, "uninstall after interruptions")
}
