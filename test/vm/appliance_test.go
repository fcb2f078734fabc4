//go:build machine

package vm_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	vm "github.com/quayctl/quayctl/test/vm"
)

// Limits that the appliance promises.
const (
	bundleLimit = 60 << 20 // bytes
	ourLimit    = 60 << 10 // KiB of memory, idle: the daemons
	allLimit    = 100 << 10
	// firstAnswerGoal is how soon a registryd that was started shall answer. It is printed; what fails the test is ten
	// times as much, as other machines run beside this one.
	firstAnswerGoal = 50 * time.Millisecond
	installGoal     = 8.0 // seconds, likewise
)

// TestLife is a whole life without any network: install, use by every client, reboot, power cut, uninstall to nothing.
func TestLife(t *testing.T) {
	t.Parallel()
	forUsers(t, func(t *testing.T, user string) {
		s := newSite(t, user, vm.Options{})
		before := s.inventory()
		s.Network(false)
		in := s.install()
		t.Logf("install, proven healthy: %.1f s (goal: %.0f s) %v", in.Seconds, installGoal, in.Steps)
		s.wantHealthy()
		s.clientsOnTheMachine(in)
		s.Network(true)
		s.clientsOverTheNetwork(in)
		tag, img := s.push(in, "kept")
		s.hardened(in)
		s.secretsStaySecret(in)
		s.commands(in)
		s.want(s.quayctl(s.installArgs()), exitAlreadyInstalled, "quayctl uninstall", "quayctl status")

		s.Reboot()
		s.awaitHealthy()
		s.wantPull(in, tag, img)
		s.Cut()
		s.On()
		s.awaitHealthy()
		s.wantPull(in, tag, img)

		s.want(s.quayctl("uninstall --yes"), 0)
		s.want(s.quayctl("status"), exitNotInstalled, "quayctl install")
		// What was kept can be installed again, with everything in it.
		again := s.install()
		if again.PasswordFile != in.PasswordFile || !again.Attached {
			t.Errorf("password file %s, was %s; attached %t", again.PasswordFile, in.PasswordFile, again.Attached)
		}
		s.wantPull(again, tag, img)
		s.want(s.quayctl("uninstall --yes --delete-data"), 0)
		s.wantSame(before, "uninstall")
	})
}

// TestFigures measures what the appliance promises of a machine that does nothing else.
func TestFigures(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(bundlePath(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("bundle: %.1f MiB", float64(info.Size())/(1<<20))
	if info.Size() > bundleLimit {
		t.Errorf("the bundle has %d bytes, more than %d", info.Size(), bundleLimit)
	}
	s := newSite(t, "root", vm.Options{})
	in := s.install()
	s.firstAnswer()
	s.push(in, "figures")
	s.footprint()
}

// clientsOnTheMachine pushes and pulls by podman and skopeo over verified TLS, with no network but loopback. The clients
// of this machine trust the appliance without being told.
func (s *site) clientsOnTheMachine(in installed) {
	s.t.Helper()
	s.RunAs(s.User, fmt.Sprintf(`set -e
		podman login --username %[1]s --password-stdin %[2]s <%[3]s
		mkdir ~/ctx; echo hello >~/ctx/hello; tar -C ~/ctx -cf ~/layer.tar hello
		podman import -q ~/layer.tar localhost/probe:1
		podman push -q localhost/probe:1 %[2]s/%[1]s/podman:1
		podman rmi -f localhost/probe:1 >/dev/null
		podman pull -q %[2]s/%[1]s/podman:1
		skopeo copy -q docker://%[2]s/%[1]s/podman:1 docker://%[2]s/%[1]s/skopeo:1
		skopeo copy -q docker://%[2]s/%[1]s/skopeo:1 dir:$HOME/pulled
		test -s ~/pulled/manifest.json
		skopeo list-tags docker://%[2]s/%[1]s/skopeo | grep -q '"1"'
		podman rmi -f %[2]s/%[1]s/podman:1 >/dev/null
		podman logout %[2]s; rm -rf ~/ctx ~/layer.tar ~/pulled`, in.User, s.addr(), in.PasswordFile))
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
	s.awaitIdleDatabase()
	out := s.Run(`for n in registryd edge workers postgres; do
		echo $n $(for p in $(pgrep -x $n); do awk '/^Pss:/{print $2}' /proc/$p/smaps_rollup; done | awk '{s+=$1} END {print s+0}'); done`)
	ours, all := 0, 0
	for l := range strings.Lines(out) {
		var n string
		var kb int
		if _, err := fmt.Sscan(l, &n, &kb); err != nil || kb == 0 {
			s.t.Fatalf("memory of the daemons: %q %v", l, err)
		}
		if all += kb; n != "postgres" {
			ours += kb
		}
	}
	s.t.Logf("idle PSS: our daemons %.1f MiB, with PostgreSQL %.1f MiB; KiB: %s", float64(ours)/1024, float64(all)/1024, strings.ReplaceAll(strings.TrimSpace(out), "\n", ", "))
	if ours > ourLimit || all > allLimit {
		s.t.Errorf("idle PSS: ours %d KiB (limit %d), all %d KiB (limit %d)", ours, ourLimit, all, allLimit)
	}
}

// firstAnswer starts a second registryd in the surroundings of the first, several times, and measures from the start of
// the process to its first answer over its socket.
func (s *site) firstAnswer() {
	s.t.Helper()
	pids := s.processes("registryd")
	if len(pids) != 1 {
		s.t.Fatalf("registryd runs as %v", pids)
	}
	socket := s.Path(s.dataDir() + "/run/measured.sock")
	var took []time.Duration
	for range 7 {
		cmd := exec.CommandContext(s.t.Context(), "nsenter", "--target="+strconv.Itoa(pids[0]), "--mount", "--net", "--ipc", "--setuid=65532", "--setgid=65532",
			"/registryd", "--config-dir=/conf/stack", "--listen=unix:/run/quay/measured.sock", "--admin=unix:/run/quay/measured-admin.sock")
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		cmd.Env = []string{}
		start := time.Now()
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		client := overSocket(socket)
		for tick := time.NewTicker(200 * time.Microsecond); ; <-tick.C {
			resp, err := client.Get("http://registryd/v2/")
			if err == nil {
				resp.Body.Close()
				break
			}
			if time.Since(start) > 30*time.Second {
				cmd.Process.Kill() //nolint:errcheck // the test fails anyway
				s.t.Fatalf("registryd does not answer: %v\n%s", err, log.String())
			}
		}
		took = append(took, time.Since(start))
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			s.t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("the measured registryd ended with %v\n%s", err, log.String())
		}
	}
	slices.Sort(took)
	median := took[len(took)/2]
	s.t.Logf("registryd, start to first answer: median %v (goal: %v) of %v", median.Round(time.Millisecond), firstAnswerGoal, took)
	if median > 10*firstAnswerGoal {
		s.t.Errorf("registryd takes %v from start to first answer", median)
	}
}

// processes gives this host's numbers of the machine's processes of a name.
func (s *site) processes(name string) []int {
	s.t.Helper()
	matches, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		s.t.Fatal(err)
	}
	var pids []int
	for _, m := range matches {
		dir := filepath.Dir(m)
		comm, err := os.ReadFile(m)
		if err != nil || strings.TrimSpace(string(comm)) != name {
			continue // it may have ended meanwhile
		}
		cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(cgroup), "/"+s.Name+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			s.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// awaitIdleDatabase waits until the pools have let go of the connections that the work before needed. The one of the
// workers' clock-work stays.
func (s *site) awaitIdleDatabase() {
	s.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		var open []unix.PollFd
		for _, pid := range s.processes("postgres") {
			title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || !strings.HasPrefix(string(title), "postgres: quay quay") {
				continue
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			defer unix.Close(fd) //nolint:errcheck // it was only watched
			open = append(open, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		if len(open) <= 1 {
			return
		}
		if n, err := unix.Poll(open, int(time.Until(deadline).Milliseconds())); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			s.t.Fatalf("%d connections to the database stay open: %v", len(open), err)
		}
	}
}

// overSocket returns a client of the daemon at a Unix socket.
func overSocket(path string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// hardened asks Podman, the kernel and the daemons themselves how they are confined.
func (s *site) hardened(in installed) {
	s.t.Helper()
	var containers []struct {
		Name          string
		EffectiveCaps []string
		BoundingCaps  []string
		State         struct{ Pid int }
		Config        struct{ User string }
		HostConfig    struct {
			ReadonlyRootfs, Privileged bool
			NetworkMode                string
			SecurityOpt, CapAdd        []string
		}
		Mounts []struct {
			Type, Source, Destination string
			RW                        bool
		}
	}
	s.decode(s.RunAs(s.User, "podman inspect $(podman ps -q)"), &containers)
	if len(containers) != 4 {
		s.t.Errorf("%d containers run, want 4", len(containers))
	}
	for _, c := range containers {
		h := c.HostConfig
		if !h.ReadonlyRootfs || h.Privileged || h.NetworkMode != "none" || len(h.CapAdd)+len(c.EffectiveCaps)+len(c.BoundingCaps) > 0 ||
			!slices.Contains(h.SecurityOpt, "no-new-privileges") || c.Config.User == "" || strings.HasPrefix(c.Config.User, "0") {
			s.t.Errorf("container %s is not confined: %+v", c.Name, c)
		}
		for _, m := range c.Mounts {
			if m.Type != "bind" || !strings.HasPrefix(m.Source, s.dataDir()+"/") {
				s.t.Errorf("container %s mounts %s on %s", c.Name, m.Source, m.Destination)
			}
		}
		kernel := s.Run(fmt.Sprintf("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/%d/status", c.State.Pid))
		for l := range strings.Lines(kernel) {
			key, value, _ := strings.Cut(strings.TrimSpace(l), ":\t")
			want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2"}[key]
			if strings.HasPrefix(key, "Cap") {
				want = "0000000000000000"
			}
			if value != want {
				s.t.Errorf("container %s: %s is %s, want %s", c.Name, key, value, want)
			}
		}
	}
	for _, daemon := range []string{"registryd", "workers", "edge-a"} {
		resp, err := overSocket(s.Path(s.dataDir() + "/run/" + daemon + "-admin.sock")).Get("http://daemon/version")
		if err != nil {
			s.t.Fatal(err)
		}
		var v struct {
			Version string `json:"version"`
			FIPS    bool   `json:"fips"`
		}
		err = json.NewDecoder(resp.Body).Decode(&v)
		resp.Body.Close()
		if err != nil || !v.FIPS || v.Version != in.Version {
			s.t.Errorf("%s says %+v of itself, want version %s with the FIPS 140-3 module: %v", daemon, v, in.Version, err)
		}
	}
	// The only way in is the edge's socket.
	if got := s.Run("ss -Hltnu | awk '{print $1, $5}' | sort -u"); got != "tcp *:8443\n" {
		s.t.Errorf("listeners:\n%s", got)
	}
}

// secretsStaySecret looks for the secrets of the installation in process tables, the journal and the units.
func (s *site) secretsStaySecret(in installed) {
	s.t.Helper()
	r := s.Exec("root", fmt.Sprintf(`cd %[1]s || exit 1
		{ cat admin-password; sed -nE 's/^(SECRET_KEY|DATABASE_SECRET_KEY|PAGE_TOKEN_KEY): *//p' config.yaml | tr -d "'\""; for k in ssl.key ca.key %[2]s/keys/quay.pem; do sed -n 2p $k; done; } | awk 'length($0) > 7' >/run/secrets.list
		test $(wc -l </run/secrets.list) = 7 || { echo "expected 7 secrets"; exit 3; }
		for f in admin-password config.yaml ssl.key ca.key %[2]s/keys/quay.pem; do test $(stat -c %%a $f) = 600 || { echo "$f is not 0600"; exit 4; }; done
		cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -Ff /run/secrets.list && { echo "in argv or environment"; exit 5; }
		journalctl --no-pager --all -o cat | grep -Ff /run/secrets.list && { echo "in the journal"; exit 6; }
		grep -rFf /run/secrets.list /etc/containers /etc/systemd /run/systemd %[3]s/.config/containers %[3]s/.config/systemd %[2]s/releases %[2]s/journal.jsonl %[2]s/state.json 2>/dev/null && { echo "in units or records"; exit 7; }
		rm /run/secrets.list`, filepath.Dir(in.PasswordFile), s.dataDir(), s.Home), nil)
	if r.Code != 0 {
		s.t.Errorf("secrets: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// commands runs every other command of quayctl once.
func (s *site) commands(in installed) {
	s.t.Helper()
	var version struct {
		Version string `json:"version"`
		FIPS    struct {
			Enabled bool `json:"enabled"`
		} `json:"fips140"`
	}
	if s.object(&version, "version"); version.Version != in.Version || !version.FIPS.Enabled {
		s.t.Errorf("version: %+v", version)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		s.want(s.quayctl("completion "+shell), 0, "quayctl")
	}
	s.want(s.Exec(s.User, "cd ~/appliance && bash -c '. <(./quayctl completion bash) && complete -p quayctl'", nil), 0, "quayctl")
	s.want(s.quayctl("logs"), 0, "registryd", "edge", "workers", "database system is ready")
	s.want(s.quayctl("logs registryd --lines 1"), 0, "registryd")
	s.want(s.quayctl("logs nonsense"), exitUsage, "registryd")
	s.want(s.quayctl("config validate "+filepath.Join(filepath.Dir(in.PasswordFile), "config.yaml")), 0)

	// Users, and that their passwords are theirs.
	var user struct {
		PasswordFile string `json:"password_file"`
	}
	login := func(file string) vm.Result {
		s.t.Helper()
		return s.Exec(s.User, fmt.Sprintf("podman login --authfile /tmp/auth.json -u alice --password-stdin %s <%s; code=$?; rm -f /tmp/auth.json; exit $code", s.addr(), file), nil)
	}
	s.object(&user, "user create alice --email alice@example.com")
	s.want(login(user.PasswordFile), 0)
	s.RunAs(s.User, "cp "+user.PasswordFile+" /tmp/old")
	s.object(&user, "user reset-password alice")
	s.want(login(user.PasswordFile), 0)
	if r := login("/tmp/old"); r.Code == 0 {
		s.t.Error("the old password is still valid after reset-password")
	}
	s.RunAs(s.User, "rm /tmp/old")
	s.want(s.quayctl("user list"), 0, "alice@example.com", in.User)
	s.want(s.quayctl("user create alice --email alice@example.com"), exitUsage, "alice")

	// status tells what is wrong, goes on telling until Ctrl-C, and knows when all is well again.
	s.RunAs(s.User, s.systemctl()+" stop quay-workers.service")
	s.want(s.quayctl("status"), exitUnhealthy, "workers")
	s.want(s.quayctl("status --output json"), exitUnhealthy, `"healthy": false`, "workers")
	s.RunAs(s.User, s.systemctl()+" start quay-workers.service")
	if s.User != "root" {
		s.RunAs(s.User, "loginctl disable-linger")
		s.want(s.quayctl("status"), exitUnhealthy, "does not start at boot", "enable-linger")
		s.RunAs(s.User, "loginctl enable-linger")
	}
	var st status
	if s.object(&st, "status"); st.Schema != "quayctl/status/v1" || !st.Healthy || len(st.Problems) > 0 || len(st.Components) != 5 || st.Certificate.Days < 300 || st.Database.Revision == "" || st.Disk.Free == 0 || st.LastOperation.Name != "install" {
		s.t.Errorf("status: %+v", st)
	}
	for _, c := range st.Components {
		if !c.Healthy || c.Digest == "" || c.Name != "migrate" && c.Runs != c.ID {
			s.t.Errorf("status of a component: %+v", c)
		}
	}
	s.want(s.Exec(s.User, `cd ~/appliance; set -m; mkfifo /tmp/watch
		./quayctl status --watch --interval 50ms >/tmp/watch & exec 3</tmp/watch
		for n in 1 2 3; do while read -ru 3 line; do [[ $line != healthy* ]] || break; done; done
		echo "$line"; cat <&3 >/dev/null & kill -INT %1; wait %1; code=$?; rm /tmp/watch; exit $code`, nil), exitInterrupted, "healthy")
}
