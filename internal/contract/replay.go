package contract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Server is a running server in the recorded start state, for one scenario.
type Server interface {
	// URL is the base URL; Host is what ${host} stands for (SERVER_HOSTNAME).
	URL() string
	Host() string
	// Changes returns the rows changed since the last call, in commit order.
	Changes(ctx context.Context) ([]Row, error)
	// Objects returns the objects in storage: key to size. A key of the second location is prefixed with "eu:".
	Objects() (map[string]Stamp, error)
	// SQL runs a statement; its own changes are not reported.
	SQL(ctx context.Context, statement string) error
	// Worker runs one iteration of the worker that legacy calls name.
	Worker(ctx context.Context, name string) error
	// DeleteObject removes an object from the first location.
	DeleteObject(key string) error
}

// Stamp tells one state of an object from another.
type Stamp struct {
	Size     int64
	Modified time.Time
}

// Difference is one way in which an answer or its effects are not what was recorded.
type Difference struct {
	// Step counts from 1; 0 is the setup.
	Step int
	// What is status, header NAME, body, claims, database, storage, setup.
	What string
	// Detail says what was found and what was wanted.
	Detail string
}

func (d Difference) String() string {
	return fmt.Sprintf("step %d: %s: %s", d.Step, d.What, d.Detail)
}

// relevant are the headers that the recorder kept: one of these in an answer without one in the recording is a difference.
var relevant = []string{
	"Accept-Ranges", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin", "Access-Control-Max-Age", "Allow",
	"Cache-Control", "Content-Range", "Content-Type", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Docker-Upload-Uuid", "Etag", "Expires", "Last-Modified",
	"Link", "Location", "Oci-Filters-Applied", "Oci-Subject", "Range", "Retry-After", "Set-Cookie", "Vary", "Www-Authenticate", "X-Docker-Endpoints", "X-Docker-Size",
	"X-Docker-Token", "X-Sparse-Manifest-Support",
}

// settle is how long rows that a server writes after its answer may take to arrive.
const settle = 3 * time.Second

// Replay runs a scenario against a server in the start state and returns how it differs; an error means it could not be run.
func Replay(ctx context.Context, s *Scenario, server Server) (_ []Difference, err error) {
	r := &replay{s: s, server: server, b: newBindings(), vars: map[string]string{}, client: &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       60 * time.Second,
	}}
	defer r.client.CloseIdleConnections()
	if s.Upstream != nil {
		u, err := startUpstream(s.Upstream)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, u.stop()) }()
		r.upstream = u
	}
	r.b.now = time.Now()
	began := time.Now()
	for i, step := range s.Setup {
		resp, err := r.do(ctx, step)
		if err != nil {
			return nil, fmt.Errorf("setup %d: %w", i+1, err)
		}
		if resp != nil && resp.status/100 != 2 && resp.status/100 != 3 {
			r.differ(0, "setup", "%s %s answered %d %s", step.Request.Method, step.Request.Path, resp.status, resp.body)
			return r.found, nil
		}
		if err := r.capture(step, resp); err != nil {
			r.differ(0, "setup", "%v", err)
			return r.found, nil
		}
	}
	r.b.steps[0] = [2]time.Time{began, time.Now()}
	if r.upstream != nil {
		r.upstream.requests() // those of the setup were not recorded
	}
	if _, err := server.Changes(ctx); err != nil {
		return nil, err
	}
	objects, err := server.Objects()
	if err != nil {
		return nil, err
	}
	for i, step := range s.Steps {
		n := i + 1
		start := time.Now()
		resp, err := r.do(ctx, step)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", n, err)
		}
		r.b.steps[n] = [2]time.Time{start, time.Now()}
		if resp != nil && step.Response != nil {
			if err := r.response(n, step.Response, resp); err != nil {
				return nil, err
			}
		}
		if err := r.capture(step, resp); err != nil {
			r.differ(n, "capture", "%v", err)
			return r.found, nil
		}
		r.compareUpstream(n, step.UpstreamRequests)
		if err := r.database(ctx, n, step); err != nil {
			return nil, err
		}
		if objects, err = r.storage(n, step, objects); err != nil {
			return nil, err
		}
	}
	return r.found, nil
}

type replay struct {
	s      *Scenario
	server Server
	b      *bindings
	vars   map[string]string
	client *http.Client
	found  []Difference

	upstream *upstream // nil when the scenario has none
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (r *replay) differ(step int, what, format string, args ...any) {
	r.found = append(r.found, Difference{step, what, fmt.Sprintf(format, args...)})
}

func (r *replay) do(ctx context.Context, s Step) (*answer, error) {
	switch {
	case s.Request != nil:
		return r.request(ctx, s.Request)
	case s.SQL != "":
		return nil, r.server.SQL(ctx, s.SQL)
	case s.Worker != "":
		return nil, r.server.Worker(ctx, s.Worker)
	case s.Sleep > 0:
		t := time.NewTimer(time.Duration(s.Sleep * float64(time.Second)))
		defer t.Stop()
		select {
		case <-t.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case s.DeleteObject != "":
		return nil, r.server.DeleteObject(s.DeleteObject)
	case s.UpstreamSet != nil || s.UpstreamDown:
		return nil, r.steer(s)
	}
	return nil, errors.New("a step of a kind that is not replayed")
}

// chunks hides a reader's length, so that it is sent with Transfer-Encoding: chunked.
type chunks struct {
	io.Reader
	size int
}

func (c chunks) Read(p []byte) (int, error) { return c.Reader.Read(p[:min(len(p), c.size)]) }

func (r *replay) request(ctx context.Context, q *Request) (*answer, error) {
	var body []byte
	contentType := ""
	switch {
	case q.JSON != nil:
		text, err := json.Marshal(r.expandAny(q.JSON))
		if err != nil {
			return nil, err
		}
		body, contentType = text, "application/json"
	case q.Body != nil:
		body = []byte(r.expand(*q.Body))
	case q.BodyBase64 != "":
		raw, err := base64.StdEncoding.DecodeString(q.BodyBase64)
		if err != nil {
			return nil, err
		}
		body = raw
	case q.BodyRepeat != nil:
		body = bytes.Repeat([]byte(q.BodyRepeat.Text), q.BodyRepeat.Count)
	}
	url := r.expand(q.Path)
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		url = r.server.URL() + url
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
		if q.Chunked > 0 {
			reader = chunks{reader, q.Chunked}
		}
	}
	req, err := http.NewRequestWithContext(ctx, q.Method, url, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "contract-recorder/1.0")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for name, v := range q.Headers {
		switch v := v.(type) {
		case []any:
			req.Header.Del(name)
			for _, one := range v {
				req.Header.Add(name, r.expand(fmt.Sprint(one)))
			}
		default:
			if strings.EqualFold(name, "Host") {
				req.Host = r.expand(fmt.Sprint(v))
				continue
			}
			req.Header.Set(name, r.expand(fmt.Sprint(v)))
		}
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		// A server that breaks off in the middle is what legacy's front answers with 502.
		return &answer{status: http.StatusBadGateway, header: resp.Header, body: got}, nil
	}
	return &answer{resp.StatusCode, resp.Header, got}, nil
}

func (r *replay) response(n int, want *Response, got *answer) error {
	if got.status != want.Status {
		r.differ(n, "status", "%d, want %d; body %s", got.status, want.Status, got.body)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(want.Headers)) {
		have := strings.Join(got.header.Values(name), ", ")
		if len(got.header.Values(name)) == 0 {
			r.differ(n, "header "+name, "missing, want %q", want.Headers[name])
		} else if err := r.b.text(r.expand(string(want.Headers[name])), have); err != nil {
			r.differ(n, "header "+name, "%v", err)
		}
	}
	expected := http.Header{}
	for name := range want.Headers {
		expected.Set(name, "")
	}
	for _, name := range relevant {
		if v := got.header.Get(name); v != "" && len(expected[http.CanonicalHeaderKey(name)]) == 0 {
			r.differ(n, "header "+name, "%q, want no such header", v)
		}
	}
	switch {
	case want.JSON != nil:
		have, err := decodeObject(string(got.body))
		if err != nil {
			r.differ(n, "body", "no JSON: %q", got.body)
		} else if err := r.b.json("$", r.expandAny(want.JSON), have); err != nil {
			r.differ(n, "body", "%v", err)
		}
	case want.Body != nil:
		if err := r.b.text(r.expand(*want.Body), string(got.body)); err != nil {
			r.differ(n, "body", "%v", err)
		}
	case want.BodyBase64 != "":
		if have := base64.StdEncoding.EncodeToString(got.body); have != want.BodyBase64 {
			r.differ(n, "body", "base64 %s, want %s", have, want.BodyBase64)
		}
	case want.BodySHA256 != "":
		sum := sha256.Sum256(got.body)
		if have := hex.EncodeToString(sum[:]); have != want.BodySHA256 || want.Size != nil && *want.Size != int64(len(got.body)) {
			r.differ(n, "body", "%d bytes, sha256 %s; want sha256 %s", len(got.body), have, want.BodySHA256)
		}
	default:
		if len(got.body) > 0 {
			r.differ(n, "body", "%q, want none", got.body)
		}
	}
	if want.Claims != nil {
		if err := r.claims(want.Claims, got.body); err != nil {
			r.differ(n, "claims", "%v", err)
		}
	}
	return nil
}

func (r *replay) claims(want map[string]any, body []byte) error {
	var t struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return err
	}
	parts := strings.Split(t.Token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("no token: %q", t.Token)
	}
	have := map[string]any{}
	for i, part := range []string{"header", "payload"} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return err
		}
		if have[part], err = decodeObject(string(raw)); err != nil {
			return err
		}
	}
	return r.b.json("$", r.expandAny(want), have)
}

// database compares the changed rows. Rows may arrive a moment after the answer, so a mismatch is looked at again until settle is over.
func (r *replay) database(ctx context.Context, n int, step Step) error {
	if step.SQL != "" {
		_, err := r.server.Changes(ctx)
		return err
	}
	want := make([]Row, len(step.Database))
	for i, w := range step.Database {
		want[i] = Row{w.Table, w.Op, r.expandMap(w.Row), r.expandMap(w.Was)}
	}
	var got []Row
	for end := time.Now().Add(settle); ; {
		more, err := r.server.Changes(ctx)
		if err != nil {
			return err
		}
		got = append(got, more...)
		try := r.b.clone()
		if err = try.rows(want, got); err == nil {
			r.b = try
			return nil
		}
		// Rows beyond the recorded ones will not go away by waiting.
		if len(fold(got)) >= len(fold(want)) || time.Now().After(end) {
			r.differ(n, "database", "%v", err)
			return nil
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

func (r *replay) storage(n int, step Step, before map[string]Stamp) (map[string]Stamp, error) {
	after, err := r.server.Objects()
	if err != nil {
		return nil, err
	}
	var got []Object
	for _, k := range slices.Sorted(maps.Keys(after)) {
		size := after[k].Size
		old, had := before[k]
		switch {
		case !had:
			got = append(got, Object{"create", k, &size})
		case old != after[k]:
			got = append(got, Object{"write", k, &size})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		if _, has := after[k]; !has {
			got = append(got, Object{Op: "delete", Key: k})
		}
	}
	used := make([]bool, len(got))
	for _, w := range step.Storage {
		found := false
		for j, g := range got {
			if used[j] || g.Op != w.Op || (w.Size != nil && g.Size != nil && *w.Size != *g.Size) {
				continue
			}
			try := r.b.clone()
			if try.text(r.expand(w.Key), g.Key) == nil {
				r.b, used[j], found = try, true, true
				break
			}
		}
		if !found {
			r.differ(n, "storage", "no %s of %s", w.Op, r.expand(w.Key))
		}
	}
	for j, g := range got {
		if !used[j] {
			size := int64(-1)
			if g.Size != nil {
				size = *g.Size
			}
			r.differ(n, "storage", "%s of %s (%d bytes), which the recording does not have", g.Op, g.Key, size)
		}
	}
	return after, nil
}

func (r *replay) capture(step Step, a *answer) error {
	for _, name := range slices.Sorted(maps.Keys(step.Capture)) {
		if a == nil {
			return fmt.Errorf("nothing to capture %s from", name)
		}
		how, arg, _ := strings.Cut(step.Capture[name], " ")
		var v string
		switch how {
		case "header":
			v = a.header.Get(arg)
		case "json":
			doc, err := decodeObject(string(a.body))
			if err != nil {
				return fmt.Errorf("capture %s: %w", name, err)
			}
			for _, k := range strings.Split(arg, ".") {
				m, ok := doc.(map[string]any)
				if !ok {
					return fmt.Errorf("capture %s: no %s in %s", name, arg, a.body)
				}
				doc = m[k]
			}
			v = fmt.Sprint(doc)
		case "link":
			link := a.header.Get("Link")
			v, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
		case "cookie":
			var cs []string
			for _, c := range (&http.Response{Header: a.header}).Cookies() {
				cs = append(cs, c.Name+"="+c.Value)
			}
			if len(cs) == 0 {
				continue // the one from before stays
			}
			v = strings.Join(cs, "; ")
		case "regex":
			rx, err := regexp.Compile(arg)
			if err != nil {
				return err
			}
			m := rx.FindSubmatch(a.body)
			if m == nil {
				return fmt.Errorf("capture %s: %s is not in %q", name, arg, a.body)
			}
			v = string(m[1])
		default:
			return fmt.Errorf("capture %s: no way %q", name, how)
		}
		r.vars[name] = v
	}
	return nil
}

var variable = regexp.MustCompile(`\$\{((?:[^${}]|\$[^${}])*)\}`)

// expand replaces ${…}, innermost first.
func (r *replay) expand(s string) string {
	for range 8 {
		next := variable.ReplaceAllStringFunc(s, func(m string) string {
			body := m[2 : len(m)-1]
			kind, arg, _ := strings.Cut(body, ":")
			switch kind {
			case "host":
				return r.server.Host()
			case "basic":
				return base64.StdEncoding.EncodeToString([]byte(userOf(arg) + ":" + secretOf(arg)))
			case "userpass":
				return secretOf(arg)
			case "b64":
				return base64.StdEncoding.EncodeToString([]byte(arg))
			}
			return r.vars[body]
		})
		if next == s {
			break
		}
		s = next
	}
	return s
}

func (r *replay) expandAny(v any) any {
	switch v := v.(type) {
	case string:
		return r.expand(v)
	case map[string]any:
		return r.expandMap(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = r.expandAny(v[i])
		}
		return out
	}
	return v
}

func (r *replay) expandMap(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[r.expand(k)] = r.expandAny(v)
	}
	return out
}

// identities are the recorded ones that are not ordinary users, whose password is "password". Test data.
var identities = map[string][2]string{
	"robot:devtable+dtrobot":       {"devtable+dtrobot", "ZVJ0ZNP5U9TJD8D8ZZW576T53CLXJIJXFEVEH5SY2C20ZZQVWINVUYPUIV78S3D5"},
	"robot:devtable+dtrobot2":      {"devtable+dtrobot2", "HFFZE44W8DZIDOOQY6TNH28KXZXSLLB52XRFSLTXOTU0ARNOY9ERZWZGAJ4UTJ9E"},
	"robot:freshuser+anotherrobot": {"freshuser+anotherrobot", "61L132U980AST9MN8GM94156JC5FEMENOLAXMJNZFXZ0QYRPKKNECC34WYQKSEEZ"},
	"robot:buynlarge+coolrobot":    {"buynlarge+coolrobot", "D6VNLNUY5CRF34NJPSOERQGNUTUE66H00B2ZAA4APJ4Q5S3IF6CXAGXQ61CT8HZ8"},
	"robot:buynlarge+neworgrobot":  {"buynlarge+neworgrobot", "QZHQBKU7EA3BH11GQ15FQTMGRAD9BEH4MD14OU585FZWZEXH1AG1TUX9GBGU9V4E"},
	"robot:buynlarge+ownerbot":     {"buynlarge+ownerbot", "XGXIERG0P4R0HOPLULCOKJN98O3BPDTE4IEF80FWONRPSFAHXIYJM58SF83EMYOX"},
	"robot:buynlarge+creatorbot":   {"buynlarge+creatorbot", "PIDU0L3HZNAMGFDF8G594RACQQDA2RS20PMKE4RXCQMP3W8UKPIZEEJCD3NKAI8Z"},
	"apptoken:devtable":            {"$app", strings.Repeat("a", 60) + strings.Repeat("b", 60)},
	"token:build-worker":           {"$token", "L95ZNLDWANRIMNCGACK88BYF2GS7MVQ6RED916L21FFRM88V5V5HZNDXZBP1TH6I"},
	"oauth:devtable":               {"$oauthtoken", strings.Repeat("b", 40) + strings.Repeat("c", 40)},
}

func userOf(identity string) string {
	if i, ok := identities[identity]; ok {
		return i[0]
	}
	return identity
}

func secretOf(identity string) string {
	if i, ok := identities[identity]; ok {
		return i[1]
	}
	return "password"
}
