// Package pgtest gives tests a real PostgreSQL.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		db := pgtest.New(t) // a database of its own, migrated, dropped at the end
//
// The server is the one QUAY_TEST_POSTGRES names (the DSN of a superuser; `make test` starts one for all), or else one
// that the test binary starts when it first needs it.
package pgtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata/schema"
	"github.com/quayctl/quayctl/test/contract/dataset"
)

const (
	// ServerEnv names the DSN of a superuser on the server to use.
	ServerEnv = "QUAY_TEST_POSTGRES"
	// keeperEnv turns a test binary into the keeper of its own server, see Main.
	keeperEnv = "QUAY_TEST_POSTGRES_KEEPER"
	// role owns the databases and is nothing special otherwise, like the appliance's own.
	role = "quay"
	// templateLock keeps two processes from making one template at once. Any fixed number will do.
	templateLock = 5_164_201
)

// DB is a database made for one test.
type DB struct {
	Name string
	// DSN connects as the database's owner, an ordinary role, as the daemons do.
	DSN string
	// SuperDSN connects to the same database as a superuser.
	SuperDSN string

	t testing.TB
}

// New gives a database with the complete schema and its seed rows, as `workers migrate` leaves it.
func New(t testing.TB) *DB { return create(t, "migrated") }

// Populated gives a database with the recorded dataset (test/contract/dataset), already adopted.
func Populated(t testing.TB) *DB { return create(t, "populated") }

// Empty gives a database with nothing in it.
func Empty(t testing.TB) *DB { return create(t, "") }

// Conn is a new connection as the owner, closed when the test ends.
func (db *DB) Conn() *pgx.Conn { return db.connect(db.DSN) }

// Super is a new connection as a superuser, closed when the test ends.
func (db *DB) Super() *pgx.Conn { return db.connect(db.SuperDSN) }

func (db *DB) connect(dsn string) *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		db.t.Fatalf("connect to test database: %v", err)
	}
	db.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs SQL, one statement or many, as a superuser, and fails the test when the server refuses it.
func (db *DB) Exec(sql string) {
	db.t.Helper()
	if _, err := db.Super().PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		db.t.Fatalf("run %q: %v", sql, err)
	}
}

// Main runs a package's tests and stops the server they used: call it from TestMain.
//
// The server is started by a second process of the test binary, its keeper, which waits for the end of a pipe that
// only the tests hold open. So the server and its directory go away however the tests end: in order, by a
// panic, a timeout or kill -9.
func Main(m *testing.M) {
	if os.Getenv(keeperEnv) != "" {
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		err := Serve(ctx, os.Stdin, os.Stdout)
		cancel()
		if err != nil {
			fmt.Println(failed + strings.ReplaceAll(err.Error(), "\n", "; "))
			os.Exit(1)
		}
		os.Exit(0)
	}
	shared.prepared = true
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// failed starts the line by which a keeper says why it has no server.
const failed = "failed: "

// server is the one server of a test binary. It is this package's only global: tests have no other place to share
// what takes seconds to start.
type server struct {
	prepared bool // Main runs

	once   sync.Once
	dsn    string
	err    error
	keeper *exec.Cmd
	rope   io.Closer // the pipe whose end ends the keeper
}

var shared server

func (s *server) get() (string, error) {
	s.once.Do(func() { s.dsn, s.err = s.start() })
	return s.dsn, s.err
}

func (s *server) start() (string, error) {
	if !s.prepared {
		return "", errors.New("the package's TestMain does not call pgtest.Main: add func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	if dsn := os.Getenv(ServerEnv); dsn != "" {
		return dsn, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	answers, answersWriter, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer func() { _ = answers.Close() }()                 // read only
	cmd := exec.CommandContext(context.Background(), self) //nolint:gosec // this very program
	cmd.Env = append(os.Environ(), keeperEnv+"=1")
	cmd.Stdout = answersWriter
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	rope, err := cmd.StdinPipe()
	if err != nil {
		return "", errors.Join(err, answersWriter.Close())
	}
	err = cmd.Start()
	if err := errors.Join(err, answersWriter.Close()); err != nil {
		return "", fmt.Errorf("start the keeper of a PostgreSQL for tests: %w", err)
	}
	s.keeper, s.rope = cmd, rope
	line, err := bufio.NewReader(answers).ReadString('\n')
	line = strings.TrimSpace(line)
	if why, is := strings.CutPrefix(line, failed); is {
		return "", errors.New(why)
	}
	if err != nil {
		return "", fmt.Errorf("the keeper of a PostgreSQL for tests ended: %w", err)
	}
	return line, nil
}

func (s *server) stop() error {
	if s.keeper == nil {
		return nil
	}
	return errors.Join(s.rope.Close(), s.keeper.Wait())
}

func create(t testing.TB, kind string) *DB {
	t.Helper()
	ctx := context.Background()
	dsn, err := shared.get()
	if err != nil {
		t.Fatalf("PostgreSQL for tests: %v", err)
	}
	name := "t_" + strings.ToLower(rand.Text()[:16])
	if err := createDatabase(ctx, dsn, name, kind); err != nil {
		t.Fatalf("make test database: %v", err)
	}
	t.Cleanup(func() {
		err := administer(ctx, dsn, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
			return err
		})
		if err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	db := &DB{Name: name, t: t}
	if db.SuperDSN, err = redirect(dsn, "", name); err == nil {
		db.DSN, err = redirect(dsn, role, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func createDatabase(ctx context.Context, dsn, name, kind string) error {
	return administer(ctx, dsn, func(conn *pgx.Conn) error {
		template := "template0"
		if kind != "" {
			var err error
			if template, err = ensureTemplate(ctx, conn, dsn, kind); err != nil {
				return fmt.Errorf("make template database: %w", err)
			}
		} else if err := ensureRole(ctx, conn, dsn); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template+" OWNER "+role)
		return err
	})
}

// ensureTemplate makes, once per server and content, the database that others are copied from, and returns its name.
func ensureTemplate(ctx context.Context, conn *pgx.Conn, dsn, kind string) (string, error) {
	rows, err := dataset.SQL()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := schema.Sources(func(_ string, file fs.File) error { _, err := io.Copy(sum, file); return err }); err != nil {
		return "", err
	}
	if kind == "populated" {
		_, _ = io.WriteString(sum, rows) // a hash takes everything
	}
	name := "template_" + kind + "_" + hex.EncodeToString(sum.Sum(nil))[:16]

	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return "", err
	}
	// The connection is closed right after the database was made, and the lock with it; it is given back early so
	// that others need not wait for that.
	defer func() { _, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", templateLock) }()
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil || exists {
		return name, err
	}
	if err := ensureRole(ctx, conn, dsn); err != nil {
		return "", err
	}
	making := name + "_making"
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + making + " WITH (FORCE)", "CREATE DATABASE " + making + " TEMPLATE template0 OWNER " + role} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	ownerDSN, err := redirect(dsn, role, making)
	if err != nil {
		return "", err
	}
	if _, err := schema.Migrate(ctx, ownerDSN, schema.Options{AppName: "pgtest"}); err != nil {
		return "", err
	}
	if kind == "populated" {
		superDSN, err := redirect(dsn, "", making)
		if err != nil {
			return "", err
		}
		err = administer(ctx, superDSN, func(conn *pgx.Conn) error {
			_, err := conn.PgConn().Exec(ctx, rows).ReadAll()
			return err
		})
		if err != nil {
			return "", fmt.Errorf("load recorded dataset: %w", err)
		}
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+making+" RENAME TO "+name)
	return name, err
}

// ensureRole makes the ordinary role. On a server that asks for passwords it gets the superuser's.
func ensureRole(ctx context.Context, conn *pgx.Conn, dsn string) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)", role).Scan(&exists); err != nil {
		return err
	}
	if exists {
		return nil
	}
	statement := "CREATE ROLE " + role + " LOGIN"
	if cfg.Password != "" {
		statement += " PASSWORD '" + strings.ReplaceAll(cfg.Password, "'", "''") + "'"
	}
	_, err = conn.Exec(ctx, statement)
	return err
}

// administer runs do on a connection of its own.
func administer(ctx context.Context, dsn string, do func(*pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close(ctx))
}

// redirect is dsn with another user (unless "") and database.
func redirect(dsn, user, database string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return "", fmt.Errorf("%s must be a URL such as postgresql://postgres@/postgres?host=/run/postgresql", ServerEnv)
	}
	if user != "" {
		if password, has := u.User.Password(); has {
			u.User = url.UserPassword(user, password)
		} else {
			u.User = url.User(user)
		}
	}
	u.Path = "/" + database
	return u.String(), nil
}
