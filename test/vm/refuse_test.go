//go:build machine

package vm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	vm "github.com/quayctl/quayctl/test/vm"
)

// Exit codes as docs/exit-codes.md promises them.
const (
	exitUsage     = 2
	exitPreflight = 3
	exitBundle    = 4
	exitLocked    = 7
)

// refused is a bad situation: install must say what, why and what to do, and change nothing.
type refused struct {
	name    string
	user    string
	options vm.Options
	prepare func(s *site)
	args    string   // replaces the usual arguments when not empty; %s is the host name
	code    int      // the exit code
	say     []string // what the message must hold: the thing, the cause, the remedy
}

var situations = []refused{
	{
		name: "port taken", code: exitPreflight, say: []string{"8443", "python3|socat|podman|systemd|nc|perl", "--port"},
		prepare: func(s *site) {
			s.Run(`systemd-run --quiet --unit=squatter perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(LocalPort=>8443,Listen=>1,ReuseAddr=>1) or die; sleep 600'
				until ss -Hltn | grep -q :8443; do :; done`)
		},
	},
	{
		name: "too little disk", code: exitPreflight, say: []string{"free", "need"},
		prepare: func(s *site) { s.Run("mkdir -p /var/lib/quay"); s.Disk("/var/lib/quay", "40M") },
	},
	{
		name: "full disk", code: exitPreflight, say: []string{"free", "need"},
		prepare: func(s *site) { s.Fill("/var", 20<<20) },
	},
	{
		name: "no Podman", code: exitPreflight, say: []string{"Podman", "install"},
		prepare: func(s *site) { s.Run("rm /usr/bin/podman") },
	},
	{
		name: "Podman without quadlets", code: exitPreflight, options: vm.Options{Suite: "bookworm"}, say: []string{"4.3", "4.9"},
	},
	{
		name: "no generator", code: exitPreflight, say: []string{"quadlet", "generator"},
		prepare: func(s *site) { s.Run("rm -f /usr/lib/systemd/system-generators/podman-system-generator /usr/libexec/podman/quadlet") },
	},
	{
		name: "hostname does not resolve", code: exitPreflight, say: []string{"nowhere.invalid", "resolve"},
		args: "install --profile=registry-only --hostname=nowhere.invalid --non-interactive --yes",
	},
	{
		name: "certificate for another name", code: exitPreflight, say: []string{"other.example.com", "%s"},
		prepare: func(s *site) { s.certificate("other.example.com", 30, "") },
		args:    "install --profile=registry-only --hostname=%s --ssl-cert /root/t.crt --ssl-key /root/t.key --non-interactive --yes",
	},
	{
		name: "certificate and key do not match", code: exitPreflight, say: []string{"match"},
		prepare: func(s *site) { s.certificate(s.host(), 30, ""); s.Run("openssl ecparam -genkey -name prime256v1 -noout -out /root/t.key") },
		args:    "install --profile=registry-only --hostname=%s --ssl-cert /root/t.crt --ssl-key /root/t.key --non-interactive --yes",
	},
	{
		name: "certificate expired", code: exitPreflight, say: []string{"expired"},
		prepare: func(s *site) {
			s.certificate(s.host(), 1, "-not_before 20200101000000Z -not_after 20200201000000Z")
		},
		args: "install --profile=registry-only --hostname=%s --ssl-cert /root/t.crt --ssl-key /root/t.key --non-interactive --yes",
	},
	{
		name: "one flag of two", code: exitUsage, say: []string{"--ssl-key"},
		args: "install --profile=registry-only --hostname=%s --ssl-cert /root/t.crt --non-interactive --yes",
	},
	{
		name: "unreadable bundle", code: exitBundle, say: []string{"manifest.json"},
		prepare: func(s *site) { s.Run("rm ~/appliance/manifest.json") },
	},
	{
		name: "bundle cut short", code: exitBundle, say: []string{"oci/"},
		prepare: func(s *site) { s.Run("f=$(find ~/appliance/oci/blobs -type f -size +1M | head -1); truncate -s -1 $f") },
	},
	{
		name: "flipped byte", code: exitBundle, say: []string{"oci/"},
		prepare: func(s *site) {
			s.Run(`f=$(find ~/appliance/oci/blobs -type f -size +1M | head -1); printf '\377' | dd of=$f bs=1 seek=4711 conv=notrunc status=none; printf '\376' | dd of=$f bs=1 seek=4712 conv=notrunc status=none`)
		},
	},
	{
		name: "wrong architecture", code: exitBundle, say: []string{"arm64", "amd64"},
		prepare: func(s *site) { s.Run(`sed -i 's/"amd64"/"arm64"/' ~/appliance/manifest.json`) },
		// The signature is checked first, so the flipped manifest is refused as tampered; the architecture itself is tested with a bundle signed for it in internal/bundle.
	},
	{
		name: "no subordinate ids", user: "quay", code: exitPreflight, say: []string{"/etc/subuid", "usermod"},
		prepare: func(s *site) { s.Run("sed -i /^quay:/d /etc/subuid /etc/subgid") },
	},
	{
		name: "privileged port rootless", user: "quay", code: exitPreflight, say: []string{"443", "ip_unprivileged_port_start"},
		args: "install --profile=registry-only --hostname=%s --port=443 --non-interactive --yes",
	},
	{
		name: "unknown profile", code: exitUsage, say: []string{"registry-only"},
		args: "install --profile=nonsense --hostname=%s --non-interactive --yes",
	},
}

// certificate makes /root/t.crt and /root/t.key for a name.
func (s *site) certificate(name string, days int, extra string) {
	s.t.Helper()
	if extra == "" {
		extra = fmt.Sprintf("-days %d", days)
	}
	s.Run(fmt.Sprintf("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=%[1]s -addext subjectAltName=DNS:%[1]s %[2]s -keyout /root/t.key -out /root/t.crt 2>/dev/null", name, extra))
}

// TestRefuse walks the bad situations.
func TestRefuse(t *testing.T) {
	for _, c := range situations {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			user := c.user
			if user == "" {
				user = "root"
			}
			s := newSite(t, user, c.options)
			if c.prepare != nil {
				c.prepare(s)
			}
			args := c.args
			if args == "" {
				args = "install --profile=registry-only --hostname=%s --non-interactive --yes"
			}
			args = strings.ReplaceAll(args, "%s", s.host())
			if c.name == "wrong architecture" {
				c.say = []string{"manifest.json", "signature"}
			}
			before := s.inventory()
			r := s.quayctl(args)
			if r.Code != c.code {
				t.Errorf("exit code %d, want %d\n%s%s", r.Code, c.code, r.Stdout, r.Stderr)
			}
			for _, want := range c.say {
				want = strings.ReplaceAll(want, "%s", s.host())
				found := false
				for _, alternative := range strings.Split(want, "|") {
					found = found || strings.Contains(r.Stdout+r.Stderr, alternative)
				}
				if !found {
					t.Errorf("the message does not hold %q:\n%s%s", want, r.Stdout, r.Stderr)
				}
			}
			if after := s.inventory(); after != before {
				t.Errorf("something was changed:\n%s", diff(before, after))
			}
			// The same as JSON: one object with an error, its cause and a remedy.
			if r := s.quayctl(args + " --output json"); r.Code != c.code || !jsonError(r.Stdout+r.Stderr) {
				t.Errorf("--output json: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
}

func jsonError(out string) bool {
	var e struct {
		Error struct {
			Message string `json:"message"`
			Remedy  string `json:"remedy"`
		} `json:"error"`
	}
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		if err := dec.Decode(&e); err != nil {
			return false
		}
		if e.Error.Message != "" {
			return true
		}
	}
}

// TestSecondInstaller runs a second installer while the first holds the lock.
func TestSecondInstaller(t *testing.T) {
	s := newSite(t, "root", vm.Options{})
	var second vm.Result
	s.interruptAt("load-images", func() {
		second = s.quayctl(s.installArgs())
		s.Run("pkill -INT -x quayctl || true")
	})
	if second.Code != exitLocked || !strings.Contains(second.Stdout+second.Stderr, "install") {
		t.Errorf("exit code %d, want %d; the message must name who holds the lock\n%s%s", second.Code, exitLocked, second.Stdout, second.Stderr)
	}
}
