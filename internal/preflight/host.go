package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"golang.org/x/sys/unix"
)

// Host is the machine as the checks see it. Tests fabricate a tree below Root and replace what asks a living system.
type Host struct {
	Root   string // prefix of every file that is looked at; "/" for the machine itself
	UID    int
	User   string // name of UID; its number when it has none
	Home   string
	Getenv func(string) string
	Arch   string // GOARCH
	Clock  clock.Clock

	// LookPath finds a program, as exec.LookPath.
	LookPath func(name string) (string, error)
	// Exec runs a program and gives what it wrote to standard output and error together.
	Exec func(ctx context.Context, name string, args ...string) ([]byte, error)
	// Dial reaches a Unix socket, whose path is already below Root.
	Dial func(ctx context.Context, path string) error
	// Resolve gives the addresses of a host name.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// LocalAddrs gives the addresses of this machine's interfaces.
	LocalAddrs func() ([]netip.Addr, error)
	// Filesystem measures the file system that holds path, which exists and is already below Root.
	Filesystem func(path string) (Filesystem, error)
	// Writable tells whether this user may create files in the directory path, already below Root.
	Writable func(path string) error
}

// Filesystem is a measurement of one file system.
type Filesystem struct {
	ID         uint64 // the same for all paths on it
	Free       int64  // bytes that this user can use
	Files      int64  // inodes it can hold, 0 when it has no limit
	FilesFree  int64
	ReadOnly   bool
	NoExec     bool
	TypeNumber int64 // f_type of statfs(2)
}

// NewHost returns the machine this process runs on, as seen by the user uid.
func NewHost(uid int, getenv func(string) string, c clock.Clock) *Host {
	h := &Host{
		Root: "/", UID: uid, User: strconv.Itoa(uid), Home: getenv("HOME"), Getenv: getenv, Arch: runtime.GOARCH, Clock: c,
		LookPath: exec.LookPath,
		Exec: func(ctx context.Context, name string, args ...string) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // the checks name the programs
		},
		Dial: func(ctx context.Context, path string) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil {
				return err
			}
			return conn.Close()
		},
		Resolve:    resolve,
		LocalAddrs: localAddrs,
		Filesystem: statFilesystem,
		Writable:   func(path string) error { return unix.Access(path, unix.W_OK|unix.X_OK) },
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		h.User = u.Username
		if h.Home == "" {
			h.Home = u.HomeDir
		}
	}
	return h
}

// resolve asks hosts and DNS, and when they know nothing the C library, as nearly every client does: its sources
// (nss-myhostname, nss-resolve, sssd) answer for the machine's own name where no file and no DNS server does, and Go's do not.
func resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err == nil || strings.HasPrefix(name, "-") {
		return addrs, err
	}
	out, execErr := exec.CommandContext(ctx, "getent", "ahosts", name).Output() //nolint:gosec // a host name is its argument, no option
	if execErr != nil {
		return nil, err
	}
	if found := parseHosts(string(out)); len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// parseHosts reads what `getent ahosts` writes: an address, blanks, a socket type, and a name, each address once per type.
func parseHosts(text string) []netip.Addr {
	var all []netip.Addr
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			if a, err := netip.ParseAddr(f[0]); err == nil && !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

func localAddrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

func statFilesystem(path string) (Filesystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Filesystem{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	var info unix.Stat_t
	if err := unix.Stat(path, &info); err != nil {
		return Filesystem{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return Filesystem{
		ID: info.Dev, Free: int64(st.Bavail) * st.Bsize, Files: int64(st.Files), FilesFree: int64(st.Ffree),
		ReadOnly: st.Flags&unix.ST_RDONLY != 0, NoExec: st.Flags&unix.ST_NOEXEC != 0, TypeNumber: st.Type,
	}, nil
}

func (h *Host) rootless() bool { return h.UID != 0 }

// path is name below Root, with symbolic links followed within Root; a missing name stays as it is.
func (h *Host) path(name string) string {
	if h.Root == "/" {
		return name
	}
	for range 20 {
		p := filepath.Join(h.Root, name)
		to, err := os.Readlink(p)
		if err != nil {
			return p
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(name), to)
		}
		name = to
	}
	return filepath.Join(h.Root, name)
}

func (h *Host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

func (h *Host) read(name string) (string, error) {
	b, err := os.ReadFile(h.path(name))
	return string(b), err
}

// nearest is the deepest existing directory at or above name.
func (h *Host) nearest(name string) string {
	for name != "/" && name != "." {
		if info, err := os.Stat(h.path(name)); err == nil && info.IsDir() {
			return name
		}
		name = filepath.Dir(name)
	}
	return "/"
}

// xdg is the directory the variable names, or else the fallback below the home directory.
func (h *Host) xdg(variable, fallback string) string {
	if v := h.Getenv(variable); filepath.IsAbs(v) {
		return v
	}
	return filepath.Join(h.Home, fallback)
}

// installCommand is how this distribution installs a package.
func (h *Host) installCommand(pkg string) string {
	release, err := h.read("/etc/os-release")
	if err != nil {
		release, _ = h.read("/usr/lib/os-release") // without it the answer is in words
	}
	var ids []string
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	for _, id := range ids {
		switch id {
		case "debian", "ubuntu":
			return "sudo apt-get install " + pkg
		case "rhel", "fedora", "centos":
			return "sudo dnf install " + pkg
		case "suse", "opensuse", "sles":
			return "sudo zypper install " + pkg
		}
	}
	return "install the package " + pkg
}

// owner gives the user that owns the existing file name.
func (h *Host) owner(name string) (uid int, mode fs.FileMode, err error) {
	info, err := os.Stat(h.path(name))
	if err != nil {
		return 0, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("stat %s: no owner", name)
	}
	return int(st.Uid), info.Mode(), nil
}

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
