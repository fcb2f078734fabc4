// Package preflight measures whether a machine can hold an installation, before anything is changed.
//
// Each check has a name that never changes, a class, what it measured and
// needs, and the cause and remedy of a finding. install, upgrade and doctor
// share them. A check reads the machine only through Host, and never writes.
package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Class says what a finding means.
type Class string

// The classes.
const (
	Block Class = "block" // it would fail: nothing is begun
	Warn  Class = "warn"  // it may go wrong later
)

// Status is the outcome of one check.
type Status string

// The outcomes.
const (
	OK      Status = "ok"
	Failed  Status = "failed"  // class block
	Warning Status = "warning" // class warn
	Waived  Status = "waived"  // a finding that the user chose to ignore by name
	Skipped Status = "skipped" // it has no meaning on this machine, or stands on another check that failed
)

// Result is the outcome of one check.
type Result struct {
	Name     string `json:"name"`
	Class    Class  `json:"class"`
	Status   Status `json:"status"`
	Measured string `json:"measured"` // what was found
	Needed   string `json:"needed"`   // what has to be there
	Cause    string `json:"cause,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// Purpose is what the machine is to be fit for.
type Purpose int

// The purposes.
const (
	Install Purpose = iota
	Upgrade
	Doctor
)

// Target is what shall be installed.
type Target struct {
	Purpose  Purpose
	Hostname string // DNS name or IP address that clients will use
	Port     int    // TCP
	// OwnPort is the port that this user's existing installation serves, 0 for none: held by systemd
	// or the edge it counts as free.
	OwnPort int
	DataDir string // absolute
	// Certificate and Key are PEM, both nil when quayctl makes them; the files are named in findings.
	Certificate, Key         []byte
	CertificateFile, KeyFile string
	// BundleArch is GOARCH of the images; empty skips the check.
	BundleArch string
	// Built is when the bundle was made: the machine's clock cannot be right before it. Zero skips the check.
	Built time.Time
	// MinPodman is the oldest version that will do, such as "4.9"; empty means MinPodman.
	MinPodman string
	Space     Space
	// Installed is the file that shows an existing installation, such as <data>/state.json, if it exists; else empty.
	Installed string
}

// MinPodman is the oldest Podman that units are rendered for.
const MinPodman = "4.9"

// Space is how much has to be free, in bytes and in files.
type Space struct {
	Graph  int64 // in Podman's storage: the unpacked images
	Data   int64 // in the data directory: the database and room for the first images
	Tmp    int64 // in /var/tmp: Podman unpacks the archive of an image there, twice
	Inodes int64 // in each of them
}

const mib = 1 << 20

// SpaceFor computes the space for images whose archives and unpacked layers have these sizes in bytes.
// Podman writes an image's archive to /var/tmp twice before the layers go to the store, one image at a time.
// The store needs an eighth more than the plain sizes: blocks are filled in part, and metadata comes on top.
// A fresh database takes 60 MiB with its log; the rest of the data's share is room to work in.
func SpaceFor(archives, unpacked []int64) Space {
	s := Space{Data: 256 * mib, Inodes: 4096}
	for _, n := range archives {
		s.Tmp = max(s.Tmp, 2*n)
	}
	for _, n := range unpacked {
		s.Graph += n
	}
	s.Graph += s.Graph / 8
	return s
}

// finding is what a check says: ok with what it measured, or why not.
type finding struct {
	status           Status // OK, Failed or Skipped; Failed becomes Warning for class warn
	measured, needed string
	cause, remedy    string
}

func good(measured, needed string) finding {
	return finding{status: OK, measured: measured, needed: needed}
}
func bad(measured, needed, cause, remedy string) finding {
	return finding{Failed, measured, needed, cause, remedy}
}
func skip(why string) finding { return finding{status: Skipped, measured: why} }

// Check says what a check is, for documentation.
type Check struct {
	Name     string
	Class    Class
	Measures string
	Helps    string
}

// Checks lists every check, in the order of the report.
func Checks() []Check {
	var all []Check
	for _, c := range checks() {
		all = append(all, c.Check)
	}
	return all
}

// check is one named check. needs names a check that must have succeeded for this one to mean anything.
type check struct {
	Check
	needs string
	run   func(context.Context, *Host, *Target) finding
}

// checks is every check, in the order of the report.
func checks() []check {
	return []check{
		{Check{"architecture", Block, "the processor against that of the bundle's images", "the bundle whose name ends in this machine's `linux-ARCH.tar`"}, "", checkArchitecture},
		{Check{"systemd", Block, "whether systemd is process 1, and whether its manager (rootless: the user's) answers on D-Bus", "a machine that runs systemd; rootless: log in by ssh or `machinectl shell` rather than `su`, or switch linger on"}, "", checkSystemd},
		{Check{"cgroup-v2", Block, "whether `/sys/fs/cgroup` is the unified hierarchy", "boot with `systemd.unified_cgroup_hierarchy=1`"}, "", checkCgroup},
		{Check{"podman", Block, "whether `podman` is in `PATH`", "install the package `podman`"}, "", checkPodman},
		{Check{"podman-version", Block, "what `podman --version` says against the oldest version that the bundle names", "a distribution with Podman 4.9 or newer: RHEL 8.10, RHEL 9.4, Ubuntu 24.04, Debian 13"}, "podman", checkPodmanVersion},
		{Check{"quadlet", Block, "whether Podman's systemd generator is where systemd looks for it", "reinstall Podman from the distribution's packages"}, "podman-version", checkQuadlet},
		{Check{"subordinate-ids", Block, "rootless: how many ids `/etc/subuid` and `/etc/subgid` grant the user; 65536 are needed", "`usermod --add-subuids … --add-subgids …`, as the finding spells it out"}, "", checkSubIDs},
		{Check{"id-map-tools", Block, "rootless: whether `newuidmap` and `newgidmap` are installed", "install `uidmap` (Debian, Ubuntu) or `shadow-utils` (RHEL, Fedora)"}, "", checkIDMapTools},
		{Check{"linger", Block, "rootless: whether the user's services may run without a login, or logind can arrange it", "`sudo loginctl enable-linger USER`"}, "", checkLinger},
		{Check{"existing-installation", Block, "whether there is an installation already", "`quayctl status`; `quayctl uninstall` to begin anew"}, "", checkExisting},
		{Check{"other-registry", Warn, "units that mirror-registry leaves", "remove it when it is no longer needed, or use another port"}, "", checkOtherRegistry},
		{Check{"data-directory", Block, "whether the data directory can be made, or belongs to the user and to nobody else", "give another with `--data-dir`, or correct owner and mode"}, "", checkDataDir},
		{Check{"data-filesystem", Block, "whether the file system of the data is local, writable and keeps owners", "give a directory on a local disk with `--data-dir`"}, "data-directory", checkDataFilesystem},
		{Check{"data-durable", Warn, "whether the data lie on a disk rather than in memory", "give a directory on a disk with `--data-dir`"}, "data-directory", checkDataDurable},
		{Check{"graph-root", Block, "whether Podman's storage lies on a local, writable file system from which programs may run", "remount it, or set `graphroot` in `storage.conf`"}, "podman", checkGraphRoot},
		{Check{"disk-space", Block, "free space for the data, for Podman's storage and for `/var/tmp`, added up by file system; what is needed follows from the bundle", "free space, or a larger disk"}, "", checkDisk},
		{Check{"inodes", Block, "free inodes of the same file systems", "remove small files, or use another file system"}, "", checkInodes},
		{Check{"memory", Warn, "memory that is available, 256 MiB", "more memory, or stop what uses it"}, "", checkMemory},
		{Check{"port-privileged", Block, "rootless: whether the user may listen on the port", "a port from 1024, or the `sysctl` that the finding spells out"}, "", checkPrivilegedPort},
		{Check{"port-free", Block, "whether another process listens on the port, and which", "stop it, or give another port with `--port`"}, "", checkPort},
		{Check{"hostname-resolves", Block, "whether the host name has an address", "DNS, a line in `/etc/hosts`, or another name with `--hostname`"}, "", checkHostname},
		{Check{"hostname-local", Warn, "whether that address is one of this machine's", "correct DNS, unless a load balancer stands in front"}, "hostname-resolves", checkHostnameLocal},
		{Check{"clock", Block, "the time against the one when the bundle was built", "`timedatectl set-ntp true`"}, "", checkClock},
		{Check{"certificate", Block, "with `--ssl-cert`: whether the file holds PEM certificates", "a PEM file, the server's own certificate first"}, "", checkCertificate},
		{Check{"certificate-key", Block, "whether the key belongs to the certificate", "the key that the certificate was requested with, not encrypted"}, "certificate", checkCertificateKey},
		{Check{"certificate-chain", Block, "whether each certificate of the file is signed by the next", "the server's own certificate first, then its issuer, and so on"}, "certificate", checkCertificateChain},
		{Check{"certificate-validity", Block, "whether the certificate is valid now", "a renewed certificate, or the right time"}, "certificate", checkCertificateValidity},
		{Check{"certificate-expires-soon", Warn, "whether it is valid for 30 days more", "renew it"}, "certificate-validity", checkCertificateSoon},
		{Check{"certificate-hostname", Block, "whether it covers the host name", "a certificate with that name as subject alternative name, or `--hostname`"}, "certificate", checkCertificateHostname},
		{Check{"selinux", Block, "with SELinux enforcing: whether the policy knows containers", "install `container-selinux`"}, "", checkSELinux},
		{Check{"firewalld", Warn, "with firewalld running: whether the port is open", "`firewall-cmd --permanent --add-port=PORT/tcp`, then `--reload`"}, "", checkFirewalld},
	}
}

// Names lists the names of all checks, in the order of the report.
func Names() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.Name)
	}
	return names
}

// Run runs every check. Findings of the checks named in waive are kept but do not count. The only error
// is a name in waive that no check has, or ctx's.
func Run(ctx context.Context, h *Host, t Target, waive []string) (*Report, error) {
	for _, name := range waive {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("no preflight check is named %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	r := &Report{}
	passed := map[string]bool{}
	for _, c := range checks() {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		res := Result{Name: c.Name, Class: c.Class}
		var f finding
		if c.needs != "" && !passed[c.needs] {
			f = skip("needs " + c.needs)
		} else {
			f = c.run(ctx, h, &t)
		}
		res.Status, res.Measured, res.Needed, res.Cause, res.Remedy = f.status, f.measured, f.needed, f.cause, f.remedy
		passed[c.Name] = f.status == OK
		if f.status == Failed {
			switch {
			case slices.Contains(waive, c.Name):
				res.Status = Waived
				passed[c.Name] = c.Class == Warn
			case c.Class == Warn:
				res.Status = Warning
				passed[c.Name] = true
			}
		}
		r.Results = append(r.Results, res)
	}
	return r, nil
}
