package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DrainGrace is how long a draining server answers with Connection: close before it closes idle
	// connections. Measured: with it no request fails over a restart, without it up to 38 of 20,000.
	DrainGrace = 300 * time.Millisecond

	defaultHeaderLimit = 20 * time.Second
	// defaultIdleLimit is longer than the edge's own limit for connections to its upstreams, so that it
	// is always the edge that closes them.
	defaultIdleLimit = 120 * time.Second
	// headerBytes is the longest header, as nginx's four buffers of 32k.
	headerBytes = 128 << 10
)

// server is the public surface: an http.Server whose drain fails no request.
type server struct {
	http      *http.Server
	tls       bool
	handler   http.Handler
	listeners []net.Listener
	wg        sync.WaitGroup

	draining atomic.Bool
	// open counts the requests whose answers do not say Connection: close.
	open atomic.Int64
	// lastOpen is when such a request last ended, in nanoseconds since began.
	lastOpen atomic.Int64
	began    time.Time

	mu    sync.Mutex
	fresh map[*net.UnixConn]struct{} // connections that have not carried a request yet
}

func newServer(d *Daemon) *server {
	s := &server{handler: d.Handler, tls: d.TLS != nil, began: time.Now(), fresh: map[*net.UnixConn]struct{}{}}
	s.http = &http.Server{
		Handler:           s,
		TLSConfig:         d.TLS,
		ReadHeaderTimeout: d.HeaderLimit,
		IdleTimeout:       d.IdleLimit,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(d.Log.Handler(), slog.LevelInfo),
		ConnState:         s.track,
	}
	return s
}

// ServeHTTP passes the request on and, once the drain has begun, says that the connection closes.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.open.Add(1)
	if s.draining.Load() {
		s.open.Add(-1)
		w.Header().Set("Connection", "close") // on HTTP/2 net/http turns this into GOAWAY
		s.handler.ServeHTTP(w, r)
		return
	}
	defer func() {
		s.lastOpen.Store(int64(time.Since(s.began)))
		s.open.Add(-1)
	}()
	s.handler.ServeHTTP(w, r)
}

// track remembers unix connections that have not carried a request. An upstream's client dials such
// connections in advance, and Shutdown would wait five seconds for each.
func (s *server) track(c net.Conn, state http.ConnState) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.fresh[u] = struct{}{}
	} else {
		delete(s.fresh, u)
	}
}

// serve accepts from l until the drain; an error ends the daemon.
func (s *server) serve(l net.Listener, end func(error)) {
	s.listeners = append(s.listeners, l)
	s.wg.Go(func() {
		var err error
		if s.tls {
			err = s.http.ServeTLS(l, "", "")
		} else {
			err = s.http.Serve(l)
		}
		if s.draining.Load() && errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		end(fmt.Errorf("serve %s: %w", l.Addr(), err))
	})
}

// drain ends the server so that no client notices: see the package's documentation. It returns an error
// when requests had to be cut because ctx ended.
func (s *server) drain(ctx context.Context) error {
	if s == nil || len(s.listeners) == 0 {
		return nil
	}
	s.draining.Store(true)
	var errs []error
	for _, l := range s.listeners {
		if u, ok := l.(*unixListener); ok {
			// Nobody finds the socket any more; those already in its queue are still served.
			errs = append(errs, u.unlink())
			continue
		}
		errs = append(errs, l.Close())
	}
	s.awaitOpen(ctx)
	s.closeFresh()
	if err := s.http.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("requests still ran at the end of the drain limit and were cut: %w", err), s.http.Close())
	}
	s.wg.Wait()
	return errors.Join(errs...)
}

// awaitOpen returns when every request that began before the drain, and so never said Connection: close,
// ended at least DrainGrace ago: its client may send the next one on the same connection.
func (s *server) awaitOpen(ctx context.Context) {
	until := time.Now().Add(DrainGrace)
	t := time.NewTimer(DrainGrace)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if s.open.Load() == 0 {
			until = later(until, s.began.Add(time.Duration(s.lastOpen.Load())+DrainGrace))
			if !time.Now().Before(until) {
				return
			}
			t.Reset(time.Until(until))
			continue
		}
		t.Reset(DrainGrace / 10)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *server) closeFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.fresh {
		c.Close()
	}
}

func (s *server) addrs() []net.Addr {
	if s == nil {
		return nil
	}
	var addrs []net.Addr
	for _, l := range s.listeners {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

func (s *server) addresses() string {
	var texts []string
	for _, a := range s.addrs() {
		texts = append(texts, a.Network()+":"+a.String())
	}
	return strings.Join(texts, " ")
}

// adminServer is the private surface; it stays open through the drain.
type adminServer struct {
	http     *http.Server
	listener net.Listener
	wg       sync.WaitGroup
}

// serveAdmin opens the admin listener; nil, nil without an address.
func (d *Daemon) serveAdmin(ctx context.Context, in *inherited, end func(error)) (*adminServer, error) {
	if d.Admin == "" {
		return nil, nil
	}
	addr, err := ParseAddr(d.Admin)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	listeners, err := addr.listen(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	a := &adminServer{listener: listeners[0], http: &http.Server{
		Handler:           d.adminHandler(),
		ReadHeaderTimeout: d.HeaderLimit,
		IdleTimeout:       d.IdleLimit,
		ErrorLog:          slog.NewLogLogger(d.Log.Handler(), slog.LevelInfo),
	}}
	a.wg.Go(func() {
		if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			end(fmt.Errorf("serve admin listener: %w", err))
		}
	})
	for _, l := range listeners[1:] {
		l.Close()
	}
	return a, nil
}

func (a *adminServer) addr() net.Addr {
	if a == nil {
		return nil
	}
	return a.listener.Addr()
}

// close ends the listener; whoever asks at that moment gets a second to read its answer.
func (a *adminServer) close() {
	if a == nil {
		return
	}
	if u, ok := a.listener.(*unixListener); ok {
		u.unlink() //nolint:errcheck // the next start replaces a stale socket
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.http.Shutdown(ctx) != nil {
		a.http.Close()
	}
	a.wg.Wait()
}
