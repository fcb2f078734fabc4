// Package runner lives the life of background jobs: each runs on its schedule, one run at a time, and where it must not
// run twice in a cluster, under a lease. A job that fails or panics is logged and runs again at its next time.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
)

// firstRun is how long after the start a job runs for the first time at the earliest (contract, behaviour.md §7.1).
const firstRun = 5 * time.Second

// Job is one periodic piece of work. A run is cut into small steps, each of which leaves nothing half-done: Run returns
// at the next such point when ctx ends.
type Job interface {
	// Name is the legacy worker's name, or for work that the legacy server does not have one of ours. `workers once`
	// and the metrics' label worker use it; two jobs of one worker differ in Operation.
	Name() string
	Schedule() Schedule
	// Run does one round.
	Run(ctx context.Context) (Progress, error)
}

// Schedule says when and where a job runs.
type Schedule struct {
	// Operation names the job within its worker, for logs and metrics.
	Operation string
	// Every is the time from the start of one round to the start of the next.
	Every time.Duration
	// Delay is a further wait before the first round.
	Delay time.Duration
	// Lock is the name of the lease under which a round runs, "" for none: then every instance may run at once. A round
	// whose lease another instance holds is left out.
	Lock string
	// LockTTL is after what time the lease ends by itself.
	LockTTL time.Duration
}

// Progress is what a round has done.
type Progress struct {
	// Done counts the things worked on; a round with 0 is not logged.
	Done int
	// More asks for the next round at once.
	More bool
}

// Runner is a set of jobs. All fields but Stagger are needed.
type Runner struct {
	Jobs []Job
	// Locks gives the leases. Today they are PostgreSQL's; where Redis is configured, a Locker on it takes this place,
	// so that a legacy server in the same cluster sees them.
	Locks   locks.Locker
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *Metrics
	// Stagger starts the jobs at random moments of their first period (STAGGER_WORKERS).
	Stagger bool
}

// Run runs the jobs until ctx ends, and returns when each has come to a safe point.
func (r *Runner) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, job := range r.Jobs {
		running.Go(func() { r.repeat(ctx, job) })
	}
	running.Wait()
	return nil
}

func (r *Runner) repeat(ctx context.Context, job Job) {
	every := job.Schedule().Every
	pause := firstRun + job.Schedule().Delay
	if r.Stagger && every >= time.Second {
		pause += time.Second * time.Duration(1+rand.Int64N(int64(every/time.Second))) //nolint:gosec // spreads load, guards nothing
	}
	for r.Clock.Sleep(ctx, pause) == nil {
		started := r.Clock.Now()
		if more := r.round(ctx, job); more {
			pause = 0
			continue
		}
		pause = max(every-r.Clock.Now().Sub(started), 0)
		if pause == 0 {
			pause = every // a round that was longer than its period leaves out the next ones
		}
	}
}

// round runs a job once and logs how it went.
func (r *Runner) round(ctx context.Context, job Job) (more bool) {
	log := r.Log.With("worker", job.Name(), "operation", job.Schedule().Operation)
	started := r.Clock.Now()
	progress, err := r.Once(ctx, job)
	took := r.Clock.Now().Sub(started)
	switch {
	case errors.Is(err, locks.ErrHeld):
		log.DebugContext(ctx, "another instance does it", "lock", job.Schedule().Lock)
	case err != nil && ctx.Err() != nil:
		log.InfoContext(ctx, "stopped at a safe point", "done", progress.Done)
	case err != nil:
		log.ErrorContext(ctx, "job failed, it runs again at its next time", "error", err, "took", took.String())
	case progress.Done > 0:
		log.InfoContext(ctx, "job done", "done", progress.Done, "took", took.String())
	}
	return err == nil && progress.More
}

// Once runs one round of a job, under its lease if it has one: locks.ErrHeld (wrapped) when another instance has that.
// A panic becomes an error.
func (r *Runner) Once(ctx context.Context, job Job) (progress Progress, err error) {
	s := job.Schedule()
	ctx = metadata.Track(ctx)
	if s.Lock != "" {
		lease, err := r.Locks.Try(ctx, s.Lock, s.LockTTL)
		if err != nil {
			return Progress{}, fmt.Errorf("run %s: %w", job.Name(), err)
		}
		defer lease.Release()
		// What outlives its lease would run beside another instance.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			if r.Clock.Sleep(ctx, s.LockTTL) == nil {
				cancel()
			}
		}()
	}
	defer r.Metrics.observe(job.Name(), s.Operation, r.Clock)()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("run %s: panic: %v\n%s", job.Name(), p, debug.Stack())
		}
	}()
	if progress, err = job.Run(ctx); err != nil {
		err = fmt.Errorf("run %s: %w", job.Name(), err)
	}
	return progress, err
}

// Metrics tell what the jobs do, under the legacy names.
type Metrics struct {
	duration   *prometheus.HistogramVec
	inProgress *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	labels := []string{"worker", "operation"}
	m := &Metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quay_worker_operation_duration_seconds", Help: "Duration of a worker's operations.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
		}, labels),
		inProgress: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "quay_worker_operation_in_progress", Help: "Operations that workers are in the middle of.",
		}, labels),
	}
	for _, c := range []prometheus.Collector{m.duration, m.inProgress} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) observe(worker, operation string, c clock.Clock) (done func()) {
	started := c.Now()
	m.inProgress.WithLabelValues(worker, operation).Inc()
	return func() {
		m.inProgress.WithLabelValues(worker, operation).Dec()
		m.duration.WithLabelValues(worker, operation).Observe(c.Now().Sub(started).Seconds())
	}
}
