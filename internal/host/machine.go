package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/appliance"
	"github.com/quayctl/quayctl/internal/quadlet"
)

// Machine is the machine for one user. It implements appliance.Host.
type Machine struct {
	Rootless bool
	UID      int
}

// Own sets owners and modes.
func (m *Machine) Own(ctx context.Context, all []appliance.Ownership) error {
	if !m.Rootless {
		for _, o := range all {
			if err := errors.Join(os.Lchown(o.Path, o.ID, o.ID), os.Chmod(o.Path, o.Mode)); err != nil {
				return fmt.Errorf("set owner of %s: %w", o.Path, err)
			}
		}
		return nil
	}
	args := []string{"sh", "-ec", `while [ $# -gt 0 ]; do chown -h "$1:$1" "$3"; chmod "$2" "$3"; shift 3; done`, "own"}
	for _, o := range all {
		args = append(args, strconv.Itoa(o.ID), octal(o.Mode), o.Path)
	}
	return m.unshare(ctx, "set owners", args...)
}

// Copy puts copies of files in place.
func (m *Machine) Copy(ctx context.Context, all []appliance.CopyFile) error {
	if !m.Rootless {
		for _, c := range all {
			if err := copyFile(c); err != nil {
				return fmt.Errorf("copy %s to %s: %w", c.From, c.Path, err)
			}
		}
		return nil
	}
	const script = `while [ $# -gt 0 ]; do
  install -o "$1" -g "$1" -m "$2" -- "$3" "$4.new"; sync -- "$4.new"; mv -f -- "$4.new" "$4"; sync -- "$(dirname -- "$4")"; shift 4
done`
	args := []string{"sh", "-ec", script, "copy"}
	for _, c := range all {
		args = append(args, strconv.Itoa(c.ID), octal(c.Mode), c.From, c.Path)
	}
	return m.unshare(ctx, "copy files", args...)
}

// octal is the mode as chmod takes it.
func octal(mode fs.FileMode) string {
	n := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		n |= unix.S_ISVTX
	}
	return fmt.Sprintf("%04o", n)
}

func copyFile(c appliance.CopyFile) error {
	b, err := os.ReadFile(c.From)
	if err != nil {
		return err
	}
	t, err := renameio.NewPendingFile(c.Path, renameio.WithStaticPermissions(c.Mode))
	if err != nil {
		return err
	}
	defer func() { _ = t.Cleanup() }()
	if _, err := t.Write(b); err != nil {
		return err
	}
	if err := t.Chown(c.ID, c.ID); err != nil {
		return err
	}
	if err := t.CloseAtomicallyReplace(); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(c.Path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// unshare runs a program in the user namespace of the user's containers, where the numbers of their users mean what they mean there.
func (m *Machine) unshare(ctx context.Context, what string, args ...string) error {
	cmd := exec.CommandContext(ctx, "podman", append([]string{"unshare", "--"}, args...)...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w: %s", what, err, bytes.TrimSpace(out))
	}
	return nil
}

// Remove deletes trees.
func (m *Machine) Remove(ctx context.Context, paths ...string) error {
	var left []string
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			if !m.Rootless {
				return fmt.Errorf("remove: %w", err)
			}
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return m.unshare(ctx, "remove", append([]string{"rm", "-rf", "--"}, left...)...)
}

// Sync syncs the file system of path.
func (m *Machine) Sync(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync file system of %s: %w", path, err)
	}
	return nil
}

// Label gives directories the type that containers may use, where SELinux is enabled.
func (m *Machine) Label(ctx context.Context, paths ...string) error {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return nil
	}
	args := append([]string{"--recursive", "--type=container_file_t", "--"}, paths...)
	if m.Rootless {
		// They belong to users of the containers already: here only their owner may do that.
		return m.unshare(ctx, "label directories for SELinux", append([]string{"chcon"}, args...)...)
	}
	if out, err := exec.CommandContext(ctx, "chcon", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("label directories for SELinux: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Lingering asks whether the user's units run without a session.
func (m *Machine) Lingering(context.Context) (bool, error) {
	if !m.Rootless {
		return true, nil
	}
	u, err := user.LookupId(strconv.Itoa(m.UID))
	if err != nil {
		return false, fmt.Errorf("look up user: %w", err)
	}
	_, err = os.Stat(filepath.Join("/var/lib/systemd/linger", u.Username))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// SetLinger changes that.
func (m *Machine) SetLinger(ctx context.Context, on bool) error {
	verb := "disable-linger"
	if on {
		verb = "enable-linger"
	}
	u, err := user.LookupId(strconv.Itoa(m.UID))
	if err != nil {
		return fmt.Errorf("look up user: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "loginctl", "--no-ask-password", verb, u.Username).CombinedOutput(); err != nil {
		return fmt.Errorf("loginctl %s: %w: %s; have root run `loginctl %s %s`", verb, err, bytes.TrimSpace(out), verb, u.Username)
	}
	return nil
}

// Names are the machine's host name, localhost, and the addresses of its interfaces.
func (m *Machine) Names() []string {
	var names []string
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	names = append(names, "localhost", "127.0.0.1", "::1")
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			names = append(names, n.IP.String())
		}
	}
	return names
}

var generators = []string{
	"/usr/lib/systemd/system-generators/podman-system-generator",
	"/usr/libexec/podman/quadlet",
	"/usr/lib/podman/quadlet",
}

// ValidateUnits has Podman's generator and systemd-analyze judge units.
func (m *Machine) ValidateUnits(ctx context.Context, dir string, units []*quadlet.Unit) error {
	i := slices.IndexFunc(generators, func(p string) bool { _, err := os.Stat(p); return err == nil })
	if i < 0 {
		return fmt.Errorf("validate units: Podman's generator is at none of %s; install a Podman with quadlets (4.9 or newer)", strings.Join(generators, ", "))
	}
	services, err := quadlet.Generate(ctx, generators[i], dir, m.Rootless)
	if err != nil {
		return err
	}
	for _, u := range units {
		if !u.IsQuadlet() {
			services = append(services, u)
		}
	}
	return quadlet.Verify(ctx, filepath.Join(filepath.Dir(dir), "verify"), services, m.Rootless)
}

// readyz is the answer of a daemon's /readyz.
type readyz struct {
	Status string `json:"status"`
	Checks map[string]struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	} `json:"checks"`
}

// Health asks a daemon once. The error says what is not well.
func Health(ctx context.Context, socket string) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op
		}
		return fmt.Errorf("it does not answer: %w", err)
	}
	defer resp.Body.Close()
	var r readyz
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return fmt.Errorf("it answers %s, not in the expected form: %w", resp.Status, err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var bad []string
	for name, c := range r.Checks {
		if !c.OK {
			bad = append(bad, name+": "+c.Error)
		}
	}
	slices.Sort(bad)
	return fmt.Errorf("it is %s: %s", r.Status, strings.Join(bad, "; "))
}

// pollEvery is the pause between two questions while waiting; what is waited for is another process.
const pollEvery = 20 * time.Millisecond

// Ready asks until the daemon is ready or ctx ends.
func (m *Machine) Ready(ctx context.Context, socket string) error {
	for {
		err := Health(ctx, socket)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return fmt.Errorf("not ready in time: %w", err)
			}
			return context.Cause(ctx)
		}
	}
}
