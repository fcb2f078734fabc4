package host

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/appliance"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestFirstUserAndProbe(t *testing.T) {
	db := pgtest.New(t)
	d := &Database{Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)}
	ctx := t.Context()
	ensure := func(password string, reset, want bool) {
		t.Helper()
		valid, err := d.EnsureUser(ctx, db.DSN, "admin", "admin@localhost.localdomain", password, reset)
		if err != nil || valid != want {
			t.Fatalf("valid %v, want %v; %v", valid, want, err)
		}
	}
	ensure("first-password", false, true)
	ensure("first-password", false, true)
	ensure("other-password", false, false)
	ensure("other-password", true, true)
	ensure("first-password", false, false)

	conn, err := d.connect(ctx, db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `INSERT INTO repository (namespace_user_id, name, visibility_id, badge_token, kind_id, trust_enabled, state)
		SELECT u.id, 'probe', v.id, 'x', k.id, false, 0 FROM "user" u, visibility v, repositorykind k
		WHERE u.username = 'admin' AND v.name = 'private' AND k.name = 'image'`); err != nil {
		t.Fatal(err)
	}
	before, err := d.Facts(ctx, db.DSN)
	if err != nil || before.Repos != 1 || before.Users != 1 || before.Revision == "" {
		t.Fatalf("facts %+v, %v", before, err)
	}
	for range 2 { // the second time there is nothing to forget
		if err := d.Forget(ctx, db.DSN, "admin", "probe"); err != nil {
			t.Fatal(err)
		}
	}
	after, err := d.Facts(ctx, db.DSN)
	if err != nil || after.Repos != 0 {
		t.Fatalf("facts %+v, %v", after, err)
	}
	var queue, body string
	if err := conn.QueryRow(ctx, `SELECT q.queue_name, q.body FROM queueitem q JOIN deletedrepository d ON d.queue_id = q.id::text`).Scan(&queue, &body); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(queue, "repositorygc/admin/") || !strings.Contains(body, `"original_name":"probe"`) {
		t.Errorf("queue item %s %s", queue, body)
	}
}

func TestReady(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "x.sock")
	m := &Machine{}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Ready(ctx, socket); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("without a daemon: %v", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte(`{"status":"failing","checks":{"database":{"ok":false,"error":"it is away"},"storage":{"ok":true,"error":""}}}`))
			return
		}
		w.Write([]byte(`{"status":"ok","checks":{}}`))
	})}
	go server.Serve(l)
	defer server.Close()
	if err := Health(t.Context(), socket); err == nil || err.Error() != "it is failing: database: it is away" {
		t.Errorf("failing: %v", err)
	}
	if err := m.Ready(t.Context(), socket); err != nil || asked != 3 {
		t.Errorf("%v after %d questions", err, asked)
	}
	stopped, stop := context.WithCancelCause(t.Context())
	why := errors.New("asked to stop")
	stop(why)
	if err := m.Ready(stopped, filepath.Join(t.TempDir(), "none")); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOwnKnowsTheStickyBit(t *testing.T) {
	dir := t.TempDir()
	mode := fs.ModeDir | fs.ModeSticky | 0o777
	if err := (&Machine{}).Own(t.Context(), []appliance.Ownership{{Path: dir, ID: os.Getuid(), Mode: mode}}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != mode {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got := octal(mode); got != "1777" { // what rootless chmod is given
		t.Errorf("octal: %s", got)
	}
}
