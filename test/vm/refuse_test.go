//go:build machine

package vm_test

import (
	"fmt"
	"strings"
	"testing"

	vm "github.com/quayctl/quayctl/test/vm"
)

// refused is a bad situation: install must say what, why and what to do, and change nothing. When it is undone, the machine
// is as it was at first.
type refused struct {
	name    string
	prepare func(s *site)
	undo    func(s *site)
	args    string   // replaces the usual arguments when not empty; HOST is the host name
	code    int      // the exit code
	say     []string // what the message must hold: the thing, the cause, the remedy
}

const (
	given = "install --profile=registry-only --hostname=HOST --non-interactive --yes"
	own   = given + " --ssl-cert /root/t.crt --ssl-key /root/t.key"
	// tampered installs from the copy of the bundle that a situation has changed.
	tampered = given + " --bundle ~/tampered"
)

// copyBundle makes ~/tampered, a copy of the bundle for a situation to change by a shell command.
func copyBundle(change string) func(*site) {
	return func(s *site) {
		s.Run("rm -rf ~/tampered && cp -a ~/appliance ~/tampered && cd ~/tampered && " + change)
	}
}

func run(command string) func(*site) { return func(s *site) { s.Run(command) } }

// certificate makes /root/t.crt and /root/t.key for a name.
func certificate(name, validity string) func(*site) {
	return func(s *site) {
		name := strings.ReplaceAll(name, "HOST", s.host())
		s.Run(fmt.Sprintf("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=%[1]s -addext subjectAltName=DNS:%[1]s %[2]s -keyout /root/t.key -out /root/t.crt 2>/dev/null", name, validity))
	}
}

const largeBlob = "$(find oci/blobs -type f -size +1M | head -1)"

// asRoot are the situations of a machine on which root installs.
var asRoot = []refused{
	{
		name: "port taken", code: exitPreflight, say: []string{"port 8443", "perl (process ", "--port"},
		prepare: func(s *site) {
			s.Run(`systemd-run --quiet --unit=squatter -p Type=notify perl -MIO::Socket::INET -MIO::Socket::UNIX -e '
				$s = IO::Socket::INET->new(LocalPort => 8443, Listen => 1, ReuseAddr => 1) or die;
				$n = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}) or die; $n->send("READY=1"); sleep'`)
		},
		undo: run("systemctl stop squatter"),
	},
	{
		name: "too little disk for the data", code: exitPreflight, say: []string{"data directory /var/lib/quay", "free, need", "--data-dir"},
		prepare: func(s *site) { s.Disk("/var/lib/quay", "40M"); s.Run("rmdir /var/lib/quay/lost+found") },
		undo:    func(s *site) { s.Undisk("/var/lib/quay"); s.Run("rmdir /var/lib/quay") },
	},
	{
		name: "full disk", code: exitPreflight, say: []string{"Podman's storage", "/var/tmp", "free, need"},
		prepare: func(s *site) { s.Fill("/var", 20<<20) }, undo: run("rm /var/.fill"),
	},
	{
		name: "no Podman", code: exitPreflight, say: []string{"Podman is not installed", "apt-get install podman"},
		prepare: run("mv /usr/bin/podman /usr/bin/away"), undo: run("mv /usr/bin/away /usr/bin/podman"),
	},
	{
		name: "Podman without its generator", code: exitPreflight, say: []string{"quadlet", "generator", "podman"},
		prepare: run("cd /usr/lib/systemd/system-generators && mv podman-system-generator /usr/lib/away"),
		undo:    run("mv /usr/lib/away /usr/lib/systemd/system-generators/podman-system-generator"),
	},
	{
		name: "hostname does not resolve", code: exitPreflight, say: []string{"nowhere.invalid does not resolve", "/etc/hosts", "--hostname"},
		args: "install --profile=registry-only --hostname=nowhere.invalid --non-interactive --yes",
	},
	{
		name: "certificate for another name", code: exitPreflight, say: []string{"other.example.com", "HOST"}, args: own,
		prepare: certificate("other.example.com", "-days 30"),
	},
	{
		name: "certificate and key do not match", code: exitPreflight, say: []string{"/root/t.key", "/root/t.crt", "not"}, args: own,
		prepare: func(s *site) {
			certificate("HOST", "-days 30")(s)
			s.Run("openssl ecparam -genkey -name prime256v1 -noout -out /root/t.key")
		},
	},
	{
		name: "certificate expired", code: exitPreflight, say: []string{"/root/t.crt", "expired", "2020"}, args: own,
		prepare: certificate("HOST", "-not_before 20200101000000Z -not_after 20200201000000Z"),
	},
	{name: "one flag of two", code: exitUsage, say: []string{"--ssl-key"}, args: given + " --ssl-cert /root/t.crt"},
	{name: "unknown profile", code: exitUsage, say: []string{"nonsense", "registry-only"}, args: "install --profile=nonsense --hostname=HOST --non-interactive --yes"},
	{name: "profile that the bundle lacks", code: exitPreflight, say: []string{"full", "registry-only"}, args: "install --profile=full --hostname=HOST --non-interactive --yes"},
	{name: "unknown flag", code: exitUsage, say: []string{"--nonsense"}, args: given + " --nonsense"},
	{name: "no bundle", code: exitBundle, say: []string{"/nowhere"}, args: given + " --bundle /nowhere"},
	{name: "no manifest", code: exitBundle, say: []string{"manifest.json"}, args: tampered, prepare: copyBundle("rm manifest.json")},
	{name: "bundle cut short", code: exitBundle, say: []string{"oci/blobs/"}, args: tampered, prepare: copyBundle("truncate -s -1 " + largeBlob)},
	{name: "member missing", code: exitBundle, say: []string{"oci/blobs/"}, args: tampered, prepare: copyBundle("rm " + largeBlob)},
	{name: "bundle file cut short", code: exitBundle, say: []string{"cut.tar"}, args: given + " --bundle ~/cut.tar", prepare: run("cd ~/appliance && tar -cf - * 2>/dev/null | head -c 20000000 >~/cut.tar")},
	{name: "signed by another key", code: exitBundle, say: []string{"not signed by the expected key", "--key"}, args: tampered, prepare: copyBundle(sign)},
	{
		name: "wrong architecture", code: exitBundle, say: []string{"arm64", "amd64"}, args: tampered + " --key ~/sign.pub",
		prepare: copyBundle(`sed -i 's/"arch": *"amd64"/"arch": "arm64"/' manifest.json; ` + sign),
	},
}

// sign signs the manifest of the bundle in the working directory with a new key.
const sign = `openssl ecparam -genkey -name prime256v1 -noout -out ~/sign.key && openssl ec -in ~/sign.key -pubout -out ~/sign.pub 2>/dev/null && { openssl dgst -sha256 -sign ~/sign.key manifest.json | base64 -w0; echo; } >manifest.json.sig`

// rootless are the situations of an ordinary user.
var rootless = []refused{
	{
		name: "no subordinate ids", code: exitPreflight, say: []string{"quay", "/etc/subuid", "usermod --add-subuids"},
		prepare: run("cp -a /etc/subuid /etc/subgid /root; sed -i /^quay:/d /etc/subuid /etc/subgid"), undo: run("cd /root && mv subuid subgid /etc"),
	},
	{
		name: "privileged port", code: exitPreflight, say: []string{"443", "ip_unprivileged_port_start"},
		args: given + " --port=443",
	},
	{
		name: "port taken by another user", code: exitPreflight, say: []string{"port 8443", "user nobody", "--port"},
		prepare: run(`systemd-run --quiet --unit=squatter --uid=nobody -p Type=notify perl -MIO::Socket::INET -MIO::Socket::UNIX -e '
				$s = IO::Socket::INET->new(LocalPort => 8443, Listen => 1, ReuseAddr => 1) or die;
				$n = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}) or die; $n->send("READY=1"); sleep'`),
		undo: run("systemctl stop squatter"),
	},
	{
		name: "no linger", code: exitPreflight, say: []string{"polkit", "logs out", "sudo loginctl enable-linger quay"},
		prepare: run("mv /usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service /root"),
		undo:    run("mv /root/org.freedesktop.PolicyKit1.service /usr/share/dbus-1/system-services"),
	},
	{
		name: "no session", code: exitPreflight, say: []string{"XDG_RUNTIME_DIR", "enable-linger"},
		args: "version >/dev/null && env -u XDG_RUNTIME_DIR ./quayctl " + given,
	},
	{
		name: "data directory of root's", code: exitPreflight, say: []string{"/srv/quay", "--data-dir"}, args: given + " --data-dir /srv/quay",
	},
}

// oldPodman are the situations of a machine whose Podman knows no quadlets.
var oldPodman = []refused{
	{name: "Podman too old", code: exitPreflight, say: []string{"Podman 4.3.1 is too old", "4.9"}},
}

// TestRefuse walks the bad situations, one after the other on machines that stay as they were.
func TestRefuse(t *testing.T) {
	t.Parallel()
	for _, m := range []struct {
		name, user string
		options    vm.Options
		situations []refused
	}{
		{"root", "root", vm.Options{}, asRoot},
		{"rootless", "quay", vm.Options{}, rootless},
		{"bookworm", "root", vm.Options{Suite: "bookworm"}, oldPodman},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			boot := newSite(t, m.user, m.options)
			before := boot.inventory()
			for _, c := range m.situations {
				t.Run(c.name, func(t *testing.T) {
					s := &site{boot.For(t), t, boot.User, boot.Home}
					s.refuses(c, before)
				})
			}
		})
	}
}

func (s *site) refuses(c refused, before string) {
	s.t.Helper()
	if c.prepare != nil {
		c.prepare(s)
	}
	args := c.args
	if args == "" {
		args = given
	}
	args = strings.ReplaceAll(args, "HOST", s.host())
	var say []string
	for _, w := range c.say {
		say = append(say, strings.ReplaceAll(w, "HOST", s.host()))
	}
	s.want(s.quayctl(args), c.code, say...)
	// The same as JSON: one object that tells the error, its cause and what to do.
	r := s.quayctl(args + " --output json")
	var e struct {
		Error struct {
			ExitCode int    `json:"exit_code"`
			Message  string `json:"message"`
			Cause    string `json:"cause"`
		} `json:"error"`
	}
	s.decode(r.Stdout, &e)
	if r.Code != c.code || e.Error.ExitCode != c.code || e.Error.Message == "" || e.Error.Cause == "" {
		s.t.Errorf("--output json: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if c.undo != nil {
		c.undo(s)
	}
	s.Run("cd && rm -rf tampered cut.tar t.crt t.key sign.key sign.pub")
	s.wantSame(before, "a refused install")
}

// TestTampered changes the first, the last and a random byte of every member of the bundle: install refuses each, and nothing else happens.
func TestTampered(t *testing.T) {
	t.Parallel()
	s := newSite(t, "root", vm.Options{})
	before := s.inventory()
	r := s.Exec("root", `cp -a ~/appliance /tmp/tampered; cd /tmp/tampered
		flip() { perl -e 'open my $f, "+<", $ARGV[0] or die; seek $f, $ARGV[1], 0; read $f, my $b, 1; seek $f, $ARGV[1], 0; print $f chr(ord($b) ^ 255); close $f or die' "$1" "$2"; }
		n=0
		while read -r member; do
			size=$(stat -c %s "$member")
			for at in 0 $((size - 1)) $((SRANDOM % size)); do
				flip "$member" $at
				said=$(~/appliance/quayctl `+strings.ReplaceAll(given, "HOST", s.host())+` --bundle /tmp/tampered 2>&1); code=$?
				[ $code = 4 ] || echo "byte $at of $member: exit $code: $said"
				[[ $said == *"$member"* || $said == *signed* ]] || echo "byte $at of $member is not named: $said"
				flip "$member" $at; n=$((n + 1))
			done
		done < <(find . -type f -printf '%P\n')
		[ $n -gt 60 ] || echo "only $n bytes were changed"
		~/appliance/quayctl bundle verify /tmp/tampered >/dev/null || echo "the bundle is not what it was"
		rm -rf /tmp/tampered`, nil)
	if r.Code != 0 || r.Stdout != "" {
		t.Errorf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	s.wantSame(before, "a refused install")
}
