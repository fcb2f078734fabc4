package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/metadata/schema"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// installation is a configuration directory for the database; its key files lie beside it.
func installation(t *testing.T, db *pgtest.DB, more string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "stack")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := `
SETUP_COMPLETE: true
SERVER_HOSTNAME: registry.example.com
PREFERRED_URL_SCHEME: https
DATABASE_SECRET_KEY: '1'
DB_URI: ` + db.DSN + `
DISTRIBUTED_STORAGE_CONFIG:
  default: [LocalStorage, {storage_path: /datastorage/registry}]
  local: [LocalStorage, {storage_path: /datastorage/old}]
` + more
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func work(t *testing.T, dir string, now time.Time, check bool) (Report, error) {
	t.Helper()
	var out bytes.Buffer
	err := Run(t.Context(), Options{ConfigDir: dir, Check: check, JSON: true, Clock: clock.NewFake(now), Logger: slog.New(slog.DiscardHandler)}, &out)
	var report Report
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
	}
	return report, err
}

func changes(r Report) string {
	var all []string
	for _, task := range r.Tasks {
		all = append(all, task.Name+"="+task.Change)
	}
	return strings.Join(all, " | ")
}

func count(t *testing.T, db *pgtest.DB, query string) (n int) {
	t.Helper()
	if err := db.Conn().QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

const liveKeys = `SELECT count(*) FROM servicekey k JOIN servicekeyapproval a ON a.id = k.approval_id
	WHERE k.service = 'quay' AND k.name = 'https://registry.example.com' AND k.expiration_date > '2026-11-23 12:00'`

func TestAnInstallationFromNothing(t *testing.T) {
	db := pgtest.Empty(t)
	dir := installation(t, db, "")

	for range 2 { // a check changes nothing, so the second finds the same
		report, err := work(t, dir, noon, true)
		var pending *PendingError
		if !errors.As(err, &pending) || pending.ExitCode() != 3 {
			t.Fatalf("check: %v", err)
		}
		if report.Found != schema.Empty || !report.Pending || !slices.Equal(report.Migrations, []string{"00001_legacy.sql"}) ||
			changes(report) != "storage locations=add default, local | instance key=make a key" {
			t.Errorf("check: %+v", report)
		}
	}

	report, err := work(t, dir, noon, false)
	if err != nil {
		t.Fatal(err)
	}
	kid, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "quay.kid"))
	if err != nil {
		t.Fatal(err)
	}
	// The name local is among the legacy seed rows.
	want := "storage locations=add default | instance key=make key " + strings.TrimSpace(string(kid))
	if report.Found != schema.Empty || report.Revision != schema.Head || changes(report) != want {
		t.Errorf("%+v, want %s", report, want)
	}
	if n := count(t, db, `SELECT count(*) FROM imagestoragelocation WHERE name IN ('default', 'local')`); n != 2 {
		t.Errorf("%d locations", n)
	}
	if n := count(t, db, liveKeys); n != 1 {
		t.Errorf("%d live keys", n)
	}

	for _, check := range []bool{false, true} {
		report, err := work(t, dir, noon, check)
		if err != nil || report.Found != schema.Managed || len(report.Migrations) != 0 || changes(report) != "storage locations= | instance key=" || report.Pending {
			t.Errorf("again: %+v, %v", report, err)
		}
	}

	// The machine was off for a day: the same key, its row lives on.
	if report, err := work(t, dir, noon.Add(24*time.Hour), false); err != nil || !strings.Contains(changes(report), "renew key "+strings.TrimSpace(string(kid))) {
		t.Errorf("a day later: %+v, %v", report, err)
	}
	// Somebody removed the row: a new key.
	db.Exec(`DELETE FROM servicekey`)
	if report, err := work(t, dir, noon, false); err != nil || !strings.Contains(changes(report), "make key") || strings.Contains(changes(report), string(kid)) {
		t.Errorf("without the row: %+v, %v", report, err)
	}
	if n := count(t, db, liveKeys); n != 1 {
		t.Errorf("%d live keys", n)
	}
}

func TestALegacyDatabaseIsAdopted(t *testing.T) {
	db := pgtest.Populated(t)
	db.Exec(`DROP SCHEMA quay_appliance CASCADE`)
	dir := installation(t, db, "")
	before := count(t, db, `SELECT count(*) FROM servicekey`)
	report, err := work(t, dir, noon, false)
	if err != nil || report.Found != schema.Legacy || len(report.Migrations) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if after := count(t, db, `SELECT count(*) FROM servicekey`); after != before+1 {
		t.Errorf("%d service keys, were %d", after, before)
	}
}

func TestAReadOnlyRegistryIsNotWrittenTo(t *testing.T) {
	db := pgtest.New(t)
	dir := installation(t, db, "REGISTRY_STATE: readonly\n")
	if _, err := work(t, dir, noon, false); err == nil || !strings.Contains(err.Error(), "default") || !strings.Contains(err.Error(), "REGISTRY_STATE normal") {
		t.Errorf("locations: %v", err)
	}
	db.Exec(`INSERT INTO imagestoragelocation (name) VALUES ('default')`)
	if _, err := work(t, dir, noon, false); err == nil || !strings.Contains(err.Error(), "instance key") || !strings.Contains(err.Error(), "REGISTRY_STATE normal") {
		t.Errorf("instance key: %v", err)
	}
	if n := count(t, db, `SELECT count(*) FROM servicekey`); n != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestTheCommand(t *testing.T) {
	t.Setenv("QUAYCONF", t.TempDir()) // no installation there
	empty, foreign, installed := pgtest.Empty(t), pgtest.Empty(t), pgtest.Empty(t)
	foreign.Exec(`CREATE TABLE customers (id int)`)
	dir := installation(t, installed, "")
	for _, c := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // each contained
	}{
		{"help", []string{"--help"}, 0, "Usage: workers migrate", ""},
		{"unknown flag", []string{"--nonsense"}, 2, "", "nonsense"},
		{"argument", []string{"now"}, 2, "", `unexpected argument "now"`},
		{"unknown output", []string{"--output=xml"}, 2, "", "xml"},
		{"no configuration", nil, 1, "", "config.yaml"},
		{"not PostgreSQL", []string{"--database-url=mysql+pymysql://u:hunter2@h/d"}, 1, "", "only PostgreSQL"},
		{"nothing there", []string{"--database-url=postgresql://quay@/quay?host=" + t.TempDir()}, 1, "", "connect to database quay"},
		{"another program's database", []string{"--database-url", foreign.DSN}, 1, "", "customers"},
		{"check of an empty one", []string{"--database-url", empty.DSN, "--check"}, 3, "database schema: to do: build revision " + schema.Head, "run `workers migrate`"},
		{"an empty one", []string{"--database-url", empty.DSN}, 0, "database schema: build revision " + schema.Head, ""},
		{"check of a finished one", []string{"--database-url", empty.DSN, "--check"}, 0, "database schema: up to date at revision " + schema.Head, ""},
		{"check of an installation", []string{"--config-dir", dir, "--check"}, 3, "storage locations: to do: add default, local\ninstance key: to do: make a key\n", ""},
		{"an installation", []string{"--config-dir", dir, "--output=json"}, 0, `"change": "add default"`, ""},
		{"an installation again", []string{"--config-dir", dir}, 0, "storage locations: up to date\ninstance key: up to date\n", ""},
	} {
		var stdout, stderr bytes.Buffer
		code := command(context.Background(), c.args, &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) || (code == 0) != (stderr.Len() == 0) {
			t.Errorf("%s: code %d, want %d\nstdout: %s\nstderr: %s", c.name, code, c.code, &stdout, &stderr)
		}
		if strings.Contains(stderr.String(), "hunter2") {
			t.Errorf("%s: the password was printed", c.name)
		}
	}
	if n := count(t, empty, `SELECT count(*) FROM imagestoragelocation WHERE name = 'default'`); n != 0 {
		t.Error("without a configuration only the schema is looked after")
	}
}
