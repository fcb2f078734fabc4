package runner_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/jobs/runner"
	"github.com/quayctl/quayctl/internal/locks"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// job tells each start on a channel and does what it is told.
type job struct {
	schedule runner.Schedule
	started  chan time.Time
	clock    clock.Clock
	run      func(ctx context.Context, n int) (runner.Progress, error)
	n        int
}

func (j *job) Name() string { return "testworker" }

func (j *job) Schedule() runner.Schedule { return j.schedule }

func (j *job) Run(ctx context.Context) (runner.Progress, error) {
	j.n++
	j.started <- j.clock.Now()
	if j.run == nil {
		return runner.Progress{}, nil
	}
	return j.run(ctx, j.n)
}

type fixture struct {
	t      *testing.T
	clock  *clock.Fake
	log    bytes.Buffer
	reg    *prometheus.Registry
	runner *runner.Runner
	job    *job
	start  time.Time
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// begin runs one job without locks.
func begin(t *testing.T, stagger bool, run func(ctx context.Context, n int) (runner.Progress, error)) *fixture {
	t.Helper()
	f := &fixture{t: t, start: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), reg: prometheus.NewRegistry()}
	f.clock = clock.NewFake(f.start)
	metrics, err := runner.NewMetrics(f.reg)
	if err != nil {
		t.Fatal(err)
	}
	f.job = &job{schedule: runner.Schedule{Operation: "op", Every: 30 * time.Second}, started: make(chan time.Time, 10), clock: f.clock, run: run}
	f.runner = &runner.Runner{Jobs: []runner.Job{f.job}, Clock: f.clock, Log: slog.New(slog.NewTextHandler(&f.log, nil)), Metrics: metrics, Stagger: stagger}
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	f.done.Go(func() {
		if err := f.runner.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); f.done.Wait() })
	return f
}

// next advances the clock by seconds until the job starts, and returns when that was after the beginning.
func (f *fixture) next() time.Duration {
	f.t.Helper()
	for f.t.Context().Err() == nil && f.clock.Now().Sub(f.start) < time.Hour {
		select {
		case at := <-f.job.started:
			return at.Sub(f.start)
		default:
		}
		if f.clock.Sleepers() > 0 {
			f.clock.Advance(time.Second)
		} else {
			runtime.Gosched() // the job is about to start, or to wait
		}
	}
	f.t.Fatal("the job does not start")
	return 0
}

func TestSchedule(t *testing.T) {
	f := begin(t, false, nil)
	for _, want := range []time.Duration{5 * time.Second, 35 * time.Second, 65 * time.Second} {
		if got := f.next(); got != want {
			t.Errorf("it starts after %v, not %v", got, want)
		}
	}
}

func TestStagger(t *testing.T) {
	f := begin(t, true, nil)
	first := f.next()
	if first < 6*time.Second || first > 35*time.Second {
		t.Errorf("first run after %v, not between 6 and 35 s", first)
	}
	if second := f.next(); second != first+30*time.Second {
		t.Errorf("second run after %v, first after %v", second, first)
	}
}

func TestFailuresAndPanicsGoOn(t *testing.T) {
	f := begin(t, false, func(_ context.Context, n int) (runner.Progress, error) {
		switch n {
		case 1:
			return runner.Progress{}, errors.New("no luck")
		case 2:
			panic("a bug")
		}
		return runner.Progress{Done: 7}, nil
	})
	for _, want := range []time.Duration{5 * time.Second, 35 * time.Second, 65 * time.Second, 95 * time.Second} {
		if got := f.next(); got != want {
			t.Errorf("it starts after %v, not %v", got, want)
		}
	}
	f.stop()
	f.done.Wait()
	for _, want := range []string{"no luck", "panic: a bug", "done=7", "worker=testworker"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, f.log.String())
		}
	}
	families, err := f.reg.Gather()
	if err != nil || len(families) != 2 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	if n := families[0].GetMetric()[0].GetHistogram().GetSampleCount(); families[0].GetName() != "quay_worker_operation_duration_seconds" || n != 4 {
		t.Errorf("%s has %d samples", families[0].GetName(), n)
	}
}

func TestMoreRunsAtOnce(t *testing.T) {
	f := begin(t, false, func(_ context.Context, n int) (runner.Progress, error) {
		return runner.Progress{Done: 1, More: n < 3}, nil
	})
	for _, want := range []time.Duration{5 * time.Second, 5 * time.Second, 5 * time.Second, 35 * time.Second} {
		if got := f.next(); got != want {
			t.Errorf("it starts after %v, not %v", got, want)
		}
	}
}

// TestLongRun leaves out the starts that a long run has missed.
func TestLongRun(t *testing.T) {
	var f *fixture
	f = begin(t, false, func(_ context.Context, n int) (runner.Progress, error) {
		if n == 1 {
			f.clock.Advance(70 * time.Second)
		}
		return runner.Progress{}, nil
	})
	for _, want := range []time.Duration{5 * time.Second, 105 * time.Second} {
		if got := f.next(); got != want {
			t.Errorf("it starts after %v, not %v", got, want)
		}
	}
}

// TestStop waits for the job that runs.
func TestStop(t *testing.T) {
	safe := false
	f := begin(t, false, func(ctx context.Context, _ int) (runner.Progress, error) {
		<-ctx.Done()
		safe = true
		return runner.Progress{Done: 1}, ctx.Err()
	})
	f.next()
	f.stop()
	f.done.Wait()
	if !safe {
		t.Error("Run returned before the job")
	}
	if !strings.Contains(f.log.String(), "safe point") || strings.Contains(f.log.String(), "failed") {
		t.Errorf("log:\n%s", f.log.String())
	}
}

// TestOneInstance runs a job with a lease in two processes: the second leaves the round out.
func TestOneInstance(t *testing.T) {
	database := pgtest.New(t)
	log := slog.New(slog.DiscardHandler)
	inside, leave := make(chan struct{}), make(chan struct{})
	instance := func(run func(context.Context, int) (runner.Progress, error)) (*runner.Runner, *job) {
		db, err := metadata.Open(t.Context(), metadata.Options{WriterDSN: database.DSN, AppName: "runner-test", Clock: clock.Real{}, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		locker := locks.NewPostgres(db.Writer(), clock.Real{}, log)
		t.Cleanup(locker.Close)
		metrics, err := runner.NewMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return &runner.Runner{Locks: locker, Clock: clock.Real{}, Log: log, Metrics: metrics},
			&job{schedule: runner.Schedule{Every: time.Minute, Lock: "BLOB_CLEANUP", LockTTL: time.Minute}, started: make(chan time.Time, 10), clock: clock.Real{}, run: run}
	}
	first, long := instance(func(context.Context, int) (runner.Progress, error) {
		close(inside)
		<-leave
		return runner.Progress{}, nil
	})
	second, short := instance(nil)
	var done sync.WaitGroup
	done.Go(func() {
		if _, err := first.Once(t.Context(), long); err != nil {
			t.Error(err)
		}
	})
	<-inside
	if _, err := second.Once(t.Context(), short); !errors.Is(err, locks.ErrHeld) || short.n != 0 {
		t.Errorf("the second instance ran %d times: %v", short.n, err)
	}
	close(leave)
	done.Wait()
	if _, err := second.Once(t.Context(), short); err != nil || short.n != 1 {
		t.Errorf("afterwards it ran %d times: %v", short.n, err)
	}
}
