package pgtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Server is a PostgreSQL of its own in a temporary directory, reached over a Unix socket by anybody on this
// machine, without a password. It is made for speed: nothing it writes would survive a crash.
type Server struct {
	// DSN connects as the superuser postgres to the database postgres.
	DSN string

	dir  string
	cmd  *exec.Cmd
	done chan error // the one answer of cmd.Wait
	stop sync.Once
	err  error
}

// Start makes a database cluster and starts a server on it; it returns once the server takes connections.
// As root, the server runs as the user postgres, or nobody where there is none. The server dies with this
// process, however that ends; only Stop removes its directory.
func Start(ctx context.Context) (_ *Server, err error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	cred, err := credential()
	if err != nil {
		return nil, err
	}
	// Not os.TempDir's whole depth: the path of a socket must fit into 107 bytes.
	dir, err := os.MkdirTemp("", "quaypg")
	if err != nil {
		return nil, fmt.Errorf("make directory for PostgreSQL: %w", err)
	}
	s := &Server{dir: dir, done: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // other users' tests reach the socket through it
		return nil, err
	}
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	if err := initdb(ctx, bin, dir, data, cred); err != nil {
		return nil, err
	}
	if err := s.start(ctx, bin, data, cred); err != nil {
		return nil, err
	}
	s.DSN = "postgresql://postgres@/postgres?host=" + dir
	return s, nil
}

func initdb(ctx context.Context, bin, dir, data string, cred *syscall.Credential) error {
	//nolint:gosec // a program of the PostgreSQL found on this machine
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *Server) start(ctx context.Context, bin, data string, cred *syscall.Credential) error {
	// The server lives until Stop, not until the context of its start ends.
	//nolint:gosec // a program of the PostgreSQL found on this machine
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(bin, "postgres"), "-D", data, "-k", s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "wal_level=minimal",
		"-c", "max_wal_senders=0", "-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "timezone=UTC",
		"-c", "unix_socket_permissions=0777", "-c", "logging_collector=off", "-c", "log_statement=none")
	cmd.Dir = s.dir
	// A group of its own, so that a Ctrl-C meant for the tests does not reach the server before they end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	log, logWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stderr = logWriter

	started := make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the thread that started the child ends, so that thread is kept for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			s.done <- cmd.Wait()
		}
	}()
	err = <-started
	closeErr := logWriter.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start PostgreSQL: %w", err), closeErr, log.Close())
	}
	s.cmd = cmd

	ready := make(chan error, 1)
	go func() {
		defer func() { _ = log.Close() }() // read to its end: nothing can be lost
		ready <- awaitReady(log)
		_, _ = io.Copy(io.Discard, log) // the server's later messages, so that it never waits for a reader
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return errors.Join(err, s.halt())
	}
	return nil
}

// awaitReady reads the server's log up to the line that says it takes connections.
func awaitReady(log io.Reader) error {
	var seen []string
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "database system is ready to accept connections") {
			return nil
		}
		seen = append(seen, lines.Text())
	}
	return fmt.Errorf("start PostgreSQL: it ended: %s", strings.Join(seen, "; "))
}

// Stop ends the server and removes its directory. It may be called more than once.
func (s *Server) Stop() error {
	s.stop.Do(func() { s.err = errors.Join(s.halt(), os.RemoveAll(s.dir)) })
	return s.err
}

func (s *Server) halt() error {
	// Immediate shutdown: there is nothing to save.
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	var err error
	select {
	case err = <-s.done:
	case <-time.After(20 * time.Second):
		err = errors.Join(s.cmd.Process.Kill(), <-s.done)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	return nil
}

// binaries finds the directory that holds initdb and postgres: on PATH, or where Debian and Red Hat put them.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && hasServer(filepath.Dir(path)) {
			return filepath.Dir(path), nil
		}
	}
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib64/pgsql/bin"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		found = append(found, dirs...)
	}
	found = slices.DeleteFunc(found, func(dir string) bool { return !hasServer(dir) })
	if len(found) == 0 {
		return "", fmt.Errorf("no PostgreSQL server found on PATH or below /usr/lib/postgresql; install it (apt-get install postgresql), " +
			"or name a running one in " + ServerEnv)
	}
	return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// version is the number in a directory name such as /usr/lib/postgresql/15/bin or /usr/pgsql-16/bin, 0 without one.
func version(bin string) int {
	name := filepath.Base(filepath.Dir(bin))
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// credential is the user the server runs as when this process is root, which PostgreSQL refuses to run as.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uerr, gerr); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody to run it as")
}

// Serve starts a server, writes its DSN and a newline to out, and stops it when in ends or ctx does. It is the whole of
// the command pgtest/serve, and of the process that stands beside a test binary and outlives its worst end.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	s, err := Start(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, s.DSN); err != nil {
		return errors.Join(err, s.Stop())
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // whatever ends it, it has ended
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	case err := <-s.done:
		s.done <- err
		return errors.Join(fmt.Errorf("PostgreSQL ended by itself: %w", err), s.Stop())
	}
	return s.Stop()
}
