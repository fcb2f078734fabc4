package instancekey_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/auth/instancekey"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type fixture struct {
	*testing.T
	pg    *pgtest.DB
	db    *metadata.DB
	clock *clock.Fake
	store *instancekey.Store
	ring  *instancekey.Ring
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	f := &fixture{T: t, pg: pgtest.New(t), clock: clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))}
	var err error
	f.db, err = metadata.Open(t.Context(), metadata.Options{WriterDSN: f.pg.DSN, AppName: "test", Clock: f.clock, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.db.Close)
	cfg := config.Default()
	dir := t.TempDir()
	pemPath, kidPath, err := instancekey.Paths(cfg, filepath.Join(dir, "stack"))
	if err != nil {
		t.Fatal(err)
	}
	f.store = &instancekey.Store{DB: f.db, Clock: f.clock, Config: cfg, Log: log, PEMPath: pemPath, KIDPath: kidPath}
	f.ring = &instancekey.Ring{DB: f.db, Clock: f.clock, Service: cfg.InstanceKeyService, Log: log}
	return f
}

func (f *fixture) ensure() *instancekey.Key {
	f.Helper()
	key, err := f.store.Ensure(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return key
}

func (f *fixture) known(kid string) bool {
	f.Helper()
	key, err := f.ring.PublicKey(f.Context(), kid)
	if err != nil {
		f.Fatal(err)
	}
	return key != nil
}

func TestEnsureMakesOneKeyAndKeepsIt(t *testing.T) {
	f := newFixture(t)
	key := f.ensure()
	for _, path := range []string{f.store.PEMPath, f.store.KIDPath} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	if !f.known(key.KeyID()) {
		t.Error("the key is not known to verifiers")
	}
	var name, service, jwk, details, approval string
	var expires time.Time
	err := f.pg.Conn().QueryRow(t.Context(), `select k.name, k.service, k.jwk, k.metadata, a.approval_type, k.expiration_date
		from servicekey k join servicekeyapproval a on a.id = k.approval_id where kid = $1`, key.KeyID()).
		Scan(&name, &service, &jwk, &details, &approval, &expires)
	if err != nil {
		t.Fatal(err)
	}
	if name != "http://localhost:5000" || service != "quay" || details != `{"created_by": "CLI tool"}` ||
		approval != "ServiceKeyApprovalType.AUTOMATIC" || !expires.Equal(f.clock.Now().Add(2*time.Hour)) {
		t.Errorf("row: %q %q %q %q %v", name, service, details, approval, expires)
	}
	if !strings.HasPrefix(jwk, `{"n": "`) || !strings.HasSuffix(jwk, `", "e": "AQAB", "kty": "RSA", "kid": "`+key.KeyID()+`"}`) {
		t.Errorf("jwk %s", jwk)
	}

	f.clock.Advance(time.Hour)
	if again := f.ensure(); again.KeyID() != key.KeyID() {
		t.Error("a second start made another key")
	}
	f.clock.Advance(90 * time.Minute) // beyond the first expiration, within the extended one
	if !f.known(key.KeyID()) {
		t.Error("the second start did not extend the key")
	}
}

func TestExpiredAndRemovedKeys(t *testing.T) {
	f := newFixture(t)
	key := f.ensure()
	if !f.known(key.KeyID()) {
		t.Fatal("key unknown")
	}
	f.clock.Advance(3 * time.Hour)
	if f.known(key.KeyID()) {
		t.Error("an expired key verifies")
	}
	if err := f.store.Refresh(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(2 * time.Second)
	if !f.known(key.KeyID()) {
		t.Error("a refreshed key does not verify")
	}

	f.pg.Exec("delete from servicekey")
	f.clock.Advance(2 * time.Minute)
	if f.known(key.KeyID()) {
		t.Error("a removed key verifies")
	}
	if err := f.store.Refresh(t.Context(), key); err == nil {
		t.Error("refresh of a removed key succeeded")
	}
	if next := f.ensure(); next.KeyID() == key.KeyID() {
		t.Error("a removed key came back")
	}
}

func TestUnknownIDsDoNotMakeQueries(t *testing.T) {
	f := newFixture(t)
	f.ensure()
	if f.known("invented") {
		t.Fatal("an invented key is known")
	}
	f.pg.Exec("update servicekey set kid = 'invented'")
	if f.known("invented") {
		t.Error("asked the database again within a second")
	}
	f.clock.Advance(time.Second)
	if !f.known("invented") {
		t.Error("did not ask the database again after a second")
	}
}

func TestFailedReadsAreShared(t *testing.T) {
	f := newFixture(t)
	kid := f.ensure().KeyID()
	f.pg.Exec("alter table servicekey rename to away")
	if _, err := f.ring.PublicKey(t.Context(), kid); err == nil {
		t.Fatal("read keys from a table that is not there")
	}
	f.pg.Exec("alter table away rename to servicekey")
	if _, err := f.ring.PublicKey(t.Context(), kid); err == nil {
		t.Error("asked the database again within a second")
	}
	f.clock.Advance(time.Second)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if key, err := f.ring.PublicKey(gone, kid); err != nil || key == nil {
		t.Errorf("%v: the end of one request fails the read of all", err)
	}
}

func TestReadOnlyMakesNothing(t *testing.T) {
	f := newFixture(t)
	f.store.Config.RegistryState = "readonly"
	if _, err := f.store.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "REGISTRY_STATE") {
		t.Errorf("without a key: %v", err)
	}
	f.store.Config.RegistryState = "normal"
	f.ensure()
	f.store.Config.RegistryState = "readonly"
	f.ensure()
	f.clock.Advance(3 * time.Hour)
	if _, err := f.store.Ensure(t.Context()); err == nil {
		t.Error("an expired key was accepted")
	}
}

func TestBadFiles(t *testing.T) {
	for name, spoil := range map[string]func(*fixture) error{
		"no PEM":   func(f *fixture) error { return os.WriteFile(f.store.PEMPath, []byte("nothing"), 0o600) },
		"no id":    func(f *fixture) error { return os.WriteFile(f.store.KIDPath, nil, 0o600) },
		"dir lost": func(f *fixture) error { f.store.PEMPath = "/proc/none/quay.pem"; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.ensure()
			if err := spoil(f); err != nil {
				t.Fatal(err)
			}
			if _, err := f.store.Ensure(context.Background()); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestPaths(t *testing.T) {
	cfg, err := config.Parse([]byte("INSTANCE_SERVICE_KEY_LOCATION: /keys/quay.pem\n"))
	if err != nil {
		t.Fatal(err)
	}
	pemPath, kidPath, err := instancekey.Paths(cfg, "/conf/stack/")
	if err != nil || pemPath != "/keys/quay.pem" || kidPath != "/conf/quay.kid" {
		t.Errorf("%s %s %v", pemPath, kidPath, err)
	}
}
