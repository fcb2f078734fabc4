package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// Addr is where a daemon listens or is reached: unix:PATH, tcp:HOST:PORT, or, only to listen,
// systemd (every inherited socket) and systemd:NAME (those with that FileDescriptorName).
type Addr struct {
	// Network is unix, tcp or systemd.
	Network string
	// Address is a path, HOST:PORT, or the name of an inherited socket ("" is any).
	Address string
}

// ParseAddr reads the notation of the command line.
func ParseAddr(s string) (Addr, error) {
	network, address, found := strings.Cut(s, ":")
	switch {
	case network == "systemd":
		return Addr{network, address}, nil
	case network == "unix" && address != "":
		return Addr{network, address}, nil
	case network == "tcp" && found:
		if _, _, err := net.SplitHostPort(address); err != nil {
			return Addr{}, fmt.Errorf("address %q: %w; write tcp:HOST:PORT", s, err)
		}
		return Addr{network, address}, nil
	}
	return Addr{}, fmt.Errorf("address %q is neither unix:PATH nor tcp:HOST:PORT nor systemd", s)
}

// String is the notation of the command line.
func (a Addr) String() string {
	if a.Network == "systemd" && a.Address == "" {
		return "systemd"
	}
	return a.Network + ":" + a.Address
}

// Dial connects to the address.
func (a Addr) Dial(ctx context.Context) (net.Conn, error) {
	if a.Network == "systemd" {
		return nil, errors.New("systemd is an address to listen on, it cannot be dialled")
	}
	var d net.Dialer
	return d.DialContext(ctx, a.Network, a.Address)
}

// inherited holds the sockets that systemd passed, until a listener takes them.
type inherited struct{ files []*os.File }

// takeInherited reads LISTEN_FDS once and removes it from the environment, so that no child believes it.
func takeInherited() *inherited { return &inherited{files: activation.Files(true)} }

// take returns the listeners made from the sockets called name, or from all of them when name is empty.
func (in *inherited) take(name string) ([]net.Listener, error) {
	var taken []net.Listener
	var rest []*os.File
	for _, f := range in.files {
		if name != "" && f.Name() != name {
			rest = append(rest, f)
			continue
		}
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("use inherited socket %s: %w", f.Name(), err)
		}
		if err := f.Close(); err != nil { // FileListener made its own copy
			return nil, fmt.Errorf("close inherited socket %s: %w", f.Name(), err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path belongs to systemd
		}
		taken = append(taken, l)
	}
	in.files = rest
	if len(taken) == 0 {
		if name != "" {
			return nil, fmt.Errorf("no inherited socket is called %q: set FileDescriptorName=%s in the socket unit", name, name)
		}
		return nil, errors.New("no socket was inherited: start the daemon through its socket unit (LISTEN_FDS, LISTEN_PID) or give --listen unix:PATH or tcp:HOST:PORT")
	}
	return taken, nil
}

// close lets go of the sockets that nothing took.
func (in *inherited) close() {
	for _, f := range in.files {
		f.Close()
	}
	in.files = nil
}

// listen opens one address.
func (a Addr) listen(ctx context.Context, in *inherited) ([]net.Listener, error) {
	switch a.Network {
	case "systemd":
		return in.take(a.Address)
	case "unix":
		l, err := listenUnix(ctx, a.Address)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	default:
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, a.Network, a.Address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", a, err)
		}
		return []net.Listener{l}, nil
	}
}

// unixListener is a socket file of our own making.
type unixListener struct {
	*net.UnixListener
	path string
	made os.FileInfo
}

// listenUnix makes the socket under another name and renames it, so that whoever finds the path finds a
// socket that accepts and that everyone may write to (ARCHITECTURE.md: the directory guards it). A stale
// file is replaced; a path behind which somebody answers is refused.
func listenUnix(ctx context.Context, path string) (*unixListener, error) {
	if c, err := (Addr{"unix", path}).Dial(ctx); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on unix:%s: another process answers there; stop it first", path)
	}
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	made, err := func() (os.FileInfo, error) {
		if err := os.Chmod(temp, 0o666); err != nil {
			return nil, err
		}
		if err := os.Rename(temp, path); err != nil {
			return nil, err
		}
		return os.Lstat(path)
	}()
	if err != nil {
		l.Close()
		os.Remove(temp)
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	return &unixListener{UnixListener: l, path: path, made: made}, nil
}

// Addr names the path that clients use.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// unlink removes the socket file unless another process has put its own in its place.
func (l *unixListener) unlink() error {
	now, err := os.Lstat(l.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(now, l.made) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(l.path)
}
