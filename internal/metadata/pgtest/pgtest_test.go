package pgtest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func count(t *testing.T, conn *pgx.Conn, query string) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(context.Background(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDatabasesAreMigratedAndApart(t *testing.T) {
	first, second, populated, empty := pgtest.New(t), pgtest.New(t), pgtest.Populated(t), pgtest.Empty(t)
	first.Exec(`INSERT INTO imagestoragelocation (name) VALUES ('here')`)
	const here = `SELECT count(*) FROM imagestoragelocation WHERE name = 'here'`
	if count(t, first.Conn(), here) != 1 || count(t, second.Conn(), here) != 0 {
		t.Error("a row of one database is missing, or seen in another")
	}
	if n := count(t, populated.Conn(), `SELECT count(*) FROM "user"`); n != 29 {
		t.Errorf("the populated database has %d users, recorded are 29", n)
	}
	if n := count(t, empty.Conn(), `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`); n != 0 {
		t.Errorf("the empty database has %d relations", n)
	}
	if n := count(t, first.Conn(), `SELECT rolsuper::int FROM pg_roles WHERE rolname = current_user`); n != 0 {
		t.Error("DSN is a superuser's")
	}
	if n := count(t, first.Super(), `SELECT rolsuper::int FROM pg_roles WHERE rolname = current_user`); n != 1 {
		t.Error("SuperDSN is not a superuser's")
	}
}

// The keeper is this test binary again; the child below dies by a signal that no program can catch while it uses a
// server. Its database directory must be gone when the keeper, which holds the child's output open, has ended.
func TestNothingIsLeftWhenTheTestsAreKilled(t *testing.T) {
	if os.Getenv("PGTEST_DIE") != "" {
		pgtest.New(t)
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	temp, err := os.MkdirTemp("", "pgt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeftWhenTheTestsAreKilled$")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "QUAY_TEST_POSTGRES=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "PGTEST_DIE=1", "TMPDIR="+temp)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child was to be killed")
	}
	// The read ends when every process that inherited the pipe's other end has ended, the keeper too.
	buffer := make([]byte, 4096)
	for {
		if _, err := r.Read(buffer); err != nil {
			break
		}
	}
	left, err := filepath.Glob(filepath.Join(temp, "quaypg*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
