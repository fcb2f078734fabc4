package preflight

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"golang.org/x/sys/unix"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// machine is a fabricated host on which, as it is, every check passes, for root and for user 1000.
type machine struct {
	t *testing.T
	*Host
	programs map[string]string // what they print; a program that is absent is not installed
	failing  map[string]bool   // command lines that exit non-zero
	disks    map[string]Filesystem
	env      map[string]string
	deaf     map[string]bool // sockets that do not answer
	target   Target
}

func newMachine(t *testing.T, uid int) *machine {
	t.Helper()
	m := &machine{
		t: t, programs: map[string]string{
			"podman --version": "podman version 5.4.2\n", "newuidmap": "", "newgidmap": "", "loginctl": "",
		},
		failing: map[string]bool{}, disks: map[string]Filesystem{}, env: map[string]string{}, deaf: map[string]bool{},
	}
	root := t.TempDir()
	user, home := "root", "/root"
	if uid != 0 {
		user, home = "alice", "/home/alice"
		m.env["XDG_RUNTIME_DIR"] = "/run/user/" + strconv.Itoa(uid)
	}
	m.Host = &Host{
		Root: root, UID: uid, User: user, Home: home, Arch: "amd64", Clock: clock.NewFake(now),
		Getenv: func(k string) string { return m.env[k] },
		LookPath: func(name string) (string, error) {
			for line := range m.programs {
				if program, _, _ := strings.Cut(line, " "); program == name {
					return "/usr/bin/" + name, nil
				}
			}
			return "", fmt.Errorf("%s: not found", name)
		},
		Exec: func(_ context.Context, name string, args ...string) ([]byte, error) {
			line := strings.Join(append([]string{name}, args...), " ")
			out, ok := m.programs[line]
			if !ok || m.failing[line] {
				return []byte(out), errors.New("exit status 1")
			}
			return []byte(out), nil
		},
		Dial: func(_ context.Context, path string) error {
			rel, _ := strings.CutPrefix(path, root)
			if m.deaf[rel] {
				return errors.New("connection refused")
			}
			return nil
		},
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			switch name {
			case "quay.example.com":
				return []netip.Addr{netip.MustParseAddr("192.0.2.10")}, nil
			case "balancer.example.com":
				return []netip.Addr{netip.MustParseAddr("198.51.100.1")}, nil
			}
			return nil, errors.New("no such host")
		},
		LocalAddrs: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.10")}, nil
		},
		Filesystem: func(path string) (Filesystem, error) {
			rel, _ := strings.CutPrefix(path, root)
			best, found := Filesystem{ID: 1, Free: 100 << 30, Files: 1e6, FilesFree: 1e6, TypeNumber: unix.EXT4_SUPER_MAGIC}, ""
			for mount, f := range m.disks {
				if (rel == mount || strings.HasPrefix(rel, mount+"/")) && len(mount) > len(found) {
					best, found = f, mount
				}
			}
			return best, nil
		},
		Writable: func(path string) error { return nil },
	}
	for _, dir := range []string{"/run/systemd/system", "/run/systemd/users", "/var/tmp", home} {
		m.mkdir(dir)
	}
	m.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory")
	m.write("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable:   4000000 kB\n")
	m.write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n")
	m.write("/proc/net/tcp", tcpHead)
	m.write("/proc/1/comm", "systemd\n")
	m.write("/etc/os-release", "ID=debian\n")
	m.write("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service", "")
	m.write("/etc/subuid", "alice:100000:65536\n")
	m.write("/etc/subgid", "alice:100000:65536\n")
	for _, g := range []string{"system-generators/podman-system-generator", "user-generators/podman-user-generator"} {
		m.write("/usr/lib/systemd/"+g, "")
		if err := os.Chmod(m.path("/usr/lib/systemd/"+g), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.target = Target{
		Hostname: "quay.example.com", Port: 8443, DataDir: home + "/quay-data", BundleArch: "amd64",
		Built: now.Add(-24 * time.Hour), Space: SpaceFor([]int64{20 * mib, 5 * mib}, []int64{80 * mib, 20 * mib}),
	}
	return m
}

const tcpHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func (m *machine) mkdir(dir string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Join(m.Root, dir), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	m.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(m.Root, name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(name string) {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.Root, name)); err != nil {
		m.t.Fatal(err)
	}
}

// listen makes process pid, named comm, listen on the port; family is tcp or tcp6.
func (m *machine) listen(family string, port, uid, inode, pid int, comm string) {
	m.t.Helper()
	addr := "00000000"
	if family == "tcp6" {
		addr = strings.Repeat("0", 32)
	}
	m.write("/proc/net/"+family, tcpHead+fmt.Sprintf("   0: %s:%04X %s:0000 0A 00000000:00000000 00:00000000 00000000 %5d        0 %d 1 0000000000000000 100 0 0 10 0\n", addr, port, addr, uid, inode))
	if pid == 0 {
		return
	}
	m.write(fmt.Sprintf("/proc/%d/comm", pid), comm+"\n")
	m.mkdir(fmt.Sprintf("/proc/%d/fd", pid))
	if err := os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(m.Root, fmt.Sprintf("/proc/%d/fd/3", pid))); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) run(waive ...string) *Report {
	m.t.Helper()
	r, err := Run(m.t.Context(), m.Host, m.target, waive)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func TestAGoodMachineHasNoFindings(t *testing.T) {
	for _, uid := range []int{0, 1000} {
		for _, purpose := range []Purpose{Install, Upgrade, Doctor} {
			m := newMachine(t, uid)
			m.target.Purpose = purpose
			if r := m.run(); !r.OK() || len(r.Warnings()) > 0 || len(r.Results) != len(Names()) {
				var b bytes.Buffer
				_ = r.Write(&b, Style{}, true)
				t.Errorf("uid %d, purpose %d:\n%s", uid, purpose, b.String())
			}
		}
	}
}

// pair makes a certificate and its key, signed by parent or by itself.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPair(t *testing.T, parent *pair, ca bool, name string, from, to time.Time) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		IsCA: ca, BasicConstraintsValid: true,
	}
	if ca {
		tmpl.KeyUsage = x509.KeyUsageCertSign
	} else if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	signer := &pair{tmpl, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{cert, key}
}

func (p *pair) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func (p *pair) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (m *machine) certificate(key *pair, chain ...*pair) {
	m.target.CertificateFile, m.target.KeyFile = "/root/t.crt", "/root/t.key"
	m.target.Certificate, m.target.Key = nil, key.keyPEM(m.t)
	for _, c := range chain {
		m.target.Certificate = append(m.target.Certificate, c.certPEM()...)
	}
}

func TestFindings(t *testing.T) {
	year := 365 * 24 * time.Hour
	for _, c := range []struct {
		name   string // of the check, with what is special after a slash
		uid    int
		spoil  func(m *machine)
		status Status
		say    []string // in measured, needed, cause or remedy
	}{
		{"architecture", 0, func(m *machine) { m.target.BundleArch = "arm64" }, Failed, []string{"arm64", "amd64", "linux-amd64.tar"}},
		{"architecture/no bundle", 0, func(m *machine) { m.target.BundleArch = "" }, Skipped, nil},
		{"systemd/none", 0, func(m *machine) { m.remove("/run/systemd/system"); m.write("/proc/1/comm", "sh\n") }, Failed, []string{"init is sh"}},
		{"systemd/no bus", 0, func(m *machine) { m.deaf["/run/dbus/system_bus_socket"] = true }, Failed, []string{"system_bus_socket", "connection refused", "dbus.socket"}},
		{"systemd/no session", 1000, func(m *machine) { delete(m.env, "XDG_RUNTIME_DIR") }, Failed, []string{"XDG_RUNTIME_DIR", "enable-linger alice", "/run/user/1000"}},
		{"systemd/no user bus", 1000, func(m *machine) { m.deaf["/run/user/1000/bus"] = true }, Failed, []string{"/run/user/1000/bus"}},
		{"cgroup-v2", 0, func(m *machine) { m.remove("/sys/fs/cgroup/cgroup.controllers") }, Failed, []string{"v1", "unified_cgroup_hierarchy"}},
		{"podman", 0, func(m *machine) { delete(m.programs, "podman --version") }, Failed, []string{"Podman is not installed", "sudo apt-get install podman", "4.9"}},
		{"podman/Fedora", 0, func(m *machine) {
			delete(m.programs, "podman --version")
			m.write("/etc/os-release", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n")
		}, Failed, []string{"sudo dnf install podman"}},
		{"podman/SUSE", 0, func(m *machine) {
			delete(m.programs, "podman --version")
			m.remove("/etc/os-release")
			m.write("/usr/lib/os-release", "ID=sles\n")
		}, Failed, []string{"sudo zypper install podman"}},
		{"podman/unknown distribution", 0, func(m *machine) { delete(m.programs, "podman --version"); m.remove("/etc/os-release") }, Failed, []string{"install the package podman"}},
		{"podman-version/bookworm", 0, func(m *machine) { m.programs["podman --version"] = "podman version 4.3.1" }, Failed, []string{"4.3.1", "4.9 or newer"}},
		{"podman-version/just enough", 0, func(m *machine) { m.programs["podman --version"] = "podman version 4.9.4-rhel" }, OK, []string{"4.9.4"}},
		{"podman-version/4.10 is newer than 4.9", 0, func(m *machine) { m.programs["podman --version"] = "podman version 4.10.0-dev" }, OK, nil},
		{"podman-version/told by the bundle", 0, func(m *machine) { m.target.MinPodman = "6.0" }, Failed, []string{"6.0 or newer", "5.4.2"}},
		{"podman-version/fails", 0, func(m *machine) { m.failing["podman --version"] = true }, Failed, []string{"failed"}},
		{"podman-version/mute", 0, func(m *machine) { m.programs["podman --version"] = "hello" }, Failed, []string{"hello", "names no version"}},
		{"podman-version/no Podman", 0, func(m *machine) { delete(m.programs, "podman --version") }, Skipped, []string{"needs podman"}},
		{"quadlet", 0, func(m *machine) { m.remove("/usr/lib/systemd/system-generators") }, Failed, []string{"quadlet generator", "podman-system-generator"}},
		{"quadlet/rootless", 1000, func(m *machine) { m.remove("/usr/lib/systemd/user-generators") }, Failed, []string{"podman-user-generator"}},
		{"quadlet/dangling link", 0, func(m *machine) {
			m.remove("/usr/lib/systemd/system-generators/podman-system-generator")
			if err := os.Symlink("/usr/libexec/podman/quadlet", filepath.Join(m.Root, "/usr/lib/systemd/system-generators/podman-system-generator")); err != nil {
				m.t.Fatal(err)
			}
		}, Failed, []string{"quadlet generator"}},
		{"subordinate-ids/none", 1000, func(m *machine) { m.write("/etc/subuid", "bob:100000:65536\n"); m.remove("/etc/subgid") }, Failed,
			[]string{"0 in /etc/subuid, 0 in /etc/subgid", "65536 ids", "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 alice"}},
		{"subordinate-ids/too few", 1000, func(m *machine) { m.write("/etc/subgid", "alice:100000:1000\nnonsense\na:b:c\n") }, Failed, []string{"1000 in /etc/subgid"}},
		{"subordinate-ids/by number, in pieces", 1000, func(m *machine) { m.write("/etc/subuid", "1000:100000:32768\n1000:300000:32768\n") }, OK, []string{"65536 in /etc/subuid"}},
		{"subordinate-ids/directory service", 1000, func(m *machine) {
			m.remove("/etc/subuid")
			m.write("/etc/nsswitch.conf", "passwd: files sss\nsubid: sss\n")
		}, OK, []string{"given by sss"}},
		{"subordinate-ids/root", 0, func(m *machine) { m.remove("/etc/subuid") }, Skipped, nil},
		{"id-map-tools", 1000, func(m *machine) { delete(m.programs, "newgidmap") }, Failed, []string{"no newgidmap", "apt-get install uidmap"}},
		{"id-map-tools/Fedora", 1000, func(m *machine) { delete(m.programs, "newuidmap"); m.write("/etc/os-release", "ID=fedora") }, Failed, []string{"dnf install shadow-utils"}},
		{"id-map-tools/SUSE", 1000, func(m *machine) { delete(m.programs, "newuidmap"); m.write("/etc/os-release", "ID=sles") }, Failed, []string{"zypper install shadow"}},
		{"linger/on", 1000, func(m *machine) { m.write("/var/lib/systemd/linger/alice", ""); m.remove("/run/systemd/users") }, OK, []string{"on"}},
		{"linger/impossible", 1000, func(m *machine) { m.remove("/run/systemd/users") }, Failed, []string{"logs out", "loginctl enable-linger alice"}},
		{"linger/no polkit", 1000, func(m *machine) { m.remove("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service") }, Failed, []string{"without polkit", "sudo loginctl enable-linger alice"}},
		{"existing-installation", 0, func(m *machine) { m.target.Installed = "/var/lib/quay/state.json" }, Failed, []string{"state.json", "quayctl uninstall"}},
		{"existing-installation/upgrade", 0, func(m *machine) { m.target.Installed, m.target.Purpose = "/var/lib/quay/state.json", Upgrade }, Skipped, nil},
		{"other-registry", 0, func(m *machine) { m.write("/etc/systemd/system/quay-app.service", "") }, Warning, []string{"mirror-registry", "/etc/systemd/system/quay-app.service"}},
		{"other-registry/rootless", 1000, func(m *machine) { m.write("/home/alice/.config/systemd/user/quay-redis.service", "") }, Warning, []string{"quay-redis.service"}},
		{"data-directory/relative", 0, func(m *machine) { m.target.DataDir = "data" }, Failed, []string{"absolute", "--data-dir"}},
		{"data-directory/not ours to make", 1000, func(m *machine) {
			m.Writable = func(string) error { return unix.EACCES }
			m.target.DataDir = "/srv/quay"
		}, Failed, []string{"/srv/quay cannot be made in /", "permission denied", "install -d -o alice"}},
		{"data-directory/file", 0, func(m *machine) { m.write("/root/quay-data", "") }, Failed, []string{"is a file"}},
		{"data-directory/another's", 1234567, func(m *machine) { m.target.DataDir = "/etc" }, Failed, []string{"belongs to another user", "chown alice /etc"}},
		{"data-filesystem/NFS", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 2, TypeNumber: unix.NFS_SUPER_MAGIC} }, Failed, []string{"NFS", "local"}},
		{"data-filesystem/SMB", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 2, TypeNumber: unix.CIFS_SUPER_MAGIC} }, Failed, []string{"SMB"}},
		{"data-filesystem/FAT", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 2, TypeNumber: unix.MSDOS_SUPER_MAGIC} }, Failed, []string{"FAT"}},
		{"data-filesystem/read-only", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 2, ReadOnly: true} }, Failed, []string{"read-only"}},
		{"data-durable", 0, func(m *machine) {
			m.disks["/root"] = Filesystem{ID: 2, Free: 1 << 40, TypeNumber: unix.TMPFS_MAGIC}
		}, Warning, []string{"next boot"}},
		{"graph-root/noexec", 0, func(m *machine) { m.disks["/var"] = Filesystem{ID: 2, NoExec: true} }, Failed, []string{"noexec", "/var/lib/containers/storage", "remount,exec"}},
		{"graph-root/read-only", 0, func(m *machine) { m.disks["/var"] = Filesystem{ID: 2, ReadOnly: true} }, Failed, []string{"read-only"}},
		{"graph-root/NFS home", 1000, func(m *machine) { m.disks["/home"] = Filesystem{ID: 2, TypeNumber: unix.NFS_SUPER_MAGIC} }, Failed, []string{"network file system", "graphroot"}},
		{"graph-root/bad storage.conf", 0, func(m *machine) { m.write("/etc/containers/storage.conf", "[storage") }, Failed, []string{"/etc/containers/storage.conf"}},
		{"disk-space/one disk for all", 0, func(m *machine) {
			m.disks["/"] = Filesystem{ID: 1, Free: 300 * mib}
			m.disks["/root"] = m.disks["/"]
			m.disks["/var"] = m.disks["/"]
		}, Failed,
			[]string{"300 MiB free, need 408 MiB", "data directory /root/quay-data and Podman's storage", "/var/tmp"}},
		{"disk-space/small data disk", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 7, Free: 40 * mib} }, Failed, []string{"data directory /root/quay-data: 40 MiB free, need 256 MiB", "--data-dir"}},
		{"disk-space/small /var/tmp", 0, func(m *machine) { m.disks["/var/tmp"] = Filesystem{ID: 7, Free: 39 * mib} }, Failed, []string{"temporary files in /var/tmp: 39 MiB free, need 40 MiB"}},
		{"disk-space/TMPDIR of the shell", 0, func(m *machine) {
			m.disks["/small"] = Filesystem{ID: 7, Free: 39 * mib}
			m.mkdir("/small")
			m.env["TMPDIR"] = "/small"
		}, OK, nil},
		{"inodes", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 7, Free: 1 << 40, Files: 5000, FilesFree: 100} }, Failed, []string{"100 free inodes", "4096"}},
		{"inodes/no limit", 0, func(m *machine) { m.disks["/root"] = Filesystem{ID: 7, Free: 1 << 40} }, OK, []string{"no limit at /root"}},
		{"memory", 0, func(m *machine) { m.write("/proc/meminfo", "MemAvailable: 102400 kB\n") }, Warning, []string{"100 MiB available", "256 MiB"}},
		{"memory/unknown", 0, func(m *machine) { m.write("/proc/meminfo", "MemTotal: 1 kB\n") }, Warning, []string{"MemAvailable"}},
		{"port-privileged", 1000, func(m *machine) { m.target.Port = 443 }, Failed, []string{"ip_unprivileged_port_start = 1024", "port 443", "--port=8443", "net.ipv4.ip_unprivileged_port_start=443"}},
		{"port-privileged/allowed", 1000, func(m *machine) {
			m.target.Port = 443
			m.write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "443\n")
		}, OK, nil},
		{"port-privileged/root", 0, func(m *machine) { m.target.Port = 443 }, Skipped, nil},
		{"port-privileged/no port", 0, func(m *machine) { m.target.Port = 70000 }, Failed, []string{"70000 is no port"}},
		{"port-free", 0, func(m *machine) { m.listen("tcp", 8443, 0, 4711, 42, "nginx") }, Failed, []string{"port 8443 is taken by nginx (process 42)", "--port"}},
		{"port-free/IPv6", 0, func(m *machine) { m.listen("tcp6", 8443, 0, 4711, 42, "caddy") }, Failed, []string{"caddy (process 42)"}},
		{"port-free/unseen holder", 1000, func(m *machine) { m.listen("tcp", 8443, 65533, 4711, 0, "") }, Failed, []string{"a process of user 65533"}},
		{"port-free/another port", 0, func(m *machine) { m.listen("tcp", 8444, 0, 4711, 42, "nginx") }, OK, []string{"free"}},
		{"port-free/ours", 0, func(m *machine) { m.listen("tcp6", 8443, 0, 4711, 1, "systemd"); m.target.OwnPort = 8443 }, OK, []string{"this installation"}},
		{"port-free/ours, in its container", 0, func(m *machine) {
			m.listen("tcp6", 8443, 0, 4711, 42, "conmon")
			m.write("/proc/42/cgroup", "0::/system.slice/quay-edge-b.service/libpod-payload-1\n")
			m.target.OwnPort = 8443
		}, OK, []string{"this installation"}},
		{"port-free/ours, held by another", 0, func(m *machine) { m.listen("tcp", 8443, 0, 4711, 42, "nginx"); m.target.OwnPort = 8443 }, Failed, []string{"nginx"}},
		{"port-free/systemd, not ours", 0, func(m *machine) { m.listen("tcp", 8443, 0, 4711, 1, "systemd") }, Failed, []string{"systemd (process 1)"}},
		{"hostname-resolves", 0, func(m *machine) { m.target.Hostname = "nowhere.invalid" }, Failed, []string{"nowhere.invalid does not resolve", "192.0.2.10 nowhere.invalid", "/etc/hosts"}},
		{"hostname-resolves/address", 0, func(m *machine) { m.target.Hostname = "192.0.2.10" }, OK, nil},
		{"hostname-local/balancer", 0, func(m *machine) { m.target.Hostname = "balancer.example.com" }, Warning, []string{"198.51.100.1", "load balancer"}},
		{"hostname-local/foreign address", 0, func(m *machine) { m.target.Hostname = "198.51.100.1" }, Warning, []string{"198.51.100.1"}},
		{"hostname-local/loopback", 0, func(m *machine) { m.target.Hostname = "127.0.1.1" }, OK, []string{"this machine only"}},
		{"clock", 0, func(m *machine) { m.target.Built = now.Add(time.Hour) }, Failed, []string{"the clock is wrong", "timedatectl"}},
		{"certificate/none in it", 0, func(m *machine) {
			m.certificate(newPair(m.t, nil, false, "quay.example.com", now, now.Add(year)))
		}, Failed, []string{"/root/t.crt", "no PEM certificate"}},
		{"certificate/damaged", 0, func(m *machine) {
			m.certificate(newPair(m.t, nil, false, "quay.example.com", now, now.Add(year)))
			m.target.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
		}, Failed, []string{"/root/t.crt"}},
		{"certificate-key", 0, func(m *machine) {
			one, other := newPair(m.t, nil, false, "quay.example.com", now, now.Add(year)), newPair(m.t, nil, false, "quay.example.com", now, now.Add(year))
			m.certificate(one, other)
		}, Failed, []string{"do not match", "/root/t.crt", "/root/t.key"}},
		{"certificate-chain/wrong order", 0, func(m *machine) {
			ca := newPair(m.t, nil, true, "CA", now, now.Add(year))
			leaf := newPair(m.t, ca, false, "quay.example.com", now, now.Add(year))
			m.certificate(leaf, ca, leaf)
		}, Failed, []string{"begins with the CA", "own certificate first"}},
		{"certificate-chain/unrelated", 0, func(m *machine) {
			leaf := newPair(m.t, nil, false, "quay.example.com", now, now.Add(year))
			m.certificate(leaf, leaf, newPair(m.t, nil, true, "Other CA", now, now.Add(year)))
		}, Failed, []string{"is not signed by CN=Other CA"}},
		{"certificate-chain/good", 0, func(m *machine) {
			ca := newPair(m.t, nil, true, "CA", now, now.Add(year))
			leaf := newPair(m.t, ca, false, "quay.example.com", now, now.Add(year))
			m.certificate(leaf, leaf, ca)
		}, OK, []string{"2 in order"}},
		{"certificate-validity/expired", 0, func(m *machine) {
			c := newPair(m.t, nil, false, "quay.example.com", now.Add(-year), now.Add(-time.Hour))
			m.certificate(c, c)
		}, Failed, []string{"expired on 2026-05-04 11:00 UTC", "renewed"}},
		{"certificate-validity/not yet", 0, func(m *machine) {
			c := newPair(m.t, nil, false, "quay.example.com", now.Add(time.Hour), now.Add(year))
			m.certificate(c, c)
		}, Failed, []string{"not valid before 2026-05-04 13:00 UTC", "clock"}},
		{"certificate-expires-soon", 0, func(m *machine) {
			c := newPair(m.t, nil, false, "quay.example.com", now, now.Add(10*24*time.Hour))
			m.certificate(c, c)
		}, Warning, []string{"10 days left", "2026-05-14"}},
		{"certificate-hostname", 0, func(m *machine) {
			c := newPair(m.t, nil, false, "other.example.com", now, now.Add(year))
			m.certificate(c, c)
		}, Failed, []string{"does not cover quay.example.com", "other.example.com"}},
		{"certificate-hostname/address", 0, func(m *machine) {
			c := newPair(m.t, nil, false, "192.0.2.10", now, now.Add(year))
			m.certificate(c, c)
			m.target.Hostname = "192.0.2.10"
		}, OK, nil},
		{"selinux/no policy", 0, func(m *machine) { m.write("/sys/fs/selinux/enforce", "1") }, Failed, []string{"enforcing", "container-selinux"}},
		{"selinux/policy", 0, func(m *machine) {
			m.write("/sys/fs/selinux/enforce", "1")
			m.write("/etc/selinux/targeted/contexts/files/file_contexts", "/var/lib/containers(/.*)? system_u:object_r:container_file_t:s0\n")
		}, OK, []string{"enforcing, container policy present"}},
		{"selinux/permissive", 0, func(m *machine) { m.write("/sys/fs/selinux/enforce", "0") }, OK, []string{"permissive"}},
		{"selinux/none", 0, func(m *machine) {}, Skipped, nil},
		{"firewalld/closed", 0, func(m *machine) {
			m.programs["firewall-cmd --state"] = "running\n"
			m.programs["firewall-cmd --query-port=8443/tcp"] = "no\n"
			m.failing["firewall-cmd --query-port=8443/tcp"] = true
		}, Warning, []string{"sudo firewall-cmd --permanent --add-port=8443/tcp && sudo firewall-cmd --reload"}},
		{"firewalld/open", 0, func(m *machine) {
			m.programs["firewall-cmd --state"] = "running\n"
			m.programs["firewall-cmd --query-port=8443/tcp"] = "yes\n"
		}, OK, nil},
		{"firewalld/open range", 0, func(m *machine) {
			m.programs["firewall-cmd --state"] = "running\n"
			m.programs["firewall-cmd --query-port=8443/tcp"] = "no\n"
			m.failing["firewall-cmd --query-port=8443/tcp"] = true
			m.programs["firewall-cmd --list-ports"] = "53/udp 8000-8442/tcp 8443-8444/udp 1025-65535/tcp\n"
		}, OK, nil},
		{"firewalld/silent", 1000, func(m *machine) {
			m.programs["firewall-cmd --state"] = "running\n"
			m.programs["firewall-cmd --query-port=8443/tcp"] = "Authorization failed.\n"
			m.failing["firewall-cmd --query-port=8443/tcp"] = true
		}, Skipped, nil},
		{"firewalld/https service", 0, func(m *machine) {
			m.programs["firewall-cmd --state"] = "running\n"
			m.programs["firewall-cmd --query-port=443/tcp"] = "no\n"
			m.programs["firewall-cmd --query-service=https"] = "yes\n"
			m.target.Port = 443
		}, OK, []string{"service=https"}},
		{"firewalld/stopped", 0, func(m *machine) { m.programs["firewall-cmd --state"] = "not running\n" }, Skipped, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, c.uid)
			c.spoil(m)
			check, _, _ := strings.Cut(c.name, "/")
			res, ok := m.run().Result(check)
			if !ok {
				t.Fatalf("there is no check %q", check)
			}
			if res.Status != c.status {
				t.Errorf("status %s, want %s: %+v", res.Status, c.status, res)
			}
			if (res.Status == Failed || res.Status == Warning) && (res.Cause == "" || res.Measured == "" || res.Needed == "") {
				t.Errorf("a finding without cause, measured or needed: %+v", res)
			}
			if res.Status == Failed && res.Remedy == "" {
				t.Errorf("no remedy: %+v", res)
			}
			text := strings.Join([]string{res.Measured, res.Needed, res.Cause, res.Remedy}, "\n")
			for _, want := range c.say {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
		})
	}
}

func TestDataDirectoryThatOthersMayWriteTo(t *testing.T) {
	for mode, want := range map[os.FileMode]string{0o777: "others may write", 0o777 | os.ModeSticky: "shared directory", 0o700: ""} {
		m := newMachine(t, os.Getuid())
		m.target.DataDir = "/srv/data"
		m.mkdir("/srv/data")
		if err := os.Chmod(filepath.Join(m.Root, "/srv/data"), mode); err != nil {
			t.Fatal(err)
		}
		res, _ := m.run().Result("data-directory")
		if want == "" && res.Status != OK || !strings.Contains(res.Cause, want) {
			t.Errorf("mode %v: %+v", mode, res)
		}
	}
}

func TestGraphRoot(t *testing.T) {
	for _, c := range []struct {
		name  string
		uid   int
		files map[string]string
		env   map[string]string
		want  string
	}{
		{"root", 0, nil, nil, "/var/lib/containers/storage"},
		{"root, storage.conf", 0, map[string]string{"/etc/containers/storage.conf": "[storage]\ngraphroot = \"/big/disk\"\n"}, nil, "/big/disk"},
		{"root, vendor's file", 0, map[string]string{"/usr/share/containers/storage.conf": "[storage]\ngraphroot = \"/vendor\"\n"}, nil, "/vendor"},
		{"root, file without it", 0, map[string]string{"/etc/containers/storage.conf": "[storage]\ndriver = \"overlay\"\n"}, nil, "/var/lib/containers/storage"},
		{"root, variable", 0, map[string]string{"/x.conf": "[storage]\ngraphroot = \"/x\"\n"}, map[string]string{"CONTAINERS_STORAGE_CONF": "/x.conf"}, "/x"},
		{"user", 1000, nil, nil, "/home/alice/.local/share/containers/storage"},
		{"user, XDG", 1000, nil, map[string]string{"XDG_DATA_HOME": "/data/alice"}, "/data/alice/containers/storage"},
		{"user, the system's graphroot is not the user's", 1000, map[string]string{"/etc/containers/storage.conf": "[storage]\ngraphroot = \"/var/lib/containers/storage\"\n"}, nil, "/home/alice/.local/share/containers/storage"},
		{"user, rootless path", 1000, map[string]string{"/etc/containers/storage.conf": "[storage]\nrootless_storage_path = \"/fast/$USER/$UID\"\n"}, nil, "/fast/alice/1000"},
		{"user, own file", 1000, map[string]string{"/home/alice/.config/containers/storage.conf": "[storage]\ngraphroot = \"/mine\"\n"}, nil, "/mine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, c.uid)
			for name, text := range c.files {
				m.write(name, text)
			}
			for k, v := range c.env {
				m.env[k] = v
			}
			if got, err := m.GraphRoot(); err != nil || got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestWaive(t *testing.T) {
	m := newMachine(t, 0)
	m.target.Hostname = "nowhere.invalid"
	m.write("/proc/meminfo", "MemAvailable: 1 kB\n")
	if m.run().OK() {
		t.Error("the machine is fine without waiving")
	}
	r := m.run("hostname-resolves", "memory")
	if !r.OK() || len(r.Warnings()) != 0 {
		t.Errorf("findings although waived: %+v", r.Results)
	}
	if res, _ := r.Result("hostname-resolves"); res.Status != Waived || res.Cause == "" {
		t.Errorf("a waived finding is still told: %+v", res)
	}
	if _, err := Run(t.Context(), m.Host, m.target, []string{"hostname"}); err == nil || !strings.Contains(err.Error(), "hostname-resolves") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	m := newMachine(t, 0)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopped")
	cancel(cause)
	if _, err := Run(ctx, m.Host, m.target, nil); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestReport(t *testing.T) {
	r := &Report{Results: []Result{
		{Name: "a", Class: Block, Status: OK, Measured: "fine", Needed: "fine"},
		{Name: "b", Class: Block, Status: Failed, Measured: "1", Needed: "2", Cause: "too little", Remedy: "do this\nor that"},
		{Name: "c", Class: Warn, Status: Warning, Measured: "x", Needed: "y", Cause: "odd"},
		{Name: "d", Class: Warn, Status: Skipped, Measured: "not here"},
	}}
	var short, long bytes.Buffer
	if err := errors.Join(r.Write(&short, Style{}, false), r.Write(&long, Style{Name: strings.ToUpper}, true)); err != nil {
		t.Fatal(err)
	}
	const findings = `fail  b: too little
      found:  1
      needed: 2
      remedy: do this
              or that
warn  c: odd
      found:  x
      needed: y
`
	if short.String() != findings {
		t.Errorf("got\n%s\nwant\n%s", short.String(), findings)
	}
	if !strings.Contains(long.String(), "ok  A: fine\n") || !strings.Contains(long.String(), "skipped  D: not here\n") {
		t.Errorf("%s", long.String())
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OK     bool
		Checks []map[string]string
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.OK || len(doc.Checks) != 4 || doc.Checks[1]["remedy"] != "do this\nor that" {
		t.Errorf("%s, %v", b, err)
	}
	if b, err := json.Marshal(&Report{}); err != nil || string(b) != `{"ok":true,"checks":[]}` {
		t.Errorf("%s, %v", b, err)
	}
}

// TestThisMachine runs every check against the real machine: what it finds is its own affair, but nothing may panic, and
// a port that this test itself holds must be found and this process be named.
func TestThisMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := NewHost(os.Geteuid(), os.Getenv, clock.Real{})
	r, err := Run(t.Context(), h, Target{
		Hostname: "localhost", Port: l.Addr().(*net.TCPAddr).Port, DataDir: t.TempDir(), BundleArch: h.Arch, Built: now.Add(-10 * 365 * 24 * time.Hour),
		Space: Space{Data: 1, Graph: 1 << 60, Inodes: 1},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"port-free": fmt.Sprintf("process %d", os.Getpid()), "disk-space": "free, need 1073741824.0 GiB",
	} {
		if res, _ := r.Result(name); res.Status != Failed || !strings.Contains(res.Cause, want) {
			t.Errorf("%s: %+v, want %q", name, res, want)
		}
	}
	for _, name := range []string{"architecture", "hostname-resolves", "memory", "clock", "inodes"} {
		if res, _ := r.Result(name); res.Status == Failed {
			t.Errorf("%+v", res)
		}
	}
}

func TestParseHosts(t *testing.T) {
	got := parseHosts("192.0.2.10      STREAM vm.example.com\n192.0.2.10      DGRAM\nfe80::1%eth0    STREAM\n\nnonsense\n")
	want := []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("fe80::1%eth0")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
