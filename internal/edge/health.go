package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/service"
)

const (
	// healthLimit bounds the question to a component, as in the legacy server's internal pings.
	healthLimit = 2 * time.Second
	// healthAge is how long answers are reused, so that probes cost the components nothing.
	healthAge = time.Second
	// diskFailing and diskWarning are the free shares below which the disk checks fail.
	diskFailing, diskWarning = 0.01, 0.1
)

// Component is a daemon whose health counts. The one called registryd also tells about the database.
type Component struct {
	Name string
	Addr service.Addr
}

// health answers for the whole appliance in the legacy server's shape.
type health struct {
	components []Component
	clients    []*http.Client
	storage    *storage
	clock      clock.Clock

	mu    sync.Mutex // held while the components are asked: others wait for the same answer
	asked time.Time
	last  map[string]service.Report
}

func newHealth(components []Component, s *storage, c clock.Clock) *health {
	h := &health{components: components, storage: s, clock: c}
	for _, one := range components {
		h.clients = append(h.clients, &http.Client{Transport: &http.Transport{
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return one.Addr.Dial(ctx) },
			MaxIdleConns:    1,
			IdleConnTimeout: 30 * time.Second,
		}})
	}
	return h
}

func (h *health) close() {
	for _, c := range h.clients {
		c.CloseIdleConnections()
	}
}

// reports are the components' answers, at most healthAge old. A component that does not answer has the
// status "unreachable".
func (h *health) reports() map[string]service.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.clock.Now()
	if h.last != nil && now.Sub(h.asked) < healthAge && !now.Before(h.asked) {
		return h.last
	}
	// Not the request's context: its client may go away while others wait for the answer.
	ctx, cancel := context.WithTimeout(context.Background(), healthLimit)
	defer cancel()
	answers := make([]service.Report, len(h.components))
	var wg sync.WaitGroup
	for i, c := range h.clients {
		wg.Go(func() {
			r, err := ask(ctx, c)
			if err != nil {
				r = service.Report{Status: "unreachable", Checks: map[string]service.Result{"reachable": {Error: err.Error()}}}
			}
			answers[i] = r
		})
	}
	wg.Wait()
	h.asked, h.last = now, map[string]service.Report{}
	for i, c := range h.components {
		h.last[c.Name] = answers[i]
	}
	return h.last
}

// ask reads a component's /readyz.
func ask(ctx context.Context, c *http.Client) (service.Report, error) {
	var r service.Report
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://component/readyz", nil)
	if err != nil {
		return r, err
	}
	res, err := c.Do(req)
	if err != nil {
		return r, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&r); err != nil {
		return r, fmt.Errorf("answer of /readyz: %w", err)
	}
	return r, nil
}

// registrydChecks are the checks of registryd that have a service of their own in the legacy answer.
var registrydChecks = map[string]string{"database": "database", "auth": "auth", "instance_key": "service_key", "storage": "storage"}

// services translates the reports into the legacy server's names. registry_gunicorn is registryd beside
// the checks that have their own name; web_gunicorn, whose process this profile lacks, is every other
// component. A check that registryd does not have passes when registryd answers; without a registryd
// nothing does.
func services(reports map[string]service.Report) map[string]bool {
	s := map[string]bool{
		"web_gunicorn": true,
		"redis":        true, // nothing in this profile uses it
	}
	for name, r := range reports {
		answers := r.Status == "ok" || r.Status == "failing"
		if name != "registryd" {
			s["web_gunicorn"] = s["web_gunicorn"] && r.OK()
			continue
		}
		s["registry_gunicorn"] = answers
		for _, own := range registrydChecks {
			s[own] = answers
		}
		for check, result := range r.Checks {
			if own, ok := registrydChecks[check]; ok {
				s[own] = answers && result.OK
			} else if !result.OK {
				s["registry_gunicorn"] = false
			}
		}
		// Users are in the database: without it nobody is known.
		s["auth"] = s["auth"] && s["database"]
	}
	return s
}

// serve answers the health routes.
func (h *health) serve(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	default:
		methodNotAllowed(w)
		return
	}
	var names []string
	switch r.URL.Path {
	case "/health/warning":
		names = []string{"disk_space_warning"}
	case "/health/endtoend", "/status":
		names = []string{"auth", "database", "redis", "storage"}
	default:
		names = []string{"auth", "database", "disk_space", "registry_gunicorn", "service_key", "web_gunicorn"}
	}
	var all map[string]bool
	if names[0] != "disk_space_warning" {
		all = services(h.reports())
	} else {
		all = map[string]bool{}
	}
	free, err := h.storage.free()
	all["disk_space"] = err == nil && free >= diskFailing
	all["disk_space_warning"] = err == nil && free >= diskWarning

	status := http.StatusOK
	shown := map[string]bool{}
	for _, name := range names {
		shown[name] = all[name]
		if !all[name] {
			status = http.StatusServiceUnavailable
		}
	}
	body, err := json.Marshal(map[string]any{"data": map[string]any{"services": shown}, "status_code": status})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	body = append(body, '\n')
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Vary", "Cookie")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		w.Write(body) //nolint:errcheck // the client went away
	}
}
