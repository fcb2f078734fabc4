// Package jobs composes workers, the daemon that does what no request waits for: package runner lives the life of the
// jobs, queue hands out the legacy queue's items, gc and cleanup hold the jobs, migrate looks after the database.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/jobs/cleanup"
	"github.com/quayctl/quayctl/internal/jobs/gc"
	"github.com/quayctl/quayctl/internal/jobs/migrate"
	"github.com/quayctl/quayctl/internal/jobs/queue"
	"github.com/quayctl/quayctl/internal/jobs/quota"
	"github.com/quayctl/quayctl/internal/jobs/runner"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/service"
	"github.com/quayctl/quayctl/internal/storage"
)

const name = "workers"

// Main runs workers with its command line and returns the exit code. `workers migrate` looks after the database and ends,
// `workers once NAME` runs one round of the jobs that bear a legacy worker's name and ends.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "migrate":
			return migrate.Main(args[1:], stdout, stderr)
		case "once":
			return once(args[1:], stdout, stderr)
		}
	}
	flags := service.NewFlags(name)
	if code, done := flags.Parse(args, stdout, stderr); done {
		return code
	}
	w, _, code := start(flags, stderr)
	if code != service.ExitOK {
		return code
	}
	daemon := w.Daemon()
	daemon.Admin, daemon.DrainLimit = flags.Admin, flags.DrainLimit
	return daemon.Main()
}

func start(flags *service.Flags, stderr io.Writer) (*Workers, *slog.Logger, int) {
	log := flags.Logger(stderr)
	cfg, err := config.Load(flags.ConfigDir)
	if err == nil {
		err = cfg.Validate().Err()
	}
	if err != nil {
		log.Error("configuration is not usable", "config_dir", flags.ConfigDir, "error", err)
		return nil, log, service.ExitFailure
	}
	cfg.LogWarnings(log)
	w, err := Compose(context.Background(), Options{Config: cfg, Clock: clock.Real{}, Log: log})
	if err != nil {
		log.Error("cannot start", "error", err)
		return nil, log, service.ExitFailure
	}
	return w, log, service.ExitOK
}

// once does `workers once [--config-dir DIR] NAME`.
func once(args []string, stdout, stderr io.Writer) int {
	var worker string
	if n := len(args); n > 0 && !strings.HasPrefix(args[n-1], "-") {
		worker, args = args[n-1], args[:n-1]
	}
	flags := service.NewFlags(name)
	if code, done := flags.Parse(args, stdout, stderr); done {
		return code
	}
	w, log, code := start(flags, stderr)
	if code != service.ExitOK {
		return code
	}
	ctx := context.Background()
	err := errors.Join(w.Once(ctx, worker), w.Close(ctx))
	var unknown *UnknownError
	switch {
	case errors.As(err, &unknown):
		fmt.Fprintln(stderr, unknown) //nolint:errcheck // nowhere else to say it
		return service.ExitUsage
	case err != nil:
		log.Error("failed", "worker", worker, "error", err)
		return service.ExitFailure
	}
	return service.ExitOK
}

// Options of Compose. All are needed.
type Options struct {
	Config *config.Config
	Clock  clock.Clock
	Log    *slog.Logger
}

// Workers is the daemon's inside.
type Workers struct {
	runner   *runner.Runner
	idle     map[string]string // why a worker does not run, by its name
	db       *metadata.DB
	objects  *storage.Set
	locker   *locks.Postgres
	registry *prometheus.Registry
	clock    clock.Clock
	log      *slog.Logger
}

// Compose makes the workers without starting them. It connects to nothing.
func Compose(ctx context.Context, o Options) (_ *Workers, err error) {
	cfg := o.Config
	options := metadata.FromConfig(cfg)
	options.AppName, options.Clock, options.Logger = "quay-"+name, o.Clock, o.Log
	db, err := metadata.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	places := storage.Config{Preference: cfg.StoragePreference}
	for _, l := range cfg.Storage {
		places.Locations = append(places.Locations, storage.Location{Name: l.Name, Driver: l.Driver, Parameters: l.Parameters})
	}
	objects, err := storage.Open(places, o.Log)
	if err != nil {
		db.Close()
		return nil, err
	}
	registry := prometheus.NewRegistry()
	w := &Workers{idle: map[string]string{}, db: db, objects: objects, registry: registry, clock: o.Clock, log: o.Log,
		locker: locks.NewPostgres(db.Writer(), o.Clock, o.Log)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close(ctx))
		}
	}()
	runs, err := runner.NewMetrics(registry)
	if err != nil {
		return nil, err
	}
	w.runner = &runner.Runner{Locks: w.locker, Clock: o.Clock, Log: o.Log, Metrics: runs, Stagger: cfg.StaggerWorkers}
	collections, err := gc.NewMetrics(registry)
	if err != nil {
		return nil, err
	}
	queues, err := queue.NewMetrics(registry)
	if err != nil {
		return nil, err
	}
	collector := &gc.Collector{DB: db, Storage: objects, Locks: w.locker, Clock: o.Clock, Log: o.Log, Metrics: collections,
		Settings: gc.Settings{Quota: cfg.Features.QuotaManagement, InvalidateQuota: cfg.QuotaInvalidateTotals,
			ImmutableTagsCanExpire: cfg.Features.ImmutableTagsCanExpire}}
	newQueue := func(name string) *queue.Queue {
		return &queue.Queue{Name: name, DB: db, Clock: o.Clock, Metrics: queues}
	}
	f := cfg.Features

	w.add(cfg, pushesNeeded(cfg, unless(f.GarbageCollection, "FEATURE_GARBAGE_COLLECTION is off")),
		&gc.Tags{Collector: collector, Every: seconds(cfg.GarbageCollectionFrequency)},
		&gc.Links{Collector: collector, Every: seconds(cfg.GarbageCollectionFrequency)},
		&gc.Orphans{Collector: collector, Every: time.Hour})
	w.add(cfg, pushesNeeded(cfg, unless(f.RepositoryGC, "FEATURE_REPOSITORY_GARBAGE_COLLECTION is off")),
		&queue.Worker{Queue: newQueue(cfg.RepositoryGCQueueName), Worker: "repositorygcworker", Poll: time.Minute, Process: collector.PurgeDeletedRepository})
	w.add(cfg, pushesNeeded(cfg, unless(f.NamespaceGarbageCollection, "FEATURE_NAMESPACE_GARBAGE_COLLECTION is off")),
		&queue.Worker{Queue: newQueue(cfg.NamespaceGCQueueName), Worker: "namespacegcworker", Poll: time.Minute, Process: collector.PurgeDeletedNamespace})
	w.add(cfg, "", &cleanup.Uploads{DB: db, Storage: objects, Clock: o.Clock, Log: o.Log, Every: seconds(cfg.BlobUploadCleanupFrequency),
		Age: time.Duration(cfg.BlobUploadDeletionThreshold) * time.Minute, Folder: cfg.CleanBlobUploadFolder})
	w.add(cfg, "", &cleanup.Queue{DB: db, Clock: o.Clock, Every: seconds(cfg.QueueCleanupFrequency)})
	tokens := unless(f.AppSpecificTokens, "FEATURE_APP_SPECIFIC_TOKENS is off")
	if tokens == "" {
		tokens = unless(cfg.ExpiredAppSpecificTokenGC.IsSet(), "EXPIRED_APP_SPECIFIC_TOKEN_GC is not set")
	}
	w.add(cfg, tokens, &cleanup.AppTokens{DB: db, Clock: o.Clock, Keep: cfg.ExpiredAppSpecificTokenGC.Span()})
	quotas := unless(f.QuotaManagement, "FEATURE_QUOTA_MANAGEMENT is off")
	w.add(cfg, quotas, &quota.Registry{DB: db, Clock: o.Clock, Every: seconds(number(cfg, "QUOTA_REGISTRY_SIZE_POLL_PERIOD", 60))})
	if quotas == "" {
		quotas = unless(cfg.QuotaBackfill, "QUOTA_BACKFILL is off")
	}
	w.add(cfg, quotas, &quota.Totals{DB: db, Clock: o.Clock, Every: seconds(number(cfg, "QUOTA_BACKFILL_POLL_PERIOD", 15)),
		Delay: seconds(cfg.QuotaTotalDelaySeconds)})
	return w, nil
}

// add takes jobs in, unless there is a reason why they are idle.
func (w *Workers) add(cfg *config.Config, idle string, jobs ...runner.Job) {
	switch {
	case cfg.RegistryState == "readonly":
		idle = "REGISTRY_STATE is readonly"
	case cfg.AccountRecoveryMode:
		idle = "ACCOUNT_RECOVERY_MODE is on"
	}
	for _, job := range jobs {
		if idle != "" {
			w.idle[job.Name()] = idle
			continue
		}
		w.runner.Jobs = append(w.runner.Jobs, job)
	}
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

// pushesNeeded adds the gate of jobs that clean up after pushes.
func pushesNeeded(cfg *config.Config, idle string) string {
	if cfg.DisablePushes {
		return "DISABLE_PUSHES is on"
	}
	return idle
}

// number reads a number among the keys that have no field in Config; what is no number counts as not set.
func number(cfg *config.Config, key string, unset int64) int64 {
	if value, ok := cfg.Other[key]; ok {
		var n int64
		if value.Decode(&n) == nil && n > 0 {
			return n
		}
	}
	return unset
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// Daemon is the workers as a daemon; its admin address is still to be set.
func (w *Workers) Daemon() *service.Daemon {
	for _, worker := range w.Names() {
		if why := w.idle[worker]; why != "" {
			w.log.Info("worker is idle", "worker", worker, "cause", why)
		}
	}
	return &service.Daemon{
		Name: name, Log: w.log, Clock: w.clock, Metrics: w.registry,
		Checks: []service.Check{
			{Name: "database", Run: w.db.Ping},
			service.Check{Name: "storage", Run: func(ctx context.Context) error { return w.objects.Validate(ctx, false) }}.Every(storage.ProbeEvery, w.clock),
		},
		Background: []func(context.Context) error{w.runner.Run},
		OnDrain:    []func(context.Context) error{w.Close},
	}
}

// UnknownError is a name that no worker has.
type UnknownError struct {
	Name  string
	Known []string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no worker is named %q: name one of %s", e.Name, strings.Join(e.Known, ", "))
}

// Names are the names of all workers, idle ones too, sorted.
func (w *Workers) Names() []string {
	var names []string
	for _, job := range w.runner.Jobs {
		names = append(names, job.Name())
	}
	for name := range w.idle {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Once runs one round of each job of a worker. One that is idle does nothing, and says why in the log.
func (w *Workers) Once(ctx context.Context, worker string) error {
	if why := w.idle[worker]; why != "" {
		w.log.Info("worker is idle", "worker", worker, "cause", why)
		return nil
	}
	found := false
	for _, job := range w.runner.Jobs {
		if job.Name() != worker {
			continue
		}
		found = true
		progress, err := w.runner.Once(ctx, job)
		if err != nil {
			return err
		}
		w.log.Info("job done", "worker", worker, "operation", job.Schedule().Operation, "done", progress.Done)
	}
	if !found {
		return &UnknownError{Name: worker, Known: w.Names()}
	}
	return nil
}

// Close gives back what the workers hold.
func (w *Workers) Close(context.Context) error {
	w.locker.Close()
	w.db.Close()
	return w.objects.Close()
}
