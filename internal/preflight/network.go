package preflight

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func checkPrivilegedPort(_ context.Context, h *Host, t *Target) finding {
	if t.Port < 1 || t.Port > 65535 {
		return bad(strconv.Itoa(t.Port), "1 to 65535", fmt.Sprintf("%d is no port", t.Port), "give another with --port")
	}
	if !h.rootless() {
		return skip("runs as root")
	}
	const sysctl = "net.ipv4.ip_unprivileged_port_start"
	first := 1024
	if text, err := h.read("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
			first = n
		}
	}
	measured, needed := fmt.Sprintf("%s = %d", sysctl, first), fmt.Sprintf("at most %d", t.Port)
	if t.Port < first {
		return bad(measured, needed, fmt.Sprintf("%s may not listen on port %d: ports below %d are for root", h.User, t.Port, first),
			fmt.Sprintf("use --port=%d or higher, or: echo %s=%d | sudo tee /etc/sysctl.d/50-quay.conf && sudo sysctl --system", max(first, 8443), sysctl, t.Port))
	}
	return good(measured, needed)
}

// listener is a listening TCP socket in /proc/net/tcp or tcp6.
type listener struct {
	uid   int
	inode string
}

// stateListen is TCP_LISTEN in the "st" column of proc_net_tcp.
const stateListen = "0A"

func listeners(h *Host, port int) ([]listener, error) {
	var found []listener
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := h.read(file)
		if notExist(err) { // IPv6 may be off
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		// Columns: sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != stateListen {
				continue
			}
			_, hexPort, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(hexPort, 16, 16)
			if err != nil || int(n) != port {
				continue
			}
			uid, err := strconv.Atoi(f[7])
			if err != nil {
				return nil, fmt.Errorf("read %s: uid %q", file, f[7])
			}
			found = append(found, listener{uid, f[9]})
		}
	}
	return found, nil
}

// process is one that holds a socket.
type process struct {
	pid  int
	comm string
	// ours tells whether it serves an installation: the edge in its container with Podman around it, or systemd for it.
	ours bool
}

// holders gives the processes that have one of the sockets open. Those of other users are visible to root alone.
func holders(h *Host, sockets []listener) []process {
	want := map[string]bool{}
	for _, s := range sockets {
		want["socket:["+s.inode+"]"] = true
	}
	// The pattern is a constant and valid; directories that cannot be read have no matches.
	fds, _ := filepath.Glob(filepath.Join(h.Root, "/proc/[0-9]*/fd/*"))
	var found []process
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil || !want[to] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join(dir, "comm")) // it may have ended meanwhile
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		p := process{pid: pid, comm: orUnknown(strings.TrimSpace(string(comm)))}
		p.ours = p.comm == "systemd" || strings.Contains(string(cgroup), "/quay-edge-")
		if !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b process) int { return a.pid - b.pid })
	return found
}

// checkPort finds who listens on the port. A socket of the existing installation is held by systemd, which
// passes it on to the edge.
func checkPort(_ context.Context, h *Host, t *Target) finding {
	needed := fmt.Sprintf("nobody listens on %d/tcp", t.Port)
	found, err := listeners(h, t.Port)
	if err != nil {
		return bad("unknown", needed, err.Error(), "")
	}
	if len(found) == 0 {
		return good("free", needed)
	}
	who := holders(h, found)
	if t.OwnPort == t.Port && !slices.ContainsFunc(who, func(p process) bool { return !p.ours }) {
		return good("served by this installation", needed)
	}
	var names []string
	for _, p := range who {
		names = append(names, fmt.Sprintf("%s (process %d)", p.comm, p.pid))
	}
	holder := strings.Join(names, ", ")
	if holder == "" {
		name := strconv.Itoa(found[0].uid)
		if u, err := user.LookupId(name); err == nil && h.Root == "/" {
			name = u.Username
		}
		holder = "a process of user " + name
	}
	return bad("held by "+holder, needed, fmt.Sprintf("port %d is taken by %s", t.Port, holder),
		"stop it, or give another port with --port")
}

func checkHostname(ctx context.Context, h *Host, t *Target) finding {
	const needed = "a name that resolves, or an address"
	if _, err := netip.ParseAddr(t.Hostname); err == nil {
		return good("an address", needed)
	}
	addrs, err := h.Resolve(ctx, t.Hostname)
	if err != nil || len(addrs) == 0 {
		if err == nil {
			err = fmt.Errorf("no address")
		}
		return bad("no address", needed, fmt.Sprintf("%s does not resolve: %v", t.Hostname, err),
			fmt.Sprintf("add it to DNS, or here and on every client: echo '%s %s' | sudo tee -a /etc/hosts; or give another with --hostname", firstGlobal(h), t.Hostname))
	}
	return good(join(addrs), needed)
}

func checkHostnameLocal(ctx context.Context, h *Host, t *Target) finding {
	const needed = "an address of this machine"
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(t.Hostname); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = h.Resolve(ctx, t.Hostname); err != nil {
		return bad("no address", needed, err.Error(), "")
	}
	local, err := h.LocalAddrs()
	if err != nil {
		return bad("unknown", needed, fmt.Sprintf("this machine's addresses cannot be listed: %v", err), "")
	}
	loopback := true
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if a.IsLoopback() {
			continue
		}
		loopback = false
		if slices.Contains(local, a) {
			return good(a.String(), needed)
		}
	}
	if loopback {
		return good(join(addrs)+" (this machine only)", needed)
	}
	return bad(join(addrs), needed, fmt.Sprintf("%s is not an address of this machine: clients are sent elsewhere, unless a load balancer is there", t.Hostname),
		"correct DNS or /etc/hosts, if no load balancer stands in front")
}

func firstGlobal(h *Host) string {
	if addrs, err := h.LocalAddrs(); err == nil {
		for _, a := range addrs {
			if a.IsGlobalUnicast() && a.Is4() {
				return a.String()
			}
		}
	}
	return "127.0.0.1"
}

func join(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.Unmap().String())
	}
	return strings.Join(s, ", ")
}
