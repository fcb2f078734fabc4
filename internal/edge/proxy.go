package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

const (
	// dialLimit is how long a request waits for registryd to come back (ARCHITECTURE.md, Drain).
	dialLimit = 10 * time.Second
	// statusGone is how logs and metrics show a request whose client went away, as in nginx.
	statusGone = 499

	headerOffload     = "X-Quay-Offload"
	headerOffloadPath = "X-Quay-Offload-Path"
)

// errOffload makes the reverse proxy hand the answer to fail, which sends the file.
var errOffload = errors.New("registryd left the bytes to the edge")

// unreachableError is a dial that failed until the limit.
type unreachableError struct {
	addr  string
	cause error
}

func (u *unreachableError) Error() string {
	return fmt.Sprintf("registryd does not answer at %s: %v", u.addr, u.cause)
}
func (u *unreachableError) Unwrap() error { return u.cause }

// dial connects to registryd. While it is being restarted it tries again: a request that has not been
// sent can wait. net/http repeats nothing on its own account, except what it may.
func (e *Edge) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.dialLimit)
	defer cancel()
	var last error
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		c, err := e.o.Registryd.Dial(ctx)
		if err == nil {
			return c, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // the last real reason, not the end of the wait
		}
		e.metrics.dialFailures.Inc()
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, &unreachableError{e.o.Registryd.String(), last}
		}
	}
}

// forward sends the request to registryd.
func (e *Edge) forward(x *exchange) {
	limit := int64(smallBody)
	if x.route == routeUpload || x.route == routeBlob || x.route == routeV1 {
		limit = e.o.LargestBlob
	}
	if x.in.ContentLength > limit {
		e.tooLarge(x, limit)
		return
	}
	if x.in.Body != nil && x.in.Body != http.NoBody {
		x.in.Body = http.MaxBytesReader(x.out.ResponseWriter, x.in.Body, limit)
	}
	e.proxy.ServeHTTP(x.out, x.in)
}

// rewrite makes the request that registryd gets.
func (e *Edge) rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In.Context())
	out := p.Out
	out.URL.Scheme, out.URL.Host = "http", "registryd"
	out.URL.RawQuery = p.In.URL.RawQuery // as it came: registryd judges it
	out.Host = p.In.Host
	for name := range out.Header {
		if strings.HasPrefix(name, headerOffload) {
			delete(out.Header, name)
		}
	}
	out.Header.Set(headerRequestID, x.id)
	if out.Method == http.MethodGet && !x.noOffload && e.storage.any() {
		out.Header.Set(headerOffload, "1")
	}
	forwarded := p.In.Header.Values("X-Forwarded-For")
	if addr := clientAddress(p.In); addr != "" {
		forwarded = append(forwarded[:len(forwarded):len(forwarded)], addr)
	}
	if len(forwarded) > 0 {
		out.Header.Set("X-Forwarded-For", strings.Join(forwarded, ", "))
	}
	scheme := "http"
	if p.In.TLS != nil || e.o.TrustForwardedProto && p.In.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	out.Header.Set("X-Forwarded-Proto", scheme)
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip uses a kept connection only for requests that net/http may send again when registryd closed
// that connection meanwhile. Others get a connection of their own, which costs 30 µs on a unix socket.
func (e *Edge) roundTrip(r *http.Request) (*http.Response, error) {
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.Body == nil || r.Body == http.NoBody) {
		return e.pooled.RoundTrip(r)
	}
	return e.fresh.RoundTrip(r)
}

// modify takes the internal headers out of registryd's answer.
func (e *Edge) modify(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	object := res.Header.Get(headerOffloadPath)
	for name := range res.Header {
		if strings.HasPrefix(name, headerOffload) {
			delete(res.Header, name)
		}
	}
	for _, own := range []string{headerRequestID, headerFrame, headerHSTS} {
		res.Header.Del(own) // the edge sets it
	}
	if object == "" {
		return nil
	}
	x.object, x.header = object, res.Header
	return errOffload
}

// fail answers when there is no answer of registryd to pass on.
func (e *Edge) fail(_ http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	var tooLarge *http.MaxBytesError
	var unreachable *unreachableError
	switch {
	case errors.Is(err, errOffload):
		e.sendObject(x)
	case errors.As(err, &tooLarge):
		e.tooLarge(x, tooLarge.Limit)
	case x.in.Context().Err() != nil:
		x.note = "the client went away"
		x.out.status = statusGone
		panic(http.ErrAbortHandler)
	case errors.As(err, &unreachable):
		x.note = err.Error()
		x.out.Header().Set("Retry-After", "5")
		e.unavailable(x, http.StatusServiceUnavailable, unreachable.Error()+"; look at its log with: quayctl logs registryd")
	default:
		x.note = err.Error()
		e.unavailable(x, http.StatusBadGateway, fmt.Sprintf("registryd broke off the request: %v; look at its log with: quayctl logs registryd", err))
	}
}

func (e *Edge) unavailable(x *exchange, status int, message string) {
	if x.route == routeV1 {
		writeError(x.out, status, map[string]any{"error": message})
		return
	}
	writeRegistryError(x.out, status, "UNAVAILABLE", message, map[string]any{"request_id": x.id})
}

func (e *Edge) tooLarge(x *exchange, limit int64) {
	x.note = "body too large"
	x.out.Header().Set("Connection", "close") // the rest of the body is not read
	message := fmt.Sprintf("the body is larger than the %d bytes allowed here", limit)
	switch x.route {
	case routeV1:
		writeError(x.out, http.StatusRequestEntityTooLarge, map[string]any{"error": message})
	case routeManifest:
		writeRegistryError(x.out, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", message, map[string]any{"limit": limit})
	default:
		writeRegistryError(x.out, http.StatusRequestEntityTooLarge, "SIZE_INVALID",
			message+"; MAXIMUM_LAYER_SIZE in config.yaml is the limit of layers", map[string]any{"limit": limit})
	}
}

// buffers lends byte slices of one size.
type buffers struct{ pool sync.Pool }

func newBuffers(size int) *buffers {
	return &buffers{sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return *b.pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
