package preflight

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func checkArchitecture(_ context.Context, h *Host, t *Target) finding {
	if t.BundleArch == "" {
		return skip("no bundle")
	}
	if t.BundleArch != h.Arch {
		return bad(h.Arch, t.BundleArch, fmt.Sprintf("the bundle is for %s, this machine is %s", t.BundleArch, h.Arch),
			fmt.Sprintf("use the bundle whose name ends in linux-%s.tar", h.Arch))
	}
	return good(h.Arch, t.BundleArch)
}

// checkSystemd: sd_booted(3) looks for /run/systemd/system; the managers listen on <runtime dir>/systemd/private,
// and clients reach them over the D-Bus socket.
func checkSystemd(ctx context.Context, h *Host, _ *Target) finding {
	const needed = "systemd as init, reachable over D-Bus"
	if !h.exists("/run/systemd/system") {
		comm, _ := h.read("/proc/1/comm")
		return bad("init is "+orUnknown(strings.TrimSpace(comm)), needed, "this machine was not booted with systemd",
			"use a machine or a container that runs systemd as process 1")
	}
	if !h.rootless() {
		const bus = "/run/dbus/system_bus_socket"
		if err := h.Dial(ctx, h.path(bus)); err != nil {
			remedy := "sudo systemctl start dbus.socket"
			if !h.exists("/usr/lib/systemd/system/dbus.socket") && !h.exists("/lib/systemd/system/dbus.socket") {
				remedy = h.installCommand("dbus") + " && " + remedy
			}
			return bad("systemd without a system bus", needed, fmt.Sprintf("D-Bus does not answer at %s: %v", bus, err), remedy)
		}
		return good("system manager", needed)
	}
	runtimeDir := h.Getenv("XDG_RUNTIME_DIR")
	login := fmt.Sprintf("log in as %[1]s by ssh or `machinectl shell %[1]s@` rather than su or sudo,\nor keep a user manager running: sudo loginctl enable-linger %[1]s && export XDG_RUNTIME_DIR=/run/user/%[2]d", h.User, h.UID)
	if runtimeDir == "" {
		return bad("XDG_RUNTIME_DIR is not set", needed, "this is no login session, so the user's systemd cannot be reached", login)
	}
	bus := filepath.Join(runtimeDir, "bus")
	if err := h.Dial(ctx, h.path(bus)); err != nil {
		return bad("no user manager", needed, fmt.Sprintf("the user's D-Bus does not answer at %s: %v", bus, err), login)
	}
	return good("user manager of "+h.User, needed)
}

func checkCgroup(_ context.Context, h *Host, _ *Target) finding {
	const needed = "cgroup v2"
	if h.exists("/sys/fs/cgroup/cgroup.controllers") {
		return good("v2", needed)
	}
	return bad("v1 or none", needed, "/sys/fs/cgroup is no cgroup v2 hierarchy",
		"sudo grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1 (or add it to the kernel command line), then reboot")
}

// quadletGenerators are the places systemd.generator(7) looks at, most important first.
func quadletGenerators(rootless bool) []string {
	kind, name := "system-generators", "podman-system-generator"
	if rootless {
		kind, name = "user-generators", "podman-user-generator"
	}
	var paths []string
	for _, dir := range []string{"/run/systemd", "/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"} {
		paths = append(paths, filepath.Join(dir, kind, name))
	}
	return paths
}

func checkPodman(_ context.Context, h *Host, t *Target) finding {
	needed := "Podman " + t.minPodman() + " or newer"
	path, err := h.LookPath("podman")
	if err != nil {
		return bad("no podman in PATH", needed, "Podman is not installed", h.installCommand("podman"))
	}
	return good(path, needed)
}

func (t *Target) minPodman() string {
	if t.MinPodman != "" {
		return t.MinPodman
	}
	return MinPodman
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// checkPodmanVersion asks `podman --version`, which starts nothing and writes nothing.
func checkPodmanVersion(ctx context.Context, h *Host, t *Target) finding {
	least := t.minPodman()
	needed := least + " or newer"
	out, err := h.Exec(ctx, "podman", "--version")
	text := strings.TrimSpace(string(out))
	if err != nil {
		return bad(orUnknown(text), needed, fmt.Sprintf("`podman --version` failed: %v", err), "repair Podman: "+h.installCommand("podman"))
	}
	found := versionNumber.FindString(text)
	if found == "" {
		return bad(orUnknown(text), needed, "`podman --version` names no version", "repair Podman: "+h.installCommand("podman"))
	}
	if older(found, least) {
		return bad(found, needed, fmt.Sprintf("Podman %s is too old: quadlets need %s", found, needed),
			"use Podman "+needed+", as in RHEL 8.10, RHEL 9.4, Ubuntu 24.04, Debian 13 or later")
	}
	return good(found, needed)
}

// older compares dotted numbers; missing parts count as 0.
func older(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i]) // digits by the pattern that found it
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m < n
		}
	}
	return false
}

func checkQuadlet(_ context.Context, h *Host, _ *Target) finding {
	paths := quadletGenerators(h.rootless())
	needed := "the systemd generator " + filepath.Base(paths[0])
	for _, p := range paths {
		if info, err := os.Stat(h.path(p)); err == nil && info.Mode()&0o111 != 0 {
			return good(p, needed)
		}
	}
	return bad("none in "+filepath.Dir(paths[3]), needed, "this Podman has no quadlet generator, so systemd cannot run containers from units",
		"reinstall Podman with its systemd parts: "+h.installCommand("podman"))
}

// containerIDs is how many ids a rootless container needs for a process of uid 65532 and the files of uid 65534.
const containerIDs = 65536

func checkSubIDs(_ context.Context, h *Host, _ *Target) finding {
	if !h.rootless() {
		return skip("runs as root")
	}
	needed := fmt.Sprintf("%d ids for %s in /etc/subuid and /etc/subgid", containerIDs, h.User)
	// Ids from a directory service are not in the files: subid(5) in nsswitch.conf says so.
	if nsswitch, err := h.read("/etc/nsswitch.conf"); err == nil {
		for line := range strings.Lines(nsswitch) {
			if source, ok := strings.CutPrefix(strings.TrimSpace(line), "subid:"); ok && strings.TrimSpace(source) != "files" {
				return good("given by "+strings.TrimSpace(source), needed)
			}
		}
	}
	uids, uidEnd := subRange(h, "/etc/subuid")
	gids, gidEnd := subRange(h, "/etc/subgid")
	measured := fmt.Sprintf("%d in /etc/subuid, %d in /etc/subgid", uids, gids)
	if uids >= containerIDs && gids >= containerIDs {
		return good(measured, needed)
	}
	start := max(uidEnd, gidEnd)
	return bad(measured, needed, fmt.Sprintf("user %s has too few subordinate ids: containers cannot have users of their own", h.User),
		fmt.Sprintf("sudo usermod --add-subuids %[1]d-%[2]d --add-subgids %[1]d-%[2]d %[3]s && podman system migrate", start, start+containerIDs-1, h.User))
}

// subRange gives how many ids the file grants to the user, and the first id that no line of it uses.
func subRange(h *Host, file string) (granted, free int) {
	free = 100000
	text, err := h.read(file)
	if err != nil {
		return 0, free
	}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		start, err1 := strconv.Atoi(f[1])
		count, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil {
			continue
		}
		free = max(free, start+count)
		if f[0] == h.User || f[0] == strconv.Itoa(h.UID) {
			granted += count
		}
	}
	return granted, free
}

func checkIDMapTools(_ context.Context, h *Host, _ *Target) finding {
	if !h.rootless() {
		return skip("runs as root")
	}
	const needed = "newuidmap and newgidmap"
	var missing []string
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := h.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		pkg := "uidmap"
		if cmd := h.installCommand("x"); strings.Contains(cmd, "dnf") {
			pkg = "shadow-utils"
		} else if strings.Contains(cmd, "zypper") {
			pkg = "shadow"
		}
		return bad("no "+strings.Join(missing, ", no "), needed, "rootless containers cannot be given their ids without them", h.installCommand(pkg))
	}
	return good("both", needed)
}

func checkLinger(_ context.Context, h *Host, _ *Target) finding {
	if !h.rootless() {
		return skip("runs as root")
	}
	const needed = "linger on, or a logind that can turn it on"
	if h.exists("/var/lib/systemd/linger/" + h.User) {
		return good("on", needed)
	}
	_, err := h.LookPath("loginctl")
	if err == nil && h.exists("/run/systemd/users") {
		// logind lets users do this for themselves, but without polkit it asks nobody and lets only root.
		if h.exists("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service") {
			return good("off; logind runs", needed)
		}
		return bad("off; no polkit", needed, "without polkit only root can turn on linger, and without linger the registry ends when "+h.User+" logs out, and does not start at boot",
			"sudo loginctl enable-linger "+h.User)
	}
	return bad("off; no logind", needed, "without linger the registry ends when "+h.User+" logs out, and does not start at boot",
		"sudo loginctl enable-linger "+h.User)
}

func checkExisting(_ context.Context, h *Host, t *Target) finding {
	if t.Purpose != Install {
		return skip("concerns a first installation")
	}
	if t.Installed == "" {
		return good("none", "no installation")
	}
	return bad(t.Installed, "no installation", "there is an installation already",
		"see `quayctl status`; to begin anew run `quayctl uninstall` first")
}

// checkOtherRegistry looks for the units that mirror-registry (the legacy installer) leaves: quay-pod, quay-app, quay-redis, quay-postgres.
func checkOtherRegistry(_ context.Context, h *Host, t *Target) finding {
	const needed = "no other installer's registry"
	if t.Purpose == Doctor {
		return skip("concerns a first installation")
	}
	dirs := []string{"/etc/systemd/system"}
	if h.rootless() {
		dirs = append(dirs, filepath.Join(h.xdg("XDG_CONFIG_HOME", ".config"), "systemd/user"))
	}
	var found []string
	for _, dir := range dirs {
		for _, unit := range []string{"quay-pod.service", "quay-app.service", "quay-redis.service", "quay-postgres.service"} {
			if h.exists(filepath.Join(dir, unit)) {
				found = append(found, filepath.Join(dir, unit))
			}
		}
	}
	if len(found) == 0 {
		return good("none", needed)
	}
	return bad(strings.Join(found, ", "), needed, "a mirror-registry is installed here; both can run, if port and host name differ",
		"remove it when it is no longer needed: mirror-registry uninstall")
}

// The stack idles below 100 MiB and needs about as much again under load.
const memoryNeeded = 256 * mib

func checkMemory(_ context.Context, h *Host, _ *Target) finding {
	needed := size(memoryNeeded) + " available"
	text, err := h.read("/proc/meminfo")
	if err != nil {
		return bad("unknown", needed, fmt.Sprintf("memory cannot be measured: %v", err), "")
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "MemAvailable:" {
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			break
		}
		if kib*1024 < memoryNeeded {
			return bad(size(kib*1024)+" available", needed, "the machine is short of memory: the registry may be killed under load", "give the machine more memory, or stop what uses it")
		}
		return good(size(kib*1024)+" available", needed)
	}
	return bad("unknown", needed, "/proc/meminfo has no MemAvailable", "")
}

func checkSELinux(_ context.Context, h *Host, _ *Target) finding {
	enforce, err := h.read("/sys/fs/selinux/enforce")
	if err != nil {
		return skip("no SELinux")
	}
	mode := "permissive"
	if strings.TrimSpace(enforce) == "1" {
		mode = "enforcing"
	}
	const needed = "the container policy (container-selinux)"
	for _, file := range policyFiles(h) {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), ":container_file_t:") {
			return good(mode+", container policy present", needed)
		}
	}
	if mode == "permissive" {
		return good("permissive, no container policy", needed)
	}
	return bad("enforcing, no container policy", needed, "SELinux will keep containers from reading the data directory: no policy knows container_file_t",
		h.installCommand("container-selinux"))
}

func policyFiles(h *Host) []string {
	// The pattern is a constant and valid.
	files, _ := filepath.Glob(filepath.Join(h.Root, "/etc/selinux/*/contexts/files/file_contexts*"))
	slices.Sort(files)
	return files
}

func checkFirewalld(ctx context.Context, h *Host, t *Target) finding {
	if _, err := h.LookPath("firewall-cmd"); err != nil {
		return skip("no firewalld")
	}
	out, err := h.Exec(ctx, "firewall-cmd", "--state")
	if err != nil || strings.TrimSpace(string(out)) != "running" {
		return skip("firewalld does not run")
	}
	port := fmt.Sprintf("%d/tcp", t.Port)
	needed := port + " open"
	queries := []string{"--query-port=" + port}
	if t.Port == 443 {
		queries = append(queries, "--query-service=https")
	}
	for _, q := range queries {
		out, err := h.Exec(ctx, "firewall-cmd", q)
		answer := strings.TrimSpace(string(out))
		if err == nil && answer == "yes" {
			return good("open ("+strings.TrimPrefix(q, "--query-")+")", needed)
		}
		if answer != "no" { // an ordinary user may not be allowed to ask
			return skip("firewalld does not tell: " + answer)
		}
	}
	if ports, err := h.Exec(ctx, "firewall-cmd", "--list-ports"); err == nil {
		for _, open := range strings.Fields(string(ports)) {
			if inRange(open, t.Port) {
				return good("open ("+open+")", needed)
			}
		}
	}
	return bad(port+" closed", needed, "firewalld keeps other machines from reaching the registry",
		"sudo firewall-cmd --permanent --add-port="+port+" && sudo firewall-cmd --reload")
}

// inRange tells whether a port of firewalld's list, "1025-65535/tcp", covers the TCP port.
func inRange(open string, port int) bool {
	ports, ok := strings.CutSuffix(open, "/tcp")
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	return ok && err1 == nil && err2 == nil && from <= port && port <= to
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// size writes bytes for people: "256 MiB", "1.5 GiB".
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= mib:
		return fmt.Sprintf("%d MiB", n/mib)
	default:
		return fmt.Sprintf("%d KiB", n/1024)
	}
}
