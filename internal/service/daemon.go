package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quayctl/quayctl/internal/clock"
)

// DefaultDrainLimit bounds the drain when Daemon.DrainLimit is zero.
const DefaultDrainLimit = 30 * time.Second

const (
	phaseStarting int32 = iota
	phaseServing
	phaseDraining
)

// Daemon is one process of the appliance. Name and Log are required; everything else has a default.
type Daemon struct {
	// Name is registryd, edge, workers and so on; Version defaults to BuildVersion.
	Name, Version string
	Log           *slog.Logger
	// Clock is for what the daemon composes; its own waits are for sockets and processes, which keep
	// real time.
	Clock clock.Clock
	// Metrics is served on the admin listener; the Go, process and build metrics are added to it.
	Metrics *prometheus.Registry

	// Handler is the public surface, nil for a daemon without one.
	Handler http.Handler
	// Listen are the public addresses in ParseAddr's notation; they open when the checks have passed.
	Listen []string
	// Admin is the private address, empty for none.
	Admin string
	// TLS makes the public listeners speak TLS, HTTP/2 included.
	TLS *tls.Config

	// Checks decide readiness: READY is sent when all have passed once, /readyz repeats them.
	Checks []Check
	// Live decide whether the process is worth keeping: /livez, and the watchdog is fed while they pass.
	Live []Check
	// Background functions run from before the first check until the server has drained. One that
	// returns an error stops the daemon; returning nil early is allowed.
	Background []func(ctx context.Context) error
	// OnDrain functions flush what is left, in order, each even if one before it failed.
	OnDrain []func(ctx context.Context) error
	// DrainLimit bounds the whole drain.
	DrainLimit time.Duration
	// HeaderLimit is how long a client may take for a request's header or a TLS handshake (default 20 s),
	// IdleLimit how long its connection may stay idle (default 120 s). Bodies have no limit in time.
	HeaderLimit, IdleLimit time.Duration
	// OnReady is told the open addresses once requests are served; admin is nil without a listener.
	OnReady func(listen []net.Addr, admin net.Addr)

	phase atomic.Int32
}

// Exit codes of a daemon.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// Main runs the daemon until a signal ends it, logs what went wrong and returns the exit code.
func (d *Daemon) Main() int {
	if err := d.Run(context.Background()); err != nil {
		d.Log.Error("stopped", "error", err)
		return ExitFailure
	}
	d.Log.Info("stopped")
	return ExitOK
}

func (d *Daemon) defaults() {
	if d.Version == "" {
		d.Version = BuildVersion()
	}
	if d.Clock == nil {
		d.Clock = clock.Real{}
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
	}
	if d.DrainLimit == 0 {
		d.DrainLimit = DefaultDrainLimit
	}
	if d.HeaderLimit == 0 {
		d.HeaderLimit = defaultHeaderLimit
	}
	if d.IdleLimit == 0 {
		d.IdleLimit = defaultIdleLimit
	}
}

// errAsked ends a daemon that was asked to stop.
var errAsked = errors.New("asked to stop")

// Run lives the daemon's life (see the package's documentation). It returns nil after a clean drain,
// otherwise what stopped the daemon joined with what went wrong on the way out. It ends with parent, on
// SIGTERM and on SIGINT; a second signal cuts the drain short.
func (d *Daemon) Run(parent context.Context) error {
	d.defaults()
	if err := d.registerMetrics(); err != nil {
		return err
	}
	// life ends when the drain shall begin, afterlife when it shall be cut short.
	life, end := context.WithCancelCause(parent)
	defer end(nil)
	afterlife, abandon := context.WithCancel(context.WithoutCancel(parent))
	defer abandon()
	defer d.watchSignals(func() { end(errAsked) }, abandon)()

	in := takeInherited()
	defer in.close()
	admin, err := d.serveAdmin(life, in, end)
	if err != nil {
		return err
	}
	defer admin.close()

	workers := d.startBackground(context.WithoutCancel(parent), end)
	public, err := d.open(life, in, end)
	if err == nil {
		d.phase.Store(phaseServing)
		d.notify(daemon.SdNotifyReady + "\nSTATUS=serving")
		d.Log.Info("ready", "version", d.Version, "listen", public.addresses(), "admin", d.Admin)
		if d.OnReady != nil {
			d.OnReady(public.addrs(), admin.addr())
		}
		<-life.Done()
	} else {
		end(err)
	}

	d.phase.Store(phaseDraining)
	d.notify(daemon.SdNotifyStopping + "\nSTATUS=draining")
	d.Log.Info("draining", "cause", context.Cause(life).Error(), "limit", d.DrainLimit.String())
	limited, cancel := context.WithTimeout(afterlife, d.DrainLimit)
	defer cancel()
	errs := []error{d.failure(parent, life), public.drain(limited), workers.stop(limited)}
	for _, flush := range d.OnDrain {
		errs = append(errs, flush(limited))
	}
	return errors.Join(errs...)
}

// failure is what ended the daemon, nil when it was asked to stop.
func (d *Daemon) failure(parent, life context.Context) error {
	cause := context.Cause(life)
	if errors.Is(cause, errAsked) || errors.Is(cause, context.Cause(parent)) {
		return nil
	}
	return cause
}

// watchSignals calls first on the first SIGTERM or SIGINT and further on each later one, until the
// function that it returns is called.
func (d *Daemon) watchSignals(first, further func()) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		react := first
		for {
			select {
			case <-signals:
				react()
				react = further
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		wg.Wait()
	}
}

// open waits for the checks and opens the public listeners.
func (d *Daemon) open(life context.Context, in *inherited, end func(error)) (*server, error) {
	if err := d.awaitChecks(life); err != nil {
		return nil, err
	}
	if d.Handler == nil {
		return nil, nil
	}
	s := newServer(d)
	for _, text := range d.Listen {
		addr, err := ParseAddr(text)
		if err != nil {
			return s, err
		}
		listeners, err := addr.listen(life, in)
		if err != nil {
			return s, err
		}
		for _, l := range listeners {
			s.serve(l, end)
		}
	}
	if len(s.listeners) == 0 {
		return s, errors.New("nothing to listen on: give --listen unix:PATH, tcp:HOST:PORT or systemd")
	}
	return s, nil
}

// awaitChecks repeats the checks until all pass. Readiness has no limit of its own: systemd's
// TimeoutStartSec and quayctl have one, and both show the status told here.
func (d *Daemon) awaitChecks(life context.Context) error {
	told := ""
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if life.Err() != nil {
			return context.Cause(life)
		}
		report := examine(life, d.Checks)
		if report.OK() {
			return nil
		}
		for _, c := range d.Checks {
			if r := report.Checks[c.Name]; !r.OK {
				if status := fmt.Sprintf("waiting for %s: %s", c.Name, r.Error); status != told && life.Err() == nil {
					d.notify("STATUS=" + status)
					d.Log.Warn("not ready", "check", c.Name, "error", r.Error)
					told = status
				}
				break
			}
		}
		// A real pause whatever d.Clock is: what is waited for is another process.
		if err := (clock.Real{}).Sleep(life, pause); err != nil {
			return context.Cause(life)
		}
	}
}

// notify tells systemd; without a notification socket it does nothing.
func (d *Daemon) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.Log.Warn("notify systemd", "error", err)
	}
}

// background is the set of functions that run beside the server.
type background struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

func (d *Daemon) startBackground(ctx context.Context, end func(error)) *background {
	ctx, cancel := context.WithCancel(ctx)
	b := &background{cancel: cancel}
	for _, f := range append([]func(context.Context) error{d.watchdog}, d.Background...) {
		b.wg.Go(func() {
			err := f(ctx)
			switch {
			case err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()):
			case ctx.Err() != nil:
				b.mu.Lock()
				b.errs = append(b.errs, err)
				b.mu.Unlock()
			default:
				end(err)
			}
		})
	}
	return b
}

// stop cancels the functions and waits for them until ctx ends.
func (b *background) stop(ctx context.Context) error {
	b.cancel()
	done := make(chan struct{})
	go func() {
		b.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return errors.New("background work did not end within the drain limit")
	}
	return errors.Join(b.errs...)
}

// watchdog feeds systemd's watchdog at half its interval while the liveness checks pass.
func (d *Daemon) watchdog(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read WATCHDOG_USEC: %w", err)
	}
	if interval == 0 {
		return nil
	}
	ticks := time.NewTicker(interval / 2)
	defer ticks.Stop()
	for {
		if report := examine(ctx, d.Live); report.OK() {
			d.notify(daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			d.Log.Error("not alive, the watchdog is not fed", "checks", report.Checks)
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}
