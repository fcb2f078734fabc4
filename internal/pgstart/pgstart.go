// Package pgstart is the entrypoint of the appliance's PostgreSQL image: it makes the database cluster when there is
// none, and becomes the server.
//
// A cluster is either complete or not there: it is made under another name, written to the disk, and then renamed. So a
// power cut at any moment leaves nothing that a later start would take for a cluster.
package pgstart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options says where things are in the image. New fills in what the image has.
type Options struct {
	Programs string   // directory of PostgreSQL's versions, each with bin/
	Data     string   // directory of clusters, one per major version, mounted from the host
	Config   string   // directory of postgresql.conf, pg_hba.conf and pg_ident.conf
	Sockets  string   // directory that the server makes its socket in, mounted from the host
	Args     []string // further arguments of the server
	Env      []string // of the server
	Log      *slog.Logger
}

// New gives the options of the image.
func New(args, env []string, log *slog.Logger) Options {
	return Options{
		Programs: "/usr/lib/postgresql", Data: "/var/lib/postgresql", Config: "/etc/postgresql", Sockets: "/run/quay/pg",
		Args: args, Env: env, Log: log,
	}
}

// bootstrap is what a new cluster gets. The role owns its database and nothing else; pg_trgm and the like are
// trusted extensions, which an owner may create. The database's number is given because a server that runs alone takes the
// next one of those that are kept for PostgreSQL's own objects.
const bootstrap = `CREATE ROLE quay LOGIN;

CREATE DATABASE quay OWNER quay OID 16384;

`

// Run makes the cluster if there is none and replaces this process by the server. It returns only with an error; a
// cancelled ctx stops the making of the cluster, not the server.
func Run(ctx context.Context, o Options) error {
	major, err := installedMajor(o.Programs)
	if err != nil {
		return err
	}
	if err := checkSockets(o.Sockets); err != nil {
		return err
	}
	lock, err := lockData(o.Data)
	if err != nil {
		return err
	}
	cluster := filepath.Join(o.Data, major)
	bin := filepath.Join(o.Programs, major, "bin")
	exists, err := checkCluster(o.Data, major)
	if err != nil {
		return err
	}
	if !exists {
		start := time.Now()
		if err := create(ctx, o, bin, cluster); err != nil {
			return err
		}
		o.Log.Info("database cluster made", "path", cluster, "took", time.Since(start).Round(time.Millisecond))
	}
	// The server and its children inherit the lock, so it is held for as long as any of them lives.
	if _, err := unix.FcntlInt(lock.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep lock of %s: %w", o.Data, err)
	}
	argv := append(o.serverArgs("postgres", cluster), o.Args...)
	if err := syscall.Exec(filepath.Join(bin, "postgres"), argv, o.Env); err != nil {
		return fmt.Errorf("run the server: %w", err)
	}
	return nil
}

func (o *Options) serverArgs(first, cluster string) []string {
	args := []string{first, "-D", cluster}
	for _, file := range [][2]string{{"config_file", "postgresql.conf"}, {"hba_file", "pg_hba.conf"}, {"ident_file", "pg_ident.conf"}} {
		args = append(args, "-c", file[0]+"="+filepath.Join(o.Config, file[1]))
	}
	return args
}

// installedMajor gives the major version of the one PostgreSQL there is.
func installedMajor(programs string) (string, error) {
	found, err := filepath.Glob(filepath.Join(programs, "*", "bin", "postgres"))
	if err != nil {
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("look for PostgreSQL: %d versions in %s, expected one", len(found), programs)
	}
	return filepath.Base(filepath.Dir(filepath.Dir(found[0]))), nil
}

func checkSockets(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("socket directory %s: %w: it must exist and belong to user %d", dir, err, os.Geteuid())
	}
	return nil
}

// lockData makes sure that no other server works on these files: PostgreSQL's own lock goes by process number, and in
// containers every server is process 1.
func lockData(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w: the directory must exist and belong to user %d", dir, err, os.Geteuid())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: another server works on these files: stop it first", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// checkCluster tells whether there is a cluster of this major version. One of another version alone is an error:
// an empty cluster beside it would hide the data.
func checkCluster(data, major string) (bool, error) {
	entries, err := os.ReadDir(data)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", data, err)
	}
	var others []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), newSuffix) {
			continue
		}
		version, err := os.ReadFile(filepath.Join(data, e.Name(), "PG_VERSION"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read version of %s: %w", filepath.Join(data, e.Name()), err)
		}
		v := strings.TrimSpace(string(version))
		switch {
		case e.Name() == major && v == major:
			return true, nil
		case e.Name() == major:
			return false, fmt.Errorf("database cluster %s is of PostgreSQL %s, this is %s: restore the directory, or a backup", filepath.Join(data, major), v, major)
		}
		others = append(others, fmt.Sprintf("%s (PostgreSQL %s)", filepath.Join(data, e.Name()), v))
	}
	if _, err := os.Lstat(filepath.Join(data, major)); err == nil {
		return false, fmt.Errorf("database cluster %s has no PG_VERSION, so it is damaged: restore it from a backup, or move it away to begin anew", filepath.Join(data, major))
	}
	if len(others) > 0 {
		return false, fmt.Errorf("there is %s, but this is PostgreSQL %s: upgrade with quayctl, or install the release that wrote it",
			strings.Join(others, ", "), major)
	}
	return false, nil
}

const newSuffix = ".new"

// create makes the cluster. Nothing is synced on the way; all of it at once before the rename.
func create(ctx context.Context, o Options, bin, cluster string) error {
	making := cluster + newSuffix
	if err := os.RemoveAll(making); err != nil {
		return fmt.Errorf("remove unfinished cluster: %w", err)
	}
	err := o.command(ctx, "", filepath.Join(bin, "initdb"), "--pgdata="+making, "--username=postgres", "--encoding=UTF8",
		"--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums",
		"--auth-local=peer", "--auth-host=reject", "--no-sync", "--no-instructions")
	if err != nil {
		return fmt.Errorf("make database cluster: %w", err)
	}
	args := append(o.serverArgs("--single", making), "-j", "-F", "-c", "exit_on_error=true", "-c", "log_checkpoints=off", "postgres")
	if err := o.command(ctx, bootstrap, filepath.Join(bin, "postgres"), args...); err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	dir, err := os.Open(filepath.Dir(cluster))
	if err != nil {
		return fmt.Errorf("make database cluster: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("write database cluster to disk: %w", err)
	}
	if err := os.Rename(making, cluster); err != nil {
		return fmt.Errorf("make database cluster: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("write database cluster to disk: %w", err)
	}
	return nil
}

// command runs a program of PostgreSQL to its end.
func (o *Options) command(ctx context.Context, stdin, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	for _, e := range o.Env {
		// Only the server itself may say that it is ready.
		if !strings.HasPrefix(e, "NOTIFY_SOCKET=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	// initdb takes its own children along.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(out.String()))
	}
	return nil
}
