package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quayctl/quayctl/internal/clock"
)

// checkLimit bounds one check.
const checkLimit = 5 * time.Second

// Check is a named condition. Run returns nil when it holds, else an error that names cause and remedy.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// Every is a check that, once it has passed, is taken for passed until d has gone by on c: for conditions that are expensive
// to examine. A failure is examined again each time.
func (k Check) Every(d time.Duration, c clock.Clock) Check {
	var mu sync.Mutex
	var passed time.Time
	return Check{Name: k.Name, Run: func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if !passed.IsZero() && c.Now().Sub(passed) < d {
			return nil
		}
		err := k.Run(ctx)
		if passed = (time.Time{}); err == nil {
			passed = c.Now()
		}
		return err
	}}
}

// Warning is an error that a check returns when its condition holds and something should be said all the
// same: the result is ok and carries the text.
type Warning struct{ Err error }

// Error is the text of the cause.
func (w Warning) Error() string { return w.Err.Error() }

// Unwrap returns the cause.
func (w Warning) Unwrap() error { return w.Err }

// Result is one check's outcome. Error may be set on a passing check too (Warning).
type Result struct {
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// Report is the body of /readyz and /livez. Status is ok, failing, starting or draining.
type Report struct {
	Status string            `json:"status"`
	Checks map[string]Result `json:"checks"`
}

// OK tells whether the answer is 200.
func (r Report) OK() bool { return r.Status == "ok" }

// examine runs the checks at the same time and waits for all of them.
func examine(ctx context.Context, checks []Check) Report {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	results := make([]Result, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			if err := runCheck(ctx, c); err != nil {
				var warning Warning
				results[i] = Result{OK: errors.As(err, &warning), Error: err.Error()}
				return
			}
			results[i].OK = true
		})
	}
	wg.Wait()
	report := Report{Status: "ok", Checks: make(map[string]Result, len(checks))}
	for i, c := range checks {
		report.Checks[c.Name] = results[i]
		if !results[i].OK {
			report.Status = "failing"
		}
	}
	return report
}

// runCheck turns a panic of one check into its failure: a broken check must not end the daemon.
func runCheck(ctx context.Context, c Check) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("check panicked: %v", p)
		}
	}()
	return c.Run(ctx)
}

// registerMetrics adds what every daemon exports.
func (d *Daemon) registerMetrics() error {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quay_build_info", Help: "Always 1; the labels tell what runs.",
	}, []string{"daemon", "version", "go", "fips"})
	v := d.version()
	build.WithLabelValues(v.Name, v.Version, v.Go, fmt.Sprint(v.FIPS)).Set(1)
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
	} {
		var twice prometheus.AlreadyRegisteredError
		if err := d.Metrics.Register(c); err != nil && !errors.As(err, &twice) {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// adminHandler serves the private surface.
func (d *Daemon) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		writeReport(w, examine(r.Context(), d.Live))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		report := examine(r.Context(), d.Checks)
		switch d.phase.Load() {
		case phaseStarting:
			report.Status = "starting"
		case phaseDraining:
			report.Status = "draining"
		}
		writeReport(w, report)
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, d.version()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.Metrics, promhttp.HandlerOpts{}))
	return mux
}

func writeReport(w http.ResponseWriter, r Report) {
	status := http.StatusOK
	if !r.OK() {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, r)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) //nolint:errcheck // the client went away
}
