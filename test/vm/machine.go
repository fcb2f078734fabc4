// Package vm boots real systemd + Podman machines for tests: systemd is PID 1, Podman is Debian's, a disk forgets on a
// power cut what was not flushed to it. The machines are made by the scripts in machine/, which say what they can and cannot do.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// scripts is the directory of the machine scripts, found beside this file.
func scripts() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "machine")
}

// Script runs one of the machine scripts with a deadline and returns its output.
func script(ctx context.Context, env []string, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(scripts(), name), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// Machine is one machine. It is removed when the test that booted it ends, unless VM_KEEP is set and the test failed.
type Machine struct {
	// Name is the machine's name, its host name, and the prefix of its domain name NAME.test.
	Name string
	// IP is its address on the bridge that all machines and this host share.
	IP  string
	t   testing.TB
	env []string
}

// Options say how a machine differs from the usual one.
type Options struct {
	// Suite is the Debian release: trixie (the default) or bookworm, whose Podman has no quadlets.
	Suite string
	// Disk is the size of the machine's disk, such as 400M; 16G when empty.
	Disk string
	// From copies the disk of this machine, which must be off.
	From *Machine
}

var serial atomic.Int64

// Boot starts a new machine and waits until systemd is up.
func Boot(t testing.TB, o Options) *Machine {
	t.Helper()
	ctx := deadline(t)
	suite := o.Suite
	if suite == "" {
		suite = "trixie"
	}
	base, err := script(ctx, nil, nil, "build-rootfs", suite)
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{
		Name: fmt.Sprintf("t%d-%d", os.Getpid(), serial.Add(1)),
		t:    t,
		env:  []string{"VM_BASE=" + strings.TrimSpace(base)},
	}
	if o.Disk != "" {
		m.env = append(m.env, "VM_DISK="+o.Disk)
	}
	if o.From != nil {
		m.env = append(m.env, "VM_FROM="+o.From.Name)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("VM_KEEP") != "" {
			t.Logf("machine %s is kept; remove it with %s", m.Name, filepath.Join(scripts(), "power")+" "+m.Name+" rm")
			return
		}
		if _, err := script(context.Background(), m.env, nil, "power", m.Name, "rm"); err != nil {
			t.Errorf("remove machine: %v", err)
		}
	})
	m.On()
	return m
}

// For is the machine as a test within the one that booted it uses it: what fails, fails there.
func (m *Machine) For(t testing.TB) *Machine {
	c := *m
	c.t = t
	return &c
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (m *Machine) power(verb string) string {
	m.t.Helper()
	out, err := script(deadline(m.t), m.env, nil, "power", m.Name, verb)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// On starts the machine and waits until its boot queue is done.
func (m *Machine) On() { m.t.Helper(); m.IP = m.power("on") }

// Off shuts the machine down cleanly.
func (m *Machine) Off() { m.t.Helper(); m.power("off") }

// Cut is a power cut: what was not flushed to the disk is gone.
func (m *Machine) Cut() { m.t.Helper(); m.power("cut") }

// Reboot restarts the machine cleanly and waits until it is up again.
func (m *Machine) Reboot() { m.t.Helper(); m.power("reboot") }

// Result is how a command in a machine ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Exec runs a shell command as user ("root" or another) and returns how it ended. Only a command that could not be started fails the test.
func (m *Machine) Exec(user, command string, stdin io.Reader) Result {
	m.t.Helper()
	return m.ExecContext(deadline(m.t), user, command, stdin)
}

// ExecContext is Exec bounded by ctx. When ctx ends only the waiting does: the command is a unit of the machine and goes on.
func (m *Machine) ExecContext(ctx context.Context, user, command string, stdin io.Reader) Result {
	m.t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(scripts(), "enter"), m.Name+":"+user, command)
	cmd.Env = append(os.Environ(), m.env...)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("enter %s: %v", m.Name, err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// Run runs a shell command as root and fails the test unless it exits 0.
func (m *Machine) Run(command string) string { m.t.Helper(); return m.RunAs("root", command) }

// RunAs runs a shell command as user and fails the test unless it exits 0.
func (m *Machine) RunAs(user, command string) string {
	m.t.Helper()
	r := m.Exec(user, command, nil)
	if r.Code != 0 {
		m.t.Fatalf("%s: %q exited %d\n%s%s", m.Name, command, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// AddUser makes an ordinary user with a home, without linger.
func (m *Machine) AddUser(name string) {
	m.t.Helper()
	// A session needs the user's manager; useradd syncs /etc/passwd but not the home.
	m.Run("useradd -m -s /bin/bash " + name + " && sync")
}

// Put copies a file of this host into the machine, owned by user.
func (m *Machine) Put(user, local, remote string, mode os.FileMode) {
	m.t.Helper()
	f, err := os.Open(local)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	r := m.Exec(user, fmt.Sprintf("mkdir -p $(dirname %[1]s) && cat >%[1]s && chmod %[2]o %[1]s", remote, mode), f)
	if r.Code != 0 {
		m.t.Fatalf("put %s: %s", remote, r.Stderr)
	}
}

// Path is a path inside the machine as this host sees it, while the machine is on.
func (m *Machine) Path(inside string) string {
	m.t.Helper()
	return filepath.Join("/proc", strconv.Itoa(m.initPID()), "root", inside)
}

func (m *Machine) initPID() int {
	m.t.Helper()
	out, err := script(deadline(m.t), m.env, nil, "init-pid", m.Name)
	if err != nil {
		m.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		m.t.Fatalf("machine %s is off", m.Name)
	}
	return pid
}

// Disk mounts a small disk of its own on path until the machine goes off.
func (m *Machine) Disk(path, size string) {
	m.t.Helper()
	if _, err := script(deadline(m.t), m.env, nil, "disk", m.Name, path, size); err != nil {
		m.t.Fatal(err)
	}
}

// Undisk takes the disk on path away again.
func (m *Machine) Undisk(path string) {
	m.t.Helper()
	if _, err := script(deadline(m.t), m.env, nil, "disk", m.Name, path); err != nil {
		m.t.Fatal(err)
	}
}

// Fill fills the file system that holds path up to leave bytes.
func (m *Machine) Fill(path string, leave int64) {
	m.t.Helper()
	if _, err := script(deadline(m.t), m.env, nil, "disk", m.Name, path, "fill", strconv.FormatInt(leave, 10)); err != nil {
		m.t.Fatal(err)
	}
}

// Network plugs the machine's only cable in or out; out, nothing but loopback is left.
func (m *Machine) Network(in bool) {
	m.t.Helper()
	state := "down"
	if in {
		state = "up"
	}
	m.Run("ip link set eth0 " + state)
	if in {
		m.Run("ip route replace default via $(ip -4 -o addr show eth0 | sed -E 's/.*inet ([0-9]+\\.[0-9]+\\.[0-9]+)\\..*/\\1/').1")
	}
}
