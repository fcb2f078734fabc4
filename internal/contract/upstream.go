package contract

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"
)

// UpstreamAddress is where recorded proxy-cache organisations have their upstream. It is in the recordings, so that scenarios
// with an upstream cannot run at the same time.
const UpstreamAddress = "localhost:22500"

// upstream is the registry behind a proxy-cache organisation: it answers what the scenario says and writes down what it was asked.
type upstream struct {
	server *http.Server

	mu      sync.Mutex
	answers map[string]Response
	down    bool
	asked   []map[string]any
}

func startUpstream(answers map[string]Response) (*upstream, error) {
	listener, err := net.Listen("tcp", UpstreamAddress)
	if err != nil {
		return nil, fmt.Errorf("start the recorded upstream: %w; is another replay running?", err)
	}
	u := &upstream{answers: maps.Clone(answers)}
	u.server = &http.Server{Handler: u, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = u.server.Serve(listener) }() // ends with Close
	return u, nil
}

func (u *upstream) stop() error { return u.server.Close() }

// set changes answers from now on.
func (u *upstream) set(answers map[string]Response) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.Copy(u.answers, answers)
}

// setDown makes every connection end without an answer.
func (u *upstream) setDown() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = true
}

// requests are those since the last call, in order.
func (u *upstream) requests() []map[string]any {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := u.asked
	u.asked = nil
	return asked
}

// answer decides, and writes the request down. ok is false when the upstream is down.
func (u *upstream) answer(r *http.Request) (_ Response, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down {
		return Response{}, false
	}
	response, found := u.answers[r.Method+" "+r.RequestURI]
	if !found && r.Method == http.MethodHead {
		response, found = u.answers["GET "+r.RequestURI]
	}
	if !found {
		response = Response{Status: http.StatusNotFound}
	}
	if want := response.RequireAuthorization; want != "" && r.Header.Get("Authorization") != want && response.Otherwise != nil {
		response = *response.Otherwise
	}
	asked := map[string]any{"method": r.Method, "path": r.RequestURI, "status": response.Status}
	for name, header := range map[string]string{"authorization": "Authorization", "accept": "Accept"} {
		if v := r.Header.Get(header); v != "" && v != "*/*" {
			asked[name] = v
		}
	}
	u.asked = append(u.asked, asked)
	return response, true
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	response, ok := u.answer(r)
	if !ok {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	body, err := response.content()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for name, v := range response.Headers {
		w.Header().Set(name, string(v))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(response.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // whoever asked has gone
	}
}

// content is the body of an answer that is given, not compared.
func (r *Response) content() ([]byte, error) {
	switch {
	case r.JSON != nil:
		return json.Marshal(r.JSON)
	case r.Body != nil:
		return []byte(*r.Body), nil
	}
	return base64.StdEncoding.DecodeString(r.BodyBase64)
}

// errNoUpstream is a step about an upstream in a scenario without one.
var errNoUpstream = errors.New("the scenario has no upstream")

// compareUpstream compares what the server asked of the upstream.
func (r *replay) compareUpstream(n int, want []map[string]any) {
	if r.upstream == nil {
		return
	}
	got := r.upstream.requests()
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			r.differ(n, "upstream", "request %d: none, want %s", i+1, show(want[i]))
		case i >= len(want):
			r.differ(n, "upstream", "request %d: %s, want none", i+1, show(got[i]))
		case !reflect.DeepEqual(got[i], want[i]):
			r.differ(n, "upstream", "request %d: %s, want %s", i+1, show(got[i]), show(want[i]))
		}
	}
}

// steer runs a step about the upstream.
func (r *replay) steer(s Step) error {
	if r.upstream == nil {
		return errNoUpstream
	}
	if s.UpstreamDown {
		r.upstream.setDown()
	}
	r.upstream.set(s.UpstreamSet)
	return nil
}
