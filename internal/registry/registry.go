// Package registry composes registryd, the daemon that speaks the distribution protocol: package v2 serves /v2/, package
// token /v2/auth, package v1 /v1/; regerr is the one map from errors to answers.
package registry

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/instancekey"
	"github.com/quayctl/quayctl/internal/auth/registryjwt"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/proxy"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
	"github.com/quayctl/quayctl/internal/registry/token"
	v1 "github.com/quayctl/quayctl/internal/registry/v1"
	v2 "github.com/quayctl/quayctl/internal/registry/v2"
	"github.com/quayctl/quayctl/internal/service"
	"github.com/quayctl/quayctl/internal/storage"
)

const name = "registryd"

// Main runs registryd with its command line and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := service.NewFlags(name)
	if code, done := flags.Parse(args, stdout, stderr); done {
		return code
	}
	log := flags.Logger(stderr)
	cfg, err := config.Load(flags.ConfigDir)
	if err == nil {
		err = cfg.Validate().Err()
	}
	if err != nil {
		log.Error("configuration is not usable", "config_dir", flags.ConfigDir, "error", err)
		return service.ExitFailure
	}
	cfg.LogWarnings(log)
	daemon, err := Compose(context.Background(), Options{Config: cfg, ConfigDir: flags.ConfigDir, Clock: clock.Real{}, Log: log})
	if err != nil {
		log.Error("cannot start", "error", err)
		return service.ExitFailure
	}
	daemon.Listen, daemon.Admin, daemon.DrainLimit = flags.Listen, flags.Admin, flags.DrainLimit
	return daemon.Main()
}

// Options of Compose. All are needed.
type Options struct {
	Config    *config.Config
	ConfigDir string // whose parent holds the instance key by default
	Clock     clock.Clock
	Log       *slog.Logger
}

// Compose makes the daemon without starting it; its addresses are still to be set. It connects to nothing.
func Compose(ctx context.Context, o Options) (_ *service.Daemon, err error) {
	cfg := o.Config
	db, err := openDatabase(ctx, o)
	if err != nil {
		return nil, err
	}
	objects, err := openStorage(cfg, o.Log)
	if err != nil {
		db.Close()
		return nil, err
	}
	defer func() {
		if err != nil {
			db.Close()
			err = errors.Join(err, objects.Close())
		}
	}()

	registry := prometheus.NewRegistry()
	metrics, err := telemetry.New(registry, texts(cfg, "TRACKED_NAMESPACES"))
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	registry.MustRegister(poolCollector{db})
	credentials, err := auth.NewCredentials(db, o.Clock, cfg, o.Log)
	if err != nil {
		return nil, err
	}
	pemPath, kidPath, err := instancekey.Paths(cfg, o.ConfigDir)
	if err != nil {
		return nil, err
	}
	key := &instanceKey{metrics: metrics, clock: o.Clock, log: o.Log, every: time.Duration(cfg.InstanceKeyRefreshMin) * time.Minute,
		store: instancekey.Store{DB: db, Clock: o.Clock, Config: cfg, Log: o.Log, PEMPath: pemPath, KIDPath: kidPath}}
	names := &directory.Directory{DB: db, Clock: o.Clock}
	actions := actionlog.New(db, o.Clock, cfg, o.Log)

	deps := v2.Deps{
		DB: db, Storage: objects, Clock: o.Clock, Config: cfg, Log: o.Log, Metrics: metrics, ActionLog: actions, Directory: names,
		Tokens: &registryjwt.Verifier{
			Keys:  &instancekey.Ring{DB: db, Clock: o.Clock, Service: cfg.InstanceKeyService, Log: o.Log},
			Clock: o.Clock, Audience: cfg.ServerHostname, Issuer: cfg.InstanceKeyService,
			MaxFresh: time.Duration(cfg.RegistryJWTAuthMaxFreshS) * time.Second,
		},
	}
	locker := locks.NewPostgres(db.Writer(), o.Clock, o.Log)
	cache, err := proxy.New(proxy.Deps{DB: db, Storage: objects, Locks: locker, Clock: o.Clock, Config: cfg, Log: o.Log, Directory: names})
	if err != nil {
		locker.Close()
		return nil, err
	}
	if cache != nil {
		deps.PullThrough = cache
	}
	protocol, err := newProtocol(deps, locker)
	if err != nil {
		locker.Close()
		return nil, err
	}
	permissions := &auth.Permissions{DB: db, Config: cfg}
	legacy, err := v1.New(v1.Deps{
		DB: db, Storage: objects, Locks: locker, Clock: o.Clock, Config: cfg, ConfigDir: o.ConfigDir, Log: o.Log, Metrics: metrics,
		ActionLog: actions, Directory: names, Credentials: credentials, Permissions: permissions,
	})
	if err != nil {
		locker.Close()
		return nil, err
	}
	return &service.Daemon{
		Name: name, Log: o.Log, Clock: o.Clock, Metrics: registry,
		Handler: router{v1: legacy, v2: protocol, token: token.New(token.Deps{
			DB: db, Clock: o.Clock, Config: cfg, Log: o.Log, Metrics: metrics, ActionLog: actions, Directory: names,
			Credentials: credentials, Permissions: permissions, Key: key,
			Challenge: v2.Challenge(cfg, ""),
		})},
		Checks: []service.Check{
			{Name: "database", Run: db.Ping},
			{Name: "instance_key", Run: key.ensure},
			service.Check{Name: "storage", Run: func(ctx context.Context) error { return objects.Validate(ctx, false) }}.Every(storage.ProbeEvery, o.Clock),
		},
		Background: []func(context.Context) error{key.refresh},
		OnDrain: []func(context.Context) error{
			actions.Drain,
			func(context.Context) error { locker.Close(); db.Close(); return nil },
			func(context.Context) error { return objects.Close() },
		},
	}, nil
}

// newProtocol makes the handler of /v2/ with all its families of routes.
func newProtocol(deps v2.Deps, locker locks.Locker) (http.Handler, error) {
	manifests, err := v2.ManifestRoutes(deps)
	if err != nil {
		return nil, err
	}
	return v2.New(deps, v2.PingRoutes(), v2.BlobRoutes(deps, locker), manifests)
}

func openDatabase(ctx context.Context, o Options) (*metadata.DB, error) {
	options := metadata.FromConfig(o.Config)
	options.AppName, options.Clock, options.Logger = "quay-"+name, o.Clock, o.Log
	return metadata.Open(ctx, options)
}

func openStorage(cfg *config.Config, log *slog.Logger) (*storage.Set, error) {
	c := storage.Config{Preference: cfg.StoragePreference}
	for _, l := range cfg.Storage {
		c.Locations = append(c.Locations, storage.Location{Name: l.Name, Driver: l.Driver, Parameters: l.Parameters})
	}
	return storage.Open(c, log)
}

// texts reads a list among the keys that have no field in Config; what is no list counts as none.
func texts(cfg *config.Config, key string) (list []string) {
	if value, ok := cfg.Other[key]; ok {
		if err := value.Decode(&list); err != nil {
			return nil
		}
	}
	return list
}

// instanceKey is the key that signs tokens, from the moment the database answers.
type instanceKey struct {
	store   instancekey.Store
	metrics *telemetry.Metrics
	clock   clock.Clock
	log     *slog.Logger
	every   time.Duration
	key     atomic.Pointer[instancekey.Key]
}

// KeyID implements registryjwt.Signer. The public listeners open after ensure has succeeded.
func (k *instanceKey) KeyID() string { return k.key.Load().KeyID() }

// PrivateKey implements registryjwt.Signer.
func (k *instanceKey) PrivateKey() *rsa.PrivateKey { return k.key.Load().PrivateKey() }

// ensure is the readiness check: key files and row are there. The migration before the start has made them, so that this
// only reads the files and makes the row live longer.
func (k *instanceKey) ensure(ctx context.Context) error {
	if k.key.Load() != nil {
		return nil
	}
	key, err := k.store.Ensure(ctx)
	if err == nil {
		k.key.Store(key)
	}
	return err
}

// refresh makes the row live longer, for as long as the daemon runs.
func (k *instanceKey) refresh(ctx context.Context) error {
	const retry = time.Minute
	pause := k.every
	for {
		if k.clock.Sleep(ctx, pause) != nil {
			return nil
		}
		pause = k.every
		key := k.key.Load()
		if key == nil || k.store.Config.RegistryState == "readonly" {
			continue
		}
		err := k.store.Refresh(ctx, key)
		k.metrics.KeyRenewal(err == nil)
		if err != nil {
			k.log.ErrorContext(ctx, "instance key was not renewed, trying again", "in", retry, "error", err)
			pause = min(retry, k.every)
		}
	}
}

// poolCollector tells the state of the connection pools under the legacy names.
type poolCollector struct{ db *metadata.DB }

var (
	connectionsInUse     = prometheus.NewDesc("quay_db_pooled_connections_in_use", "Database connections that are in use.", nil, nil)
	connectionsAvailable = prometheus.NewDesc("quay_db_pooled_connections_available", "Database connections that are idle.", nil, nil)
)

// Describe implements prometheus.Collector.
func (poolCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- connectionsInUse
	descs <- connectionsAvailable
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(metrics chan<- prometheus.Metric) {
	writer, reader := c.db.Stat()
	inUse, idle := writer.AcquiredConns(), writer.IdleConns()
	if reader != nil {
		inUse, idle = inUse+reader.AcquiredConns(), idle+reader.IdleConns()
	}
	metrics <- prometheus.MustNewConstMetric(connectionsInUse, prometheus.GaugeValue, float64(inUse))
	metrics <- prometheus.MustNewConstMetric(connectionsAvailable, prometheus.GaugeValue, float64(idle))
}
