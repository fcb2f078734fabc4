package actionlog_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type fixture struct {
	*testing.T
	pg  *pgtest.DB
	db  *metadata.DB
	cfg *config.Config
	out *bytes.Buffer
	log *actionlog.Writer
}

func newFixture(t *testing.T, edit func(*config.Config)) *fixture {
	t.Helper()
	f := &fixture{T: t, pg: pgtest.Populated(t), cfg: config.Default(), out: &bytes.Buffer{}}
	if edit != nil {
		edit(f.cfg)
	}
	f.pg.Exec("delete from logentry3")
	c := clock.NewFake(time.Date(2026, 11, 23, 16, 0, 0, 0, time.UTC))
	log := slog.New(slog.NewTextHandler(f.out, nil))
	var err error
	f.db, err = metadata.Open(t.Context(), metadata.Options{WriterDSN: f.pg.DSN, AppName: "test", Clock: c, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.db.Close)
	f.log = actionlog.New(f.db, c, f.cfg, log)
	return f
}

func (f *fixture) rows() (n int) {
	f.Helper()
	if err := f.pg.Conn().QueryRow(f.Context(), "select count(*) from logentry3").Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

func pull(n int) actionlog.Entry {
	account, performer, repo := int64(1), int64(3), int64(2)
	return actionlog.Entry{Kind: "pull_repo", Namespace: "devtable", AccountID: &account, PerformerID: &performer, RepositoryID: &repo,
		IP: "10.0.0.1", Metadata: map[string]any{"repo": "é", "n": n}}
}

// TestTogether writes many entries at once, strictly: each is in the database when its Log returns.
func TestTogether(t *testing.T) {
	f := newFixture(t, nil)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := f.log.Log(t.Context(), pull(i)); err != nil {
				t.Error(err)
			}
			var n int
			if err := f.db.Writer().QueryRow(t.Context(), "select count(*) from logentry3 where metadata_json = $1",
				fmt.Sprintf(`{"n": %d, "repo": "\u00e9"}`, i)).Scan(&n); err != nil || n != 1 {
				t.Errorf("entry %d: %d rows, %v", i, n, err)
			}
		})
	}
	wg.Wait()
	var text string
	if err := f.pg.Conn().QueryRow(t.Context(), `select string_agg(distinct concat_ws(' ', k.name, account_id, performer_id, repository_id, datetime, ip), ';')
		from logentry3 l join logentrykind k on k.id = l.kind_id`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if want := "pull_repo 1 3 2 2026-11-23 16:00:00 10.0.0.1"; text != want {
		t.Errorf("rows %q, want %q", text, want)
	}
	if err := f.log.Log(t.Context(), actionlog.Entry{Kind: "login_failure"}); err != nil {
		t.Fatal(err)
	}
	if err := f.pg.Conn().QueryRow(t.Context(), `select concat_ws(' ', account_id, performer_id, repository_id, ip, metadata_json) from logentry3
		where performer_id is null and repository_id is null and ip is null`).Scan(&text); err != nil || text != "1 {}" {
		t.Errorf("service entry: %q, %v", text, err)
	}
}

func TestSkipped(t *testing.T) {
	f := newFixture(t, func(c *config.Config) {
		c.DisabledForAuditLogs, c.DisabledForPullLogs = config.Texts{"silent"}, config.Texts{"devtable"}
	})
	for _, e := range []actionlog.Entry{pull(1), {Kind: "push_repo", Namespace: "silent"}} {
		if err := f.log.Log(t.Context(), e); err != nil {
			t.Error(err)
		}
	}
	f.cfg.RegistryState = "readonly"
	if err := f.log.Log(t.Context(), actionlog.Entry{Kind: "push_repo"}); err != nil {
		t.Error(err)
	}
	if n := f.rows(); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// TestStrictness takes the table away.
func TestStrictness(t *testing.T) {
	f := newFixture(t, nil)
	f.pg.Exec("alter table logentry3 rename to away")
	if err := f.log.Log(t.Context(), pull(1)); err == nil {
		t.Error("strict: a lost entry is no error")
	}
	f.cfg.AllowPullsWithoutStrictLogging = true
	if err := f.log.Log(t.Context(), pull(1)); err != nil {
		t.Errorf("lenient: %v", err)
	}
	push := pull(1)
	push.Kind = "push_repo"
	if err := f.log.Log(t.Context(), push); err == nil {
		t.Error("a push is never lenient here")
	}
	if err := f.log.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.out.String(), "action log entry lost") {
		t.Errorf("the loss is not told: %s", f.out)
	}
}

// TestDrainLosesNothing logs without waiting and drains.
func TestDrainLosesNothing(t *testing.T) {
	f := newFixture(t, func(c *config.Config) { c.AllowPullsWithoutStrictLogging = true })
	for i := range 1500 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := f.log.Log(ctx, pull(i)); err != nil {
			t.Fatal(err)
		}
		cancel() // the request is over, its entry is not
	}
	if err := f.log.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.rows(); n != 1500 {
		t.Errorf("%d rows, want 1500; %s", n, f.out)
	}
}

func TestUnknownKind(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.log.Log(t.Context(), actionlog.Entry{Kind: "no_such_kind"}); err == nil {
		t.Error("an unknown kind was taken")
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ remote, forwarded, want string }{
		{"10.1.2.3:4", "", "10.1.2.3"}, {"[::1]:4", "", "::1"}, {"@", "", ""},
		{"@", "1.2.3.4", "1.2.3.4"}, {"10.1.2.3:4", "6.6.6.6, 1.2.3.4", "1.2.3.4"}, {"10.1.2.3:4", "nonsense", "10.1.2.3"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := actionlog.ClientIP(r); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	for ip, known := range map[string]bool{"127.0.0.1": true, "::1": true, "192.168.1.1": true, "fe80::1": true, "52.95.245.1": false, "": false} {
		if got := actionlog.ResolveIP(ip); (got != nil) != known {
			t.Errorf("%s: %v", ip, got)
		}
	}
}
