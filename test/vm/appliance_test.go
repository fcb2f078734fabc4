//go:build machine

package vm_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	vm "github.com/quayctl/quayctl/test/vm"
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
	s.unpack()
	return s
}

func (s *site) unpack() {
	s.t.Helper()
	f, err := os.Open(bundlePath(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if r := s.Exec(s.User, "mkdir -p ~/appliance && tar -C ~/appliance -xf - && sync", f); r.Code != 0 {
		s.t.Fatalf("unpack the bundle: %s", r.Stderr)
	}
}

// host is the name the appliance gets; the machine's /etc/hosts knows it.
func (s *site) host() string { return s.Name + ".test" }

func (s *site) addr() string { return s.host() + ":8443" }

// quayctl runs the bundle's quayctl as the site's user.
func (s *site) quayctl(args string) vm.Result {
	s.t.Helper()
	return s.Exec(s.User, "cd ~/appliance && ./quayctl "+args, nil)
}

// installed is what `install --output json` prints, as far as the tests need it.
type installed struct {
	Schema       string `json:"schema"`
	URL          string `json:"url"`
	User         string `json:"user"`
	PasswordFile string `json:"password_file"`
	CAFile       string `json:"ca_file"`
	Steps        []struct {
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
	} `json:"steps"`
	Seconds float64 `json:"seconds"`
}

func (s *site) installArgs() string {
	return "install --profile=registry-only --hostname=" + s.host() + " --non-interactive --yes --output json"
}

// install installs and fails the test unless it succeeds.
func (s *site) install() installed {
	s.t.Helper()
	r := s.quayctl(s.installArgs())
	if r.Code != 0 {
		s.t.Fatalf("install exited %d\n%s\n%s\n%s", r.Code, r.Stdout, r.Stderr, s.journal())
	}
	var in installed
	if err := json.Unmarshal([]byte(r.Stdout), &in); err != nil {
		s.t.Fatalf("install's output is not one JSON object: %v\n%s", err, r.Stdout)
	}
	return in
}

func (s *site) journal() string {
	return s.Exec("root", "journalctl -b --no-pager -n 120 -o short-monotonic | grep -v -e audit -e kernel", nil).Stdout
}

// status is what `status --output json` prints, as far as the tests need it.
type status struct {
	Schema     string `json:"schema"`
	Healthy    bool   `json:"healthy"`
	Components []struct {
		Name   string `json:"name"`
		Health string `json:"health"`
	} `json:"components"`
}

func (s *site) status() (status, vm.Result) {
	s.t.Helper()
	r := s.quayctl("status --output json")
	var st status
	if err := json.Unmarshal([]byte(r.Stdout), &st); err != nil && r.Code == 0 {
		s.t.Fatalf("status's output is not one JSON object: %v\n%s", err, r.Stdout)
	}
	return st, r
}

// wantHealthy fails the test unless the appliance is healthy now.
func (s *site) wantHealthy() {
	s.t.Helper()
	st, r := s.status()
	if r.Code != 0 || !st.Healthy {
		s.t.Fatalf("status exited %d\n%s%s\n%s", r.Code, r.Stdout, r.Stderr, s.journal())
	}
}

// awaitHealthy waits until the appliance has come up by itself; `systemctl is-active --wait`-like, it polls the verdict that users see.
func (s *site) awaitHealthy() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var last vm.Result
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		if _, last = s.status(); last.Code == 0 {
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
			_, port, _ := net.SplitHostPort(addr)
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

var users = []string{"root", "quay"}

func forUsers(t *testing.T, f func(t *testing.T, user string)) {
	for _, u := range users {
		mode := "rootless"
		if u == "root" {
			mode = "root"
		}
		t.Run(mode, func(t *testing.T) { f(t, u) })
	}
}

// TestLife is a whole life without any network: install, use by every client, reboot, power cut, uninstall to nothing.
func TestLife(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		s := newSite(t, user, vm.Options{})
		before := s.inventory()
		s.Network(false)
		in := s.install()
		t.Logf("install, proven healthy: %.1f s %v", in.Seconds, in.Steps)
		s.wantHealthy()
		s.clientsOnTheMachine(in)
		s.footprint()
		s.Network(true)
		s.clientsOverTheNetwork(in)
		tag, img := s.push(in, "kept")
		s.secretsStaySecret(in)

		if r := s.quayctl(s.installArgs()); r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "uninstall") {
			t.Errorf("a second install exited %d and does not name the right verb:\n%s%s", r.Code, r.Stdout, r.Stderr)
		}

		s.Reboot()
		s.awaitHealthy()
		s.wantPull(in, tag, img)
		s.Cut()
		s.On()
		s.awaitHealthy()
		s.wantPull(in, tag, img)

		if r := s.quayctl("uninstall --yes"); r.Code != 0 {
			t.Fatalf("uninstall exited %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		// What was kept can be installed again, with everything in it.
		again := s.install()
		if again.PasswordFile != in.PasswordFile {
			t.Errorf("password file %s, was %s", again.PasswordFile, in.PasswordFile)
		}
		s.wantPull(again, tag, img)
		if r := s.quayctl("uninstall --yes --delete-data"); r.Code != 0 {
			t.Fatalf("uninstall --delete-data exited %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		if after := s.inventory(); after != before {
			t.Errorf("uninstall leaves a difference:\n%s", diff(before, after))
		}
	})
}

// inventory lists what an installation could leave: files, units, images, containers, volumes, secrets, sockets, linger.
func (s *site) inventory() string {
	s.t.Helper()
	out := s.Run(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o -path /var/log -o -path /var/tmp -o -path '*/containers/storage' \
		-o -path '*/containers/cache' -o -path /var/lib/systemd -o -path /var/cache -o -path '*/appliance' -o -path '*/.local/share/containers' \) -prune -o -printf '%y %m %u:%g %p %l\n' | sort
		find /var /home /root -xdev \( -path /var/log -o -path /var/tmp -o -path '*/containers/storage' -o -path '*/containers/cache' -o -path /var/lib/systemd/timers -o -path /var/lib/systemd/random-seed \
		-o -path /var/cache -o -path '*/appliance' -o -path '*/.local/share/containers' \) -prune -o -printf '%y %m %u:%g %p %l\n' | sort
		ls -A /var/tmp /var/lib/systemd/linger; ss -Hltn | awk '{print "listen", $4}' | sort; systemctl list-units --all --plain --no-legend 'quay*' 'podman.socket' | awk '{print $1,$3,$4}'`)
	podman := `podman images -q --no-trunc; podman ps -aq; podman volume ls -q; podman secret ls -q; podman network ls -q`
	out += s.Run(podman)
	if s.User != "root" {
		out += s.RunAs(s.User, podman+"; systemctl --user list-units --all --plain --no-legend 'quay*' podman.socket | awk '{print $1,$3,$4}'")
	}
	return out
}

func diff(a, b string) string {
	in := map[string]int{}
	for _, l := range strings.Split(a, "\n") {
		in[l]--
	}
	for _, l := range strings.Split(b, "\n") {
		in[l]++
	}
	var out []string
	for l, n := range in {
		switch {
		case n > 0:
			out = append(out, "+ "+l)
		case n < 0:
			out = append(out, "- "+l)
		}
	}
	return strings.Join(out, "\n")
}

// clientsOnTheMachine pushes and pulls by podman and skopeo over verified TLS, with no network but loopback.
func (s *site) clientsOnTheMachine(in installed) {
	s.t.Helper()
	s.RunAs(s.User, fmt.Sprintf(`set -e
		mkdir -p ~/certs; cp %[1]s ~/certs/ca.crt
		podman login --cert-dir ~/certs --username %[2]s --password-stdin %[3]s <%[4]s
		mkdir -p ~/ctx; echo hello >~/ctx/hello; tar -C ~/ctx -cf ~/layer.tar hello
		podman import -q ~/layer.tar localhost/probe:1
		podman push -q --cert-dir ~/certs localhost/probe:1 %[3]s/%[2]s/podman:1
		podman rmi -f localhost/probe:1 >/dev/null
		podman pull -q --cert-dir ~/certs %[3]s/%[2]s/podman:1
		skopeo copy -q --src-cert-dir ~/certs --dest-cert-dir ~/certs docker://%[3]s/%[2]s/podman:1 docker://%[3]s/%[2]s/skopeo:1
		skopeo copy -q --src-cert-dir ~/certs docker://%[3]s/%[2]s/skopeo:1 dir:$HOME/pulled
		test -s ~/pulled/manifest.json
		skopeo list-tags --cert-dir ~/certs docker://%[3]s/%[2]s/skopeo | grep -q '"1"'
		podman rmi -f %[3]s/%[2]s/podman:1 >/dev/null
		podman logout %[3]s; rm -rf ~/certs ~/ctx ~/layer.tar ~/pulled ~/.config/containers/auth.json /run/containers/0/auth.json`,
		in.CAFile, in.User, s.addr(), in.PasswordFile))
}

// clientsOverTheNetwork pushes and pulls by crane and oras from this host, over verified TLS.
func (s *site) clientsOverTheNetwork(in installed) {
	s.t.Helper()
	dir := s.t.TempDir()
	ca, config := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "docker")
	if err := os.WriteFile(ca, []byte(s.RunAs(s.User, "cat "+in.CAFile)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	// The name resolves for this one process tree: a mount namespace with its own /etc/hosts.
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"+s.IP+" "+s.host()+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file.txt"), []byte("hello\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: 2}), func() error { _, err := tw.Write([]byte("a\n")); return err }(), tw.Close()); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "layer.tar"), layer.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "unshare", "--mount", "bash", "-euo", "pipefail", "-c", `mount --bind "$HOSTS" /etc/hosts; cd "$DIR"
		crane auth login -u "$QUAY_USER" --password-stdin "$ADDR"
		crane append -f layer.tar -t "$ADDR/$QUAY_USER/crane:1" --oci-empty-base >/dev/null
		crane pull "$ADDR/$QUAY_USER/crane:1" crane.tar; crane validate --remote "$ADDR/$QUAY_USER/crane:1" >&2
		crane ls "$ADDR/$QUAY_USER/crane" | grep -qx 1
		crane copy "$ADDR/$QUAY_USER/crane:1" "$ADDR/$QUAY_USER/copied:1" 2>/dev/null
		crane delete "$ADDR/$QUAY_USER/copied:1"
		oras push --registry-config docker/config.json --ca-file "$CA" "$ADDR/$QUAY_USER/oras:1" file.txt:text/plain >/dev/null
		mkdir out; oras pull --registry-config docker/config.json --ca-file "$CA" -o out "$ADDR/$QUAY_USER/oras:1" >/dev/null
		cmp file.txt out/file.txt`)
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+ca, "DOCKER_CONFIG="+config, "CA="+ca, "HOSTS="+hosts, "DIR="+dir, "ADDR="+s.addr(), "QUAY_USER="+in.User)
	cmd.Stdin = strings.NewReader(s.password(in))
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("crane and oras: %v\n%s\n%s", err, out, s.journal())
	}
}

// footprint prints the memory that idle daemons hold (PSS) and fails beyond the promised limits.
func (s *site) footprint() {
	s.t.Helper()
	out := s.Run(`for n in registryd edge workers postgres; do
		echo $n $(for p in $(pgrep -x $n); do awk '/^Pss:/{print $2}' /proc/$p/smaps_rollup; done | awk '{s+=$1} END {print s+0}'); done`)
	ours, all := 0, 0
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		var n string
		var kb int
		if _, err := fmt.Sscan(l, &n, &kb); err != nil || kb == 0 {
			s.t.Fatalf("memory of the daemons: %q %v", l, err)
		}
		if all += kb; n != "postgres" {
			ours += kb
		}
	}
	s.t.Logf("idle PSS: our daemons %.1f MB, with PostgreSQL %.1f MB\n%s", float64(ours)/1024, float64(all)/1024, out)
	if ours > 60<<10 || all > 100<<10 {
		s.t.Errorf("idle PSS: ours %d KiB (limit 60 MiB), all %d KiB (limit 100 MiB)", ours, all)
	}
}

// secretsStaySecret greps process tables, the journal and the units for the secrets of the installation.
func (s *site) secretsStaySecret(in installed) {
	s.t.Helper()
	dir := filepath.Dir(in.PasswordFile)
	r := s.Exec("root", fmt.Sprintf(`cd %s; ls -la; { cat admin-password; sed -nE 's/^(SECRET_KEY|DATABASE_SECRET_KEY): *//p' config.yaml | tr -d "'\""; } | awk 'length($0) > 7' >/run/secrets.list
		test $(wc -l </run/secrets.list) = 3 || { echo "expected 3 secrets"; exit 3; }
		for f in admin-password config.yaml ssl.key ca.key; do test $(stat -c %%a $f) = 600 || { echo "$f is not 0600"; exit 4; }; done
		cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -Ff /run/secrets.list && { echo "in argv or environment"; exit 5; }
		journalctl --no-pager -o cat | grep -Ff /run/secrets.list && { echo "in the journal"; exit 6; }
		grep -rFf /run/secrets.list /etc/containers /etc/systemd /run/systemd %s/.config/containers %s/.config/systemd 2>/dev/null && { echo "in units"; exit 7; }
		rm /run/secrets.list`, dir, s.Home, s.Home), nil)
	if r.Code != 0 {
		s.t.Errorf("secrets: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// TestRestartUnderLoad restarts the edge and registryd under 200 pulls a second: no request fails.
func TestRestartUnderLoad(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		s := newSite(t, user, vm.Options{})
		in := s.install()
		tag, img := s.push(in, "load")
		l := s.load(in, tag, img)
		for _, component := range []string{"edge", "registryd", "edge"} {
			if r := s.quayctl("restart " + component); r.Code != 0 {
				t.Errorf("restart %s exited %d\n%s%s", component, r.Code, r.Stdout, r.Stderr)
			}
		}
		systemctl := "systemctl"
		if user != "root" {
			systemctl += " --user"
		}
		for _, unit := range []string{"quay-registryd.service", "quay-edge-a.service quay-edge-b.service"} {
			s.RunAs(user, systemctl+" try-restart "+unit)
		}
		total, failed, slowest := l.stop()
		t.Logf("%d pulls, %d failed, slowest %v", total, failed, slowest)
		if failed > 0 || total < 500 {
			t.Errorf("%d of %d pulls failed: %v", failed, total, l.first.Load())
		}
	})
}

// load pulls manifests and blobs in turn, 200 a second, on kept and on new connections.
type load struct {
	cancel        context.CancelFunc
	done          chan struct{}
	total, failed atomic.Int64
	slowest       atomic.Int64
	first         atomic.Value
}

func (s *site) load(in installed, tag name.Tag, img v1.Image) *load {
	s.t.Helper()
	tr := s.transport(in)
	tr.MaxIdleConnsPerHost = 64
	once := s.transport(in)
	once.DisableKeepAlives = true
	token := s.token(in, tag, tr)
	layers, err := img.Layers()
	if err != nil {
		s.t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	repo := "https://" + s.addr() + "/v2/" + tag.RepositoryStr()
	urls := []string{repo + "/manifests/" + tag.TagStr(), repo + "/blobs/" + digest.String()}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
			if i%3 == 0 {
				client.Transport = once
			}
			wg.Go(func() {
				start := time.Now()
				err := get(client, urls[i%2], token)
				if err != nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, err)
				}
				l.total.Add(1)
				d := int64(time.Since(start))
				for {
					old := l.slowest.Load()
					if d <= old || l.slowest.CompareAndSwap(old, d) {
						return
					}
				}
			})
		}
	}()
	return l
}

func get(c *http.Client, url, token string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return nil
}

func (s *site) token(in installed, tag name.Tag, tr http.RoundTripper) string {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://%s/v2/auth?service=%s&scope=repository:%s:pull", s.addr(), s.addr(), tag.RepositoryStr()), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth(in.User, s.password(in))
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var tok struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&tok); err != nil || tok.Token == "" {
		s.t.Fatalf("token: %s %v", resp.Status, err)
	}
	return tok.Token
}

func (l *load) stop() (total, failed int64, slowest time.Duration) {
	l.cancel()
	<-l.done
	return l.total.Load(), l.failed.Load(), time.Duration(l.slowest.Load())
}
