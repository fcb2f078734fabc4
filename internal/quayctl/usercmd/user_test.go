package usercmd

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// machine is an installation whose database is that of a test.
type machine struct {
	t       *testing.T
	db      *pgtest.DB
	home    string
	in, out *bytes.Buffer
	errOut  *bytes.Buffer
	io      *iostreams.IOStreams
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, db: pgtest.New(t), home: t.TempDir()}
	m.io, m.in, m.out, m.errOut = iostreams.Test()
	return m
}

// run runs `quayctl user ARGS`. What it wrote before is forgotten.
func (m *machine) run(args ...string) error {
	m.t.Helper()
	m.out.Reset()
	m.errOut.Reset()
	f := &cli.Factory{
		IO: m.io, Clock: clock.NewFake(now), UID: 1000, Log: slog.New(slog.DiscardHandler),
		Getenv: func(k string) string { return map[string]string{"HOME": m.home}[k] },
	}
	cmd := newCmd(f, func(ctx context.Context, f *cli.Factory) (*metadata.DB, error) {
		return metadata.Open(ctx, metadata.Options{WriterDSN: m.db.DSN, MaxWriter: 1, AppName: "quayctl", Clock: f.Clock, Logger: f.Log})
	})
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return cmd.ExecuteContext(m.t.Context())
}

// hash is what the database has as the password of a user.
func (m *machine) hash(username string) string {
	m.t.Helper()
	var hash string
	if err := m.db.Conn().QueryRow(m.t.Context(), `SELECT password_hash FROM "user" WHERE username = $1`, username).Scan(&hash); err != nil {
		m.t.Fatal(err)
	}
	return hash
}

func (m *machine) users() int {
	m.t.Helper()
	var n int
	if err := m.db.Conn().QueryRow(m.t.Context(), `SELECT count(*) FROM "user"`).Scan(&n); err != nil {
		m.t.Fatal(err)
	}
	return n
}

// fits demands that the password is that of the user, and that nothing was said about it.
func (m *machine) fits(username, password string) {
	m.t.Helper()
	if err := bcrypt.CompareHashAndPassword([]byte(m.hash(username)), []byte(password)); err != nil {
		m.t.Errorf("the password of %s: %v", username, err)
	}
	if strings.Contains(m.out.String()+m.errOut.String(), password) {
		m.t.Errorf("the password is shown: %s%s", m.out, m.errOut)
	}
}

func code(err error) cli.ExitCode {
	if err == nil {
		return cli.ExitOK
	}
	return cli.AsError(context.Background(), err).Code
}

func (m *machine) file(path string) string {
	m.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		m.t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		m.t.Errorf("%s has mode %v", path, info.Mode())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "\n")
}

func TestPasswordIsMadeUp(t *testing.T) {
	m := newMachine(t)
	if err := m.run("create", "alice", "--email", "alice@example.com"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.home, ".config/quay/passwords/alice")
	if want := "created user alice\nthe password is in " + path + "\n"; m.out.String() != want {
		t.Errorf("out: %q, want %q", m.out, want)
	}
	first := m.file(path)
	if len(first) < 26 {
		t.Errorf("the password has %d characters", len(first))
	}
	m.fits("alice", first)

	if err := m.run("reset-password", "alice"); err != nil {
		t.Fatal(err)
	}
	second := m.file(path)
	if second == first {
		t.Error("the password is the same as before")
	}
	m.fits("alice", second)
}

func TestPasswordFromStandardInput(t *testing.T) {
	m := newMachine(t)
	m.in.WriteString("correct-horse\r\n")
	if err := m.run("create", "bob", "--email", "bob@example.com", "--password-stdin", "--output", "json"); err != nil {
		t.Fatal(err)
	}
	m.fits("bob", "correct-horse")
	var got map[string]any
	if err := json.Unmarshal(m.out.Bytes(), &got); err != nil || len(got) != 3 || got["schema"] != "quayctl/user/v1" || got["username"] != "bob" || got["email"] != "bob@example.com" {
		t.Errorf("out: %s (%v)", m.out, err)
	}
	m.in.WriteString("battery-staple")
	if err := m.run("reset-password", "bob", "--password-stdin"); err != nil {
		t.Fatal(err)
	}
	m.fits("bob", "battery-staple")
	if m.out.String() != "reset the password of bob\n" {
		t.Errorf("out: %q", m.out)
	}
	if _, err := os.Stat(filepath.Join(m.home, ".config")); err == nil {
		t.Error("a file was written for a password that was given")
	}
}

func TestPasswordFile(t *testing.T) {
	m := newMachine(t)
	path := filepath.Join(m.home, "deep", "er", "secret")
	if err := m.run("create", "carol", "--email", "carol@example.com", "--password-file", path, "-o", "json"); err != nil {
		t.Fatal(err)
	}
	m.fits("carol", m.file(path))
	if !strings.Contains(m.out.String(), `"password_file": "`+path+`"`) {
		t.Errorf("out: %s", m.out)
	}
}

func TestRefused(t *testing.T) {
	m := newMachine(t)
	if err := m.run("create", "alice", "--email", "alice@example.com"); err != nil {
		t.Fatal(err)
	}
	before, hash := m.users(), m.hash("alice")
	password := m.file(filepath.Join(m.home, ".config/quay/passwords/alice"))
	for name, c := range map[string]struct {
		args  []string
		stdin string
		want  string // in the error
	}{
		"name taken":       {[]string{"create", "alice", "--email", "other@example.com"}, "", "alice"},
		"address taken":    {[]string{"create", "other", "--email", "alice@example.com"}, "", "alice@example.com"},
		"no name":          {[]string{"create", "No Name", "--email", "no@example.com"}, "", "username"},
		"no address":       {[]string{"create", "dave", "--email", "nowhere"}, "", "email"},
		"short":            {[]string{"create", "dave", "--email", "d@example.com", "--password-stdin"}, "abc12", "assword"},
		"blank":            {[]string{"reset-password", "alice", "--password-stdin"}, "correct horse", "whitespace"},
		"empty":            {[]string{"create", "dave", "--email", "d@example.com", "--password-stdin"}, "\n", "there is no password on standard input"},
		"swallowed a file": {[]string{"reset-password", "alice", "--password-stdin"}, strings.Repeat("x", maxPassword+1), "longer than"},
		"nobody":           {[]string{"reset-password", "nobody"}, "", "username"},
		"path":             {[]string{"reset-password", ".."}, "", "cannot be the name"},
	} {
		t.Run(name, func(t *testing.T) {
			m.in.Reset()
			m.in.WriteString(c.stdin)
			err := m.run(c.args...)
			if code(err) != cli.ExitUsage || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a usage error with %q", err, c.want)
			}
			if m.out.Len() > 0 {
				t.Errorf("out: %s", m.out)
			}
		})
	}
	if m.users() != before || m.hash("alice") != hash {
		t.Error("the database was changed")
	}
	// Neither a file of a user who was not made, nor another password in alice's, nor anything half written.
	entries, err := os.ReadDir(filepath.Join(m.home, ".config/quay/passwords"))
	if err != nil || len(entries) != 1 || m.file(filepath.Join(m.home, ".config/quay/passwords/alice")) != password {
		t.Errorf("the password files are %v, %v", entries, err)
	}
}

func TestPasswordIsNotReadFromATerminal(t *testing.T) {
	m := newMachine(t)
	m.io.SetTTY(true, true, true)
	m.in.WriteString("correct-horse\n")
	err := m.run("create", "dave", "--email", "d@example.com", "--password-stdin")
	if code(err) != cli.ExitUsage || m.in.Len() == 0 {
		t.Errorf("got %v", err)
	}
}

// TestFileThatCannotBeWritten: no user is left without a password that anybody knows.
func TestFileThatCannotBeWritten(t *testing.T) {
	m := newMachine(t)
	before := m.users()
	blocked := filepath.Join(m.home, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.run("create", "erin", "--email", "e@example.com", "--password-file", filepath.Join(blocked, "x")); code(err) != cli.ExitFailure {
		t.Errorf("got %v", err)
	}
	if m.users() != before {
		t.Error("the user was made")
	}
}

func TestList(t *testing.T) {
	m := newMachine(t)
	if err := m.run("list"); err != nil {
		t.Fatal(err)
	}
	if want := "NAME  EMAIL  STATE  CREATED  LAST ACCESS\n"; m.out.String() != want {
		t.Errorf("out: %q, want %q", m.out, want)
	}
	if err := m.run("list", "-o", "json"); err != nil || m.out.String() != "{\n  \"schema\": \"quayctl/users/v1\",\n  \"users\": []\n}\n" {
		t.Errorf("out: %q, %v", m.out, err)
	}
	for _, name := range []string{"bob", "alice"} {
		if err := m.run("create", name, "--email", name+"@example.com"); err != nil {
			t.Fatal(err)
		}
	}
	m.db.Exec(`UPDATE "user" SET enabled = false WHERE username = 'bob'`)
	if err := m.run("list"); err != nil {
		t.Fatal(err)
	}
	want := `NAME   EMAIL              STATE     CREATED     LAST ACCESS
alice  alice@example.com  enabled   2026-11-23  -
bob    bob@example.com    disabled  2026-11-23  -
`
	if m.out.String() != want {
		t.Errorf("out:\n%s\nwant:\n%s", m.out, want)
	}
	if err := m.run("list", "-o", "json"); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Users []listed `json:"users"`
	}
	if err := json.Unmarshal(m.out.Bytes(), &got); err != nil || len(got.Users) != 2 || got.Users[0].Username != "alice" || got.Users[1].Enabled || !got.Users[0].Created.Equal(now) || got.Users[0].LastAccessed != nil {
		t.Errorf("out: %s (%v)", m.out, err)
	}
}

// TestDatabaseDown: an installation whose database does not answer is unhealthy, and the message says where to look.
func TestDatabaseDown(t *testing.T) {
	home := t.TempDir()
	s, _, _, _ := iostreams.Test()
	f := &cli.Factory{
		IO: s, Clock: clock.Real{}, UID: 1000, Log: slog.New(slog.DiscardHandler),
		Getenv: func(k string) string { return map[string]string{"HOME": home}[k] },
	}
	if _, err := database(t.Context(), f); code(err) != cli.ExitNotInstalled {
		t.Errorf("without an installation: %v", err)
	}
	l, err := f.Layout("")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(l.Config, 0o700); err != nil {
		t.Fatal(err)
	}
	pointer := `{"schema":1,"data_dir":"` + filepath.Join(home, "data") + `"}`
	if err := os.WriteFile(filepath.Join(l.Config, "installation.json"), []byte(pointer), fs.FileMode(0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = database(t.Context(), f)
	if e := cli.AsError(t.Context(), err); code(err) != cli.ExitUnhealthy || e.Thing != "database" || !strings.Contains(e.Remedy, "quayctl logs postgresql") {
		t.Errorf("without a server: %v", err)
	}
}
