package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/registry/manifest"
	"github.com/quayctl/quayctl/internal/ssrf"
)

const (
	connectTime  = 5 * time.Second
	manifestTime = 30 * time.Second  // for an answer that is no blob, from the first byte sent to the last received
	patience     = 120 * time.Second // for the next bytes of a blob

	maxManifest  = 4 << 20   // bytes, as of a push
	maxToken     = 1 << 20   // bytes of a token service's answer
	maxHeader    = 256 << 10 // bytes of any answer's header
	maxRedirects = 5

	tokenLife   = time.Hour        // of a token whose service does not tell
	tokenMargin = 10 * time.Second // a token is not used that short before its end
	maxTokens   = 1000             // remembered at a time
)

// accept are the manifests that are asked for, in the legacy server's order.
var accept = strings.Join([]string{
	manifest.OCIManifest, manifest.OCIIndex, manifest.DockerList, manifest.DockerManifest, manifest.DockerSchema1, manifest.DockerSchema1Signed,
}, ", ")

// UpstreamError is an upstream registry that refuses, fails, cannot be reached, or sends what was not asked for.
type UpstreamError struct {
	Status int    // of its answer; 0 when there was none, or one that is not usable
	Detail string // for the client
	cause  error
}

// Error implements error. It is the text that clients know from the legacy server.
func (e *UpstreamError) Error() string {
	return "the requested image may not exist in the upstream registry, or the configured Quay organization credentials" +
		" have insufficient rights to access it (" + e.Detail + ")"
}

// Unwrap returns the cause.
func (e *UpstreamError) Unwrap() error { return e.cause }

// unusable is an answer that does not do. The client is told the reason.
func unusable(reason string, cause error) error { return &UpstreamError{Detail: reason, cause: cause} }

// failed is a request without an answer. The cause names addresses, which are nothing for clients; it goes to the log.
func failed(err error) error {
	var blocked *ssrf.BlockedError
	if errors.As(err, &blocked) {
		return unusable("the address of the upstream registry is not allowed",
			fmt.Errorf("%w; if it is meant to be called, add its host to SSRF_ALLOWED_HOSTS", err))
	}
	return unusable("the upstream registry does not answer", err)
}

// newClient makes the client for all upstreams. It follows redirects, as blobs need, and lets the guard see each of them.
func newClient(guard *ssrf.Guard) *http.Client {
	dial := guard.Dial(net.Dialer{Timeout: connectTime})
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &patientConn{conn}, nil
		},
		TLSHandshakeTimeout: connectTime,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     patience,
		// Digests are of the bytes that travel.
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}, CheckRedirect: func(request *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		if via[0].URL.Scheme == "https" && request.URL.Scheme != "https" {
			return fmt.Errorf("redirect to %s is not secure", request.URL.Host)
		}
		return nil
	}}
}

// patientConn ends when nothing moves for too long. Deadlines of connections are by the system's clock.
type patientConn struct{ net.Conn }

// Read implements net.Conn.
func (c *patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn.
func (c *patientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// upstream is one repository of another registry, for one request of a client.
type upstream struct {
	client     *http.Client
	tokens     *tokens
	base       string // scheme://host
	repository string
	username   string
	password   string

	authorized    bool
	authorization string
}

// locate turns a configured registry, HOST[:PORT][/NAMESPACE], into the base URL and the name of a repository there.
func locate(registry, repository string, insecure bool) (base, name string) {
	host, namespace, _ := strings.Cut(registry, "/")
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	if namespace = strings.Trim(namespace, "/"); namespace != "" {
		repository = namespace + "/" + repository
	}
	if insecure {
		return "http://" + host, repository
	}
	return "https://" + host, repository
}

// digest asks which manifest a reference names; empty when the upstream does not tell.
func (u *upstream) digest(ctx context.Context, reference string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestTime)
	defer cancel()
	response, err := u.get(ctx, http.MethodHead, "/manifests/"+reference, accept)
	if err != nil {
		return "", err
	}
	_ = response.Body.Close() // has none
	return response.Header.Get("Docker-Content-Digest"), nil
}

// manifest fetches what a reference names. One that does not have the digest it was asked for by is refused.
func (u *upstream) manifest(ctx context.Context, reference string) (*manifest.Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestTime)
	defer cancel()
	response, err := u.get(ctx, http.MethodGet, "/manifests/"+reference, accept)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxManifest+1))
	if err != nil {
		return nil, failed(err)
	}
	if len(body) > maxManifest {
		return nil, unusable("manifest is larger than "+strconv.Itoa(maxManifest)+" bytes", nil)
	}
	mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil {
		return nil, unusable("manifest without a media type", err)
	}
	m, err := manifest.Parse(mediaType, body)
	if err != nil {
		return nil, unusable("invalid manifest", err)
	}
	if strings.Contains(reference, ":") && reference != m.Digest {
		return nil, unusable("manifest digest mismatch", nil)
	}
	return m, nil
}

// blob opens a blob. The size is -1 when the upstream does not tell.
func (u *upstream) blob(ctx context.Context, digest string) (io.ReadCloser, int64, error) {
	response, err := u.get(ctx, http.MethodGet, "/blobs/"+digest, "")
	if err != nil {
		return nil, 0, err
	}
	return response.Body, response.ContentLength, nil
}

// get sends a request about the repository, and again with new authorization when the first is refused.
func (u *upstream) get(ctx context.Context, method, path, accept string) (*http.Response, error) {
	for again := false; ; again = true {
		if err := u.authorize(ctx, again); err != nil {
			return nil, err
		}
		response, err := u.send(ctx, method, u.base+"/v2/"+u.repository+path, accept, u.authorization)
		if err != nil {
			return nil, err
		}
		if response.StatusCode < http.StatusMultipleChoices {
			return response, nil
		}
		_ = response.Body.Close() // of no interest
		if response.StatusCode != http.StatusUnauthorized || again {
			return nil, &UpstreamError{Status: response.StatusCode, Detail: strconv.Itoa(response.StatusCode)}
		}
	}
}

func (u *upstream) send(ctx context.Context, method, target, accept, authorization string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, unusable("the address of the upstream registry is not usable", err)
	}
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := u.client.Do(request)
	if err != nil {
		return nil, failed(err)
	}
	return response, nil
}

// authorize finds out what the upstream wants to see, unless that is known.
func (u *upstream) authorize(ctx context.Context, again bool) error {
	key := tokenKey{u.base, u.repository, u.username, u.password}
	if !again {
		if u.authorized {
			return nil
		}
		if u.authorization, u.authorized = u.tokens.get(key); u.authorized {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, manifestTime)
	defer cancel()
	u.authorization = ""
	response, err := u.send(ctx, http.MethodGet, u.base+"/v2/", "", "")
	if err != nil {
		return err
	}
	_ = response.Body.Close() // of no interest
	life := tokenLife
	if response.StatusCode == http.StatusUnauthorized {
		scheme, parameters := parseChallenge(response.Header.Get("WWW-Authenticate"))
		switch scheme {
		case "bearer":
			if u.authorization, life, err = u.token(ctx, parameters); err != nil {
				return err
			}
		case "basic":
			u.authorization = u.basic()
		}
	}
	u.authorized = true
	u.tokens.put(key, u.authorization, life)
	return nil
}

// basic are the configured credentials, if there are any.
func (u *upstream) basic() string {
	if u.username == "" && u.password == "" {
		return ""
	}
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(u.username, u.password)
	return r.Header.Get("Authorization")
}

// token asks the token service of a challenge.
func (u *upstream) token(ctx context.Context, challenge map[string]string) (authorization string, life time.Duration, err error) {
	realm := challenge["realm"]
	if strings.HasPrefix(u.base, "https:") && !strings.HasPrefix(realm, "https:") {
		return "", 0, unusable("the token service of the upstream registry is not secure", fmt.Errorf("realm is %q", realm))
	}
	separator := "?"
	if strings.Contains(realm, "?") {
		separator = "&"
	}
	target := realm + separator + "service=" + url.QueryEscape(challenge["service"]) +
		"&scope=" + url.QueryEscape("repository:"+u.repository+":pull")
	response, err := u.send(ctx, http.MethodGet, target, "", u.basic())
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	if response.StatusCode >= http.StatusMultipleChoices {
		return "", 0, &UpstreamError{Status: response.StatusCode, Detail: strconv.Itoa(response.StatusCode)}
	}
	answer := struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"` // seconds
	}{ExpiresIn: tokenLife.Seconds()}
	err = json.NewDecoder(io.LimitReader(response.Body, maxToken)).Decode(&answer)
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if err != nil || answer.Token == "" {
		return "", 0, unusable("the token service of the upstream registry sent no token", err)
	}
	return "Bearer " + answer.Token, time.Duration(answer.ExpiresIn * float64(time.Second)), nil
}

// parseChallenge reads a WWW-Authenticate header: the scheme in lower case, and the parameters with names in lower case.
func parseChallenge(header string) (scheme string, parameters map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	parameters = map[string]string{}
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		name = strings.ToLower(strings.Trim(name, " ,"))
		if quoted, ok := strings.CutPrefix(strings.TrimLeft(value, " "), `"`); ok {
			var text strings.Builder
			i := 0
			for ; i < len(quoted) && quoted[i] != '"'; i++ {
				if quoted[i] == '\\' && i+1 < len(quoted) {
					i++
				}
				text.WriteByte(quoted[i])
			}
			parameters[name], rest = text.String(), quoted[min(i+1, len(quoted)):]
		} else {
			value, rest, _ = strings.Cut(value, ",")
			parameters[name] = strings.TrimSpace(value)
		}
	}
	return strings.ToLower(scheme), parameters
}

type tokenKey struct{ base, repository, username, password string }

type token struct {
	authorization string
	until         time.Time
}

// tokens remembers what upstreams want to see. A nil one remembers nothing.
type tokens struct {
	clock clock.Clock
	mu    sync.Mutex
	known map[tokenKey]token
}

func (t *tokens) get(key tokenKey) (authorization string, ok bool) {
	if t == nil {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.known[key]
	return known.authorization, ok && t.clock.Now().Before(known.until)
}

func (t *tokens) put(key tokenKey, authorization string, life time.Duration) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxTokens {
		clear(t.known) // so many live at a time only by somebody's play; asking again is cheap
	}
	t.known[key] = token{authorization, t.clock.Now().Add(life - tokenMargin)}
}
