//go:build machine

package vm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/appliance"
	vm "github.com/quayctl/quayctl/test/vm"
)

// dataDir is where the site's data lies by default.
func (s *site) dataDir() string {
	if s.User == "root" {
		return "/var/lib/quay"
	}
	return s.Home + "/.local/share/quay"
}

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
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 4096)
	for {
		for p := journal; ; p = filepath.Dir(p) {
			if _, err := unix.InotifyAddWatch(fd, p, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY|unix.IN_DELETE_SELF); err == nil {
				break
			} else if p == root {
				return err
			}
		}
		if begun(journal, step) {
			return nil
		}
		if _, err := f.Read(buf); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

func begun(journal, step string) bool {
	f, err := os.Open(journal)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e struct {
			Step  string `json:"step"`
			Event string `json:"event"`
		}
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Step == step && e.Event == "begin" {
			return true
		}
	}
	return false
}

// interruptAt runs install in the background until step has begun, then calls how.
func (s *site) interruptAt(step string, how func()) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	done := make(chan vm.Result, 1)
	go func() { done <- s.ExecContext(ctx, s.User, "cd ~/appliance && exec ./quayctl "+s.installArgs(), nil) }()
	if err := s.awaitStep(ctx, step); err != nil {
		select {
		case r := <-done:
			s.t.Fatalf("install ended before step %s: exit %d\n%s%s", step, r.Code, r.Stdout, r.Stderr)
		default:
			s.t.Fatalf("wait for step %s: %v", step, err)
		}
	}
	how()
	cancel()
	<-done
}

// finish runs install again after an interruption and proves that it ends the same.
func (s *site) finish() {
	s.t.Helper()
	in := s.install()
	s.wantHealthy()
	tag, img := s.push(in, "after")
	s.wantPull(in, tag, img)
	// One installation, not two halves: the CA that clients were told to trust is the one that signed what the edge shows.
	s.secretsStaySecret(in)
}

// TestPowerCut cuts the power at every journal step of install, on one machine after the other; install run again ends healthy.
func TestPowerCut(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		for _, step := range appliance.InstallSteps() {
			t.Run(step, func(t *testing.T) {
				s := newSite(t, user, vm.Options{})
				s.interruptAt(step, s.Cut)
				s.On()
				s.finish()
			})
		}
	})
}

// TestInterrupt sends SIGINT and SIGKILL at every journal step; install run again ends healthy, and Ctrl-C has its own exit code.
func TestInterrupt(t *testing.T) {
	for _, sig := range []string{"INT", "KILL"} {
		t.Run(sig, func(t *testing.T) {
			s := newSite(t, "root", vm.Options{})
			for _, step := range appliance.InstallSteps() {
				// The journal of a finished installation would name the step at once.
				s.Exec("root", "cd ~/appliance && ./quayctl uninstall --yes --delete-data; rm -rf /etc/quay /var/lib/quay", nil)
				s.interruptAt(step, func() { s.Run(fmt.Sprintf("pkill -%s -x quayctl || true", sig)) })
				s.finish()
			}
		})
	}
}
