//go:build machine

package vm_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	vm "github.com/quayctl/quayctl/test/vm"
)

// Exit codes as docs/exit-codes.md promises them.
const (
	exitUsage            = 2
	exitPreflight        = 3
	exitBundle           = 4
	exitUnhealthy        = 5
	exitLocked           = 7
	exitAlreadyInstalled = 8
	exitNotInstalled     = 9
	exitInterrupted      = 130
)

// bundlePath is the bundle under test: `make test-vm` builds it and sets BUNDLE.
func bundlePath(t testing.TB) string {
	t.Helper()
	p := os.Getenv("BUNDLE")
	if p == "" {
		t.Fatal("BUNDLE names no bundle: run the machine tests with make test-vm")
	}
	return p
}

// site is a machine with an unpacked bundle, and the user who installs it.
type site struct {
	*vm.Machine
	t testing.TB
	// User installs and runs the appliance: root, or an ordinary user for a rootless one.
	User string
	// Home is the user's home.
	Home string
}

// newSite boots a machine and unpacks the bundle there, in ~/appliance.
func newSite(t testing.TB, user string, o vm.Options) *site {
	t.Helper()
	s := &site{Machine: vm.Boot(t, o), t: t, User: user, Home: "/root"}
	if user != "root" {
		s.AddUser(user)
		s.Home = "/home/" + user
	}
	f, err := os.Open(bundlePath(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r := s.Exec(user, "mkdir ~/appliance && tar -C ~/appliance -xf - && sync", f); r.Code != 0 {
		t.Fatalf("unpack the bundle: %s", r.Stderr)
	}
	return s
}

// forUsers runs f twice: for an installation of the machine's, and for one of an ordinary user's.
func forUsers(t *testing.T, f func(t *testing.T, user string)) {
	for mode, user := range map[string]string{"root": "root", "rootless": "quay"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			f(t, user)
		})
	}
}

// host is the name the appliance gets; the machine's /etc/hosts knows it.
func (s *site) host() string { return s.Name + ".test" }

func (s *site) addr() string { return s.host() + ":8443" }

// dataDir is where the site's data lies by default.
func (s *site) dataDir() string {
	if s.User == "root" {
		return "/var/lib/quay"
	}
	return s.Home + "/.local/share/quay"
}

// systemctl is how the site's user speaks to the manager of the appliance's units.
func (s *site) systemctl() string {
	if s.User == "root" {
		return "systemctl"
	}
	return "systemctl --user"
}

// quayctl runs the bundle's quayctl as the site's user.
func (s *site) quayctl(args string) vm.Result {
	s.t.Helper()
	return s.Exec(s.User, "cd ~/appliance && ./quayctl "+args, nil)
}

// object decodes the one JSON object that quayctl args --output json prints, and fails the test unless it exits 0.
func (s *site) object(into any, args string) {
	s.t.Helper()
	r := s.quayctl(args + " --output json")
	if r.Code != 0 {
		s.t.Fatalf("quayctl %s exited %d\n%s%s\n%s", args, r.Code, r.Stdout, r.Stderr, s.journal())
	}
	s.decode(r.Stdout, into)
}

func (s *site) decode(text string, into any) {
	s.t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(into); err != nil || dec.More() {
		s.t.Fatalf("not one JSON object: %v\n%s", err, text)
	}
}

// want fails the test unless a command ended with code and wrote every one of say.
func (s *site) want(r vm.Result, code int, say ...string) {
	s.t.Helper()
	ok := r.Code == code
	for _, w := range say {
		ok = ok && strings.Contains(r.Stdout+r.Stderr, w)
	}
	if !ok {
		s.t.Errorf("exit code %d, want %d and a message with %q\n%s%s", r.Code, code, say, r.Stdout, r.Stderr)
	}
}

// installed is what `install --output json` prints, as far as the tests need it.
type installed struct {
	URL          string `json:"url"`
	User         string `json:"user"`
	PasswordFile string `json:"password_file"`
	CAFile       string `json:"ca_file"`
	Version      string `json:"version"`
	Attached     bool   `json:"attached"`
	Steps        []struct {
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
	} `json:"steps"`
	Seconds float64 `json:"seconds"`
}

func (s *site) installArgs() string {
	return "install --profile=registry-only --hostname=" + s.host() + " --non-interactive --yes"
}

// install installs and fails the test unless it succeeds.
func (s *site) install() installed {
	s.t.Helper()
	var in installed
	s.object(&in, s.installArgs())
	return in
}

func (s *site) journal() string {
	return s.Exec("root", `journalctl -b --no-pager -n 300 -o short-monotonic | grep -v -e audit -e kernel -e 'podman\[' -e conmon -e '"msg":"request"' | tail -n 100`, nil).Stdout
}

// status is what `status --output json` prints, as far as the tests need it.
type status struct {
	Schema     string   `json:"schema"`
	Healthy    bool     `json:"healthy"`
	Problems   []string `json:"problems"`
	Components []struct {
		Name    string `json:"name"`
		Healthy bool   `json:"healthy"`
		Digest  string `json:"digest"`
		ID      string `json:"id"`
		Runs    string `json:"runs"`
	} `json:"components"`
	Certificate struct {
		Days int `json:"days"`
	} `json:"certificate"`
	Database struct {
		Revision string `json:"revision"`
	} `json:"database"`
	Disk struct {
		Free int64 `json:"free"`
	} `json:"disk"`
	LastOperation struct {
		Name string `json:"name"`
	} `json:"last_operation"`
}

// wantHealthy fails the test unless the appliance is healthy now.
func (s *site) wantHealthy() {
	s.t.Helper()
	var st status
	s.object(&st, "status")
	if !st.Healthy {
		s.t.Fatalf("status exits 0 and says %+v", st)
	}
}

// awaitHealthy waits until the appliance has come up by itself: it asks for the verdict that users see until that is good.
func (s *site) awaitHealthy() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		last := s.quayctl("status")
		if last.Code == 0 {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("not healthy in time: status exits %d\n%s%s\n%s", last.Code, last.Stdout, last.Stderr, s.journal())
		case <-tick.C:
		}
	}
}

func (s *site) password(in installed) string {
	s.t.Helper()
	return strings.TrimSpace(s.RunAs(s.User, "cat "+in.PasswordFile))
}

// transport trusts the appliance's own CA alone and finds its name at the machine's address.
func (s *site) transport(in installed) *http.Transport {
	s.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.RunAs(s.User, "cat "+in.CAFile))) {
		s.t.Fatalf("%s holds no certificate", in.CAFile)
	}
	return &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(s.IP, port))
		},
	}
}

// push pushes a random image as the first user and returns it.
func (s *site) push(in installed, repo string) (name.Tag, v1.Image) {
	s.t.Helper()
	img, err := random.Image(64<<10, 2)
	if err != nil {
		s.t.Fatal(err)
	}
	tag, err := name.NewTag(s.addr() + "/" + in.User + "/" + repo + ":v1")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := remote.Write(tag, img, s.remote(in)...); err != nil {
		s.t.Fatalf("push %s: %v\n%s", tag, err, s.journal())
	}
	return tag, img
}

func (s *site) remote(in installed) []remote.Option {
	return []remote.Option{
		remote.WithTransport(s.transport(in)),
		remote.WithAuth(&authn.Basic{Username: in.User, Password: s.password(in)}),
	}
}

// wantPull fails the test unless tag holds img, whole.
func (s *site) wantPull(in installed, tag name.Tag, img v1.Image) {
	s.t.Helper()
	got, err := remote.Image(tag, s.remote(in)...)
	if err != nil {
		s.t.Fatalf("pull %s: %v", tag, err)
	}
	want, err := img.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	if d, err := got.Digest(); err != nil || d != want {
		s.t.Fatalf("pull %s: digest %v, %v; want %v", tag, d, err, want)
	}
	layers, err := got.Layers()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range layers {
		rc, err := l.Compressed() // its reader verifies the digest
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			s.t.Fatalf("pull a layer of %s: %v", tag, err)
		}
		rc.Close()
	}
}

// inventory lists what an installation could leave: files, units, images, containers, volumes, secrets, sockets, linger.
// What Podman and the journal keep for themselves is left out; what lies in Podman's store is asked of Podman.
func (s *site) inventory() string {
	s.t.Helper()
	const podman = `if command -v podman >/dev/null; then
			podman images --all --quiet --no-trunc; podman ps --all --quiet; podman volume ls --quiet; podman secret ls --quiet; podman network ls --quiet
		fi
		echo podman.socket $(SYSTEMCTL is-active podman.socket) $(SYSTEMCTL is-enabled podman.socket)
		SYSTEMCTL list-units --all --plain --no-legend 'quay*' | awk '{print $1,$3,$4}'
		SYSTEMCTL list-unit-files --no-legend 'quay*' || true
		`
	out := ""
	if s.User != "root" { // first, as Podman makes directories for itself
		out = s.RunAs(s.User, strings.ReplaceAll(podman, "SYSTEMCTL", "systemctl --user"))
	}
	return out + s.Run(strings.ReplaceAll(podman, "SYSTEMCTL", "systemctl")+`
		for root in / /var /home /root /srv /opt; do find $root -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o -path /var/log -o -path /var/cache \
			-o -path '/var/lib/systemd/*' -o -path '*/containers/storage' -o -path '*/containers/cache' -o -path '/var/tmp/systemd-private-*' \) -prune -o -printf '%y %m %u:%g %p %l\n'; done | sort -u
		find /etc /usr/local -xdev -type f -exec sha256sum {} + | sort -k2
		find /run /tmp -maxdepth 3 -name '*quay*' ! -path '/run/user/*/systemd/*' ! -name 'systemd-private-*' ! -path /run/user/quay | sort
		ls -A /var/lib/systemd/linger 2>/dev/null || true
		ss -Hltnu | awk '{print "listen", $1, $5}' | sort -u`)
}

func diff(a, b string) string {
	in := map[string]int{}
	for l := range strings.Lines(a) {
		in[l]--
	}
	for l := range strings.Lines(b) {
		in[l]++
	}
	var out strings.Builder
	for l, n := range in {
		switch {
		case n > 0:
			out.WriteString("+ " + l)
		case n < 0:
			out.WriteString("- " + l)
		}
	}
	return out.String()
}

// wantSame fails the test unless the inventory is what it was before.
func (s *site) wantSame(before, what string) {
	s.t.Helper()
	if after := s.inventory(); after != before {
		s.t.Errorf("%s leaves a difference:\n%s", what, diff(before, after))
	}
}
