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

// check is one named check. needs names a check that must have succeeded for this one to mean anything.
type check struct {
	name  string
	class Class
	needs string
	run   func(context.Context, *Host, *Target) finding
}

// checks is every check, in the order of the report.
func checks() []check {
	return []check{
		{"architecture", Block, "", checkArchitecture},
		{"systemd", Block, "", checkSystemd},
		{"cgroup-v2", Block, "", checkCgroup},
		{"podman", Block, "", checkPodman},
		{"podman-version", Block, "podman", checkPodmanVersion},
		{"quadlet", Block, "podman-version", checkQuadlet},
		{"subordinate-ids", Block, "", checkSubIDs},
		{"id-map-tools", Block, "", checkIDMapTools},
		{"linger", Block, "", checkLinger},
		{"existing-installation", Block, "", checkExisting},
		{"other-registry", Warn, "", checkOtherRegistry},
		{"data-directory", Block, "", checkDataDir},
		{"data-filesystem", Block, "data-directory", checkDataFilesystem},
		{"data-durable", Warn, "data-directory", checkDataDurable},
		{"graph-root", Block, "podman", checkGraphRoot},
		{"disk-space", Block, "", checkDisk},
		{"inodes", Block, "", checkInodes},
		{"memory", Warn, "", checkMemory},
		{"port-privileged", Block, "", checkPrivilegedPort},
		{"port-free", Block, "", checkPort},
		{"hostname-resolves", Block, "", checkHostname},
		{"hostname-local", Warn, "hostname-resolves", checkHostnameLocal},
		{"clock", Block, "", checkClock},
		{"certificate", Block, "", checkCertificate},
		{"certificate-key", Block, "certificate", checkCertificateKey},
		{"certificate-chain", Block, "certificate", checkCertificateChain},
		{"certificate-validity", Block, "certificate", checkCertificateValidity},
		{"certificate-expires-soon", Warn, "certificate-validity", checkCertificateSoon},
		{"certificate-hostname", Block, "certificate", checkCertificateHostname},
		{"selinux", Block, "", checkSELinux},
		{"firewalld", Warn, "", checkFirewalld},
	}
}

// Names lists the names of all checks, in the order of the report.
func Names() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
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
		res := Result{Name: c.name, Class: c.class}
		var f finding
		if c.needs != "" && !passed[c.needs] {
			f = skip("needs " + c.needs)
		} else {
			f = c.run(ctx, h, &t)
		}
		res.Status, res.Measured, res.Needed, res.Cause, res.Remedy = f.status, f.measured, f.needed, f.cause, f.remedy
		passed[c.name] = f.status == OK
		if f.status == Failed {
			switch {
			case slices.Contains(waive, c.name):
				res.Status = Waived
				passed[c.name] = c.class == Warn
			case c.class == Warn:
				res.Status = Warning
				passed[c.name] = true
			}
		}
		r.Results = append(r.Results, res)
	}
	return r, nil
}
