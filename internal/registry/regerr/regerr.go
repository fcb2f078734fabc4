// Package regerr is the one error map of the registry's HTTP surface: which error becomes which status,
// headers and bytes. Handlers return errors; only Write turns them into an answer.
//
// There are three shapes (recorded in the contract): A, the distribution protocol's {"errors":[…]};
// B, the legacy server's aborts {"error": "…"}; and C, a few texts of their own.
package regerr

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"github.com/quayctl/quayctl/internal/pyjson"
)

// Error is shape A. Make one with the functions below; With… methods return changed copies.
type Error struct {
	Status  int            // HTTP status
	Code    string         // the protocol's code, e.g. BLOB_UNKNOWN
	Message string         // what people see
	Detail  any            // JSON of the "detail" member; nil means {}
	Extra   map[string]any // further members of the error object, e.g. is_readonly
	Header  http.Header    // further headers of the answer
	cause   error
}

// Error implements error.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the cause given to WithCause, which only logs see.
func (e *Error) Unwrap() error { return e.cause }

// WithMessage returns a copy with another message.
func (e *Error) WithMessage(format string, args ...any) *Error {
	c := *e
	c.Message = format
	if len(args) > 0 {
		c.Message = fmt.Sprintf(format, args...)
	}
	return &c
}

// WithDetail returns a copy with another detail, any value that encodes to JSON.
func (e *Error) WithDetail(detail any) *Error {
	c := *e
	c.Detail = detail
	return &c
}

// WithReason returns a copy whose detail is {"message": reason}.
func (e *Error) WithReason(format string, args ...any) *Error {
	reason := format
	if len(args) > 0 {
		reason = fmt.Sprintf(format, args...)
	}
	return e.WithDetail(map[string]any{"message": reason})
}

// WithStatus returns a copy with another status.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// WithHeader returns a copy whose answer also carries the header.
func (e *Error) WithHeader(key, value string) *Error {
	c := *e
	c.Header = e.Header.Clone()
	if c.Header == nil {
		c.Header = http.Header{}
	}
	c.Header.Set(key, value)
	return &c
}

// WithCause returns a copy that wraps err; the client does not see it, the log does.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.cause = err
	return &c
}

// BlobUnknown is a digest that the repository does not hold.
func BlobUnknown() *Error {
	return &Error{Status: 404, Code: "BLOB_UNKNOWN", Message: "blob unknown to registry"}
}

// BlobUploadInvalid is also what a digest mismatch at commit gives.
func BlobUploadInvalid() *Error {
	return &Error{Status: 400, Code: "BLOB_UPLOAD_INVALID", Message: "blob upload invalid"}
}

// BlobUploadUnknown is an upload that does not exist (any more).
func BlobUploadUnknown() *Error {
	return &Error{Status: 404, Code: "BLOB_UPLOAD_UNKNOWN", Message: "blob upload unknown to registry"}
}

// ManifestInvalid is 400; media types that are refused use WithStatus(415).
func ManifestInvalid() *Error {
	return &Error{Status: 400, Code: "MANIFEST_INVALID", Message: "manifest invalid"}
}

// ManifestUnknown is a tag or digest that the repository does not have.
func ManifestUnknown() *Error {
	return &Error{Status: 404, Code: "MANIFEST_UNKNOWN", Message: "manifest unknown"}
}

// TagExpired is a tag that was there once.
func TagExpired(tag string) *Error {
	return &Error{Status: 404, Code: "TAG_EXPIRED",
		Message: "Tag " + tag + " was deleted or has expired. To pull, revive via time machine"}
}

// TagImmutable is for overwriting and deleting alike.
func TagImmutable(tag string) *Error {
	return (&Error{Status: 409, Code: "TAG_IMMUTABLE", Message: "tag is immutable and cannot be overwritten"}).
		WithReason("tag '%s' is immutable", tag)
}

// NameInvalid is a repository name that breaks the rules.
func NameInvalid() *Error {
	return &Error{Status: 400, Code: "NAME_INVALID", Message: "invalid repository name"}
}

// NameUnknown is a repository that does not exist.
func NameUnknown() *Error {
	return &Error{Status: 404, Code: "NAME_UNKNOWN", Message: "repository not found"}
}

// QuotaExceeded is a namespace over its reject limit.
func QuotaExceeded() *Error {
	return &Error{Status: 403, Code: "DENIED", Message: "Quota has been exceeded on namespace"}
}

// NamespaceDisabled is raised at the token endpoint only.
func NamespaceDisabled(namespace string) *Error {
	return &Error{Status: 405, Code: "DENIED",
		Message: "Namespace " + namespace + " has been disabled. Please contact a system administrator."}
}

// ReadOnly is the whole registry in read-only state.
func ReadOnly() *Error {
	return &Error{Status: 405, Code: "DENIED",
		Message: "System is currently read-only. Pulls will succeed but all write operations are currently suspended.",
		Extra:   map[string]any{"is_readonly": true}}
}

// PushesDisabled is cfg DISABLE_PUSHES; the code really has spaces.
func PushesDisabled() *Error {
	return &Error{Status: 405, Code: "METHOD NOT ALLOWED",
		Message: "Pushes to the registry are currently disabled. Please contact the administrator for more information."}
}

// Unauthorized carries the challenge of the request's Surface.
func Unauthorized() *Error {
	return &Error{Status: 401, Code: "UNAUTHORIZED", Message: "access to the requested resource is not authorized"}
}

// InvalidLogin is credentials that did not verify.
func InvalidLogin(message string) *Error {
	if message == "" {
		message = "Specified credentials are invalid"
	}
	return &Error{Status: 401, Code: "UNAUTHORIZED", Message: message}
}

// Unsupported is 405.
func Unsupported() *Error {
	return &Error{Status: 405, Code: "UNSUPPORTED", Message: "The operation is unsupported."}
}

// WrongKind is a repository that holds something else than images.
func WrongKind(kind string) *Error {
	return Unsupported().WithDetail("This repository is for managing " + kind + " and not container images.")
}

// InvalidRequest is 400 with the given message.
func InvalidRequest(message string) *Error {
	return &Error{Status: 400, Code: "INVALID_REQUEST", Message: message}
}

// SizeInvalid is a body that is larger than allowed. (The legacy server failed with a bare 500 here.)
func SizeInvalid() *Error {
	return &Error{Status: 413, Code: "SIZE_INVALID", Message: "provided length did not match content length"}
}

// Internal is everything unforeseen. The client learns nothing of err; the log does.
func Internal(err error) *Error {
	return (&Error{Status: 500, Code: "UNKNOWN", Message: "internal server error"}).WithCause(err)
}

// Unavailable is a dependency that does not answer (database, storage); the client may try again.
func Unavailable(err error) *Error {
	return (&Error{Status: 503, Code: "UNAVAILABLE", Message: "the registry cannot answer now; try again later"}).
		WithHeader("Retry-After", "5").WithCause(err)
}

// Abort is shape B: {"error": "message"} under text/html with CORS headers. An empty Message means the
// status's default text. When the request's identity is known it is appended.
type Abort struct {
	Status  int
	Message string
}

// Error implements error.
func (a *Abort) Error() string { return fmt.Sprintf("abort %d: %s", a.Status, a.text()) }

func (a *Abort) text() string {
	if a.Message != "" {
		return a.Message
	}
	switch a.Status {
	case 400:
		return "Invalid Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Permission Denied"
	case 404:
		return "Not Found"
	case 409:
		return "Conflict"
	case 501:
		return "Not Implemented"
	}
	return http.StatusText(a.Status)
}

// TooManyLogins is shape C of the login lockout.
type TooManyLogins struct{ RetryAfterSeconds int }

// Error implements error.
func (t *TooManyLogins) Error() string {
	return fmt.Sprintf("too many login attempts, retry after %d s", t.RetryAfterSeconds)
}

// Model is shape C of a domain rule: 400 {"message": text}.
type Model struct{ Message string }

// Error implements error.
func (m *Model) Error() string { return m.Message }

// NotFound is a path that is no route: the framework's own page.
var NotFound = errors.New("no such route")

// MethodNotAllowed is a path whose routes do not take the method (Surface.Allow names those that do).
var MethodNotAllowed = errors.New("method not allowed")

// Bare is an answer of status and headers alone, such as 416 for a gap in an upload.
type Bare struct {
	Status int
	Header http.Header
}

// Error implements error.
func (b *Bare) Error() string { return http.StatusText(b.Status) }

// Redirect is a 308 to the same resource under its proper path; URL is absolute.
type Redirect struct{ URL string }

// Error implements error.
func (r *Redirect) Error() string { return "redirect to " + r.URL }

// Page is the framework's own page of a status; /v1 answers with it here and there. An empty Text means the status's default.
type Page struct {
	Status int
	Text   string
}

// Error implements error.
func (p *Page) Error() string { return fmt.Sprintf("page %d: %s", p.Status, p.text()) }

func (p *Page) text() string {
	if p.Text != "" {
		return p.Text
	}
	switch p.Status {
	case http.StatusBadRequest:
		return "The browser (or proxy) sent a request that this server could not understand."
	case http.StatusForbidden:
		return "You don't have the permission to access the requested resource. It is either read-protected or not readable by the server."
	}
	return http.StatusText(p.Status)
}

// Surface is what an answer needs to know of its request beyond the error: filled as the request
// pipeline learns it. One request, one goroutine.
type Surface struct {
	Allow     []string      // methods of the path, sorted, as in the Allow header
	Challenge string        // value of WWW-Authenticate for 401
	Identity  func() string // who the request is, in words ("user devtable"); nil until known
}

type surfaceKey struct{}

// WithSurface attaches s to the context that Write reads.
func WithSurface(ctx context.Context, s *Surface) context.Context {
	return context.WithValue(ctx, surfaceKey{}, s)
}

// SurfaceOf returns the request's Surface, or an empty one.
func SurfaceOf(ctx context.Context) *Surface {
	if s, ok := ctx.Value(surfaceKey{}).(*Surface); ok {
		return s
	}
	return &Surface{}
}

// Status is the HTTP status that Write answers err with.
func Status(err error) int {
	var (
		e *Error
		a *Abort
		t *TooManyLogins
		m *Model
		r *Redirect
		b *Bare
		p *Page
	)
	switch {
	case errors.As(err, &e):
		return e.Status
	case errors.As(err, &p):
		return p.Status
	case errors.As(err, &b):
		return b.Status
	case errors.As(err, &a):
		return a.Status
	case errors.As(err, &t):
		return http.StatusTooManyRequests
	case errors.As(err, &m):
		return http.StatusBadRequest
	case errors.As(err, &r):
		return http.StatusPermanentRedirect
	case errors.Is(err, NotFound):
		return http.StatusNotFound
	case errors.Is(err, MethodNotAllowed):
		return http.StatusMethodNotAllowed
	}
	return http.StatusInternalServerError
}

// Write answers the request with err, which must not be nil. It logs nothing. Errors of no known
// type become a 500 that tells the client nothing.
func Write(w http.ResponseWriter, r *http.Request, err error) {
	s := SurfaceOf(r.Context())
	var (
		e   *Error
		a   *Abort
		t   *TooManyLogins
		m   *Model
		red *Redirect
		b   *Bare
		p   *Page
	)
	switch {
	case errors.As(err, &e):
		writeError(w, r, s, e)
	case errors.As(err, &p):
		title := http.StatusText(p.Status)
		send(w, r, p.Status, htmlType, page(strconv.Itoa(p.Status)+" "+title, title, pageText.Replace(p.text())))
	case errors.As(err, &b):
		for k, v := range b.Header {
			w.Header()[k] = v
		}
		send(w, r, b.Status, htmlType, "")
	case errors.As(err, &a):
		challenge(w, s, a.Status)
		cors(w, s)
		w.Header().Set("Vary", "Origin")
		text := a.text()
		if s.Identity != nil {
			if who := s.Identity(); who != "" {
				text += " (authorized: " + who + ")"
			}
		}
		quoted, jerr := pyjson.Compact(text)
		if jerr != nil {
			quoted = []byte(`""`)
		}
		send(w, r, a.Status, htmlType, fmt.Sprintf(`{"error": %s}`, quoted))
	case errors.As(err, &t):
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Methods", "DELETE, GET, HEAD, OPTIONS, POST, PUT")
		h.Set("Access-Control-Allow-Headers", "AUTHORIZATION, CONTENT-TYPE, X-REQUESTED-WITH")
		h.Set("Access-Control-Max-Age", "21600")
		h.Set("Retry-After", strconv.Itoa(t.RetryAfterSeconds))
		send(w, r, http.StatusTooManyRequests, htmlType, "Too many login attempts. \nPlease reset your Quay password and try again.")
	case errors.As(err, &m):
		body, jerr := pyjson.Compact(map[string]any{"message": m.Message})
		if jerr != nil {
			body = []byte("{}")
		}
		send(w, r, http.StatusBadRequest, jsonType, string(body)+"\n")
	case errors.As(err, &red):
		w.Header().Set("Location", red.URL)
		link := html.EscapeString(red.URL)
		text := page("Redirecting...", "Redirecting...",
			`You should be redirected automatically to the target URL: <a href="`+link+`">`+link+`</a>. If not, click the link.`)
		send(w, r, http.StatusPermanentRedirect, htmlType, strings.TrimSuffix(text, "</p>\n")+"\n") // the legacy page leaves its paragraph open
	case errors.Is(err, NotFound):
		send(w, r, http.StatusNotFound, htmlType, page("404 Not Found", "Not Found",
			"The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again."))
	case errors.Is(err, MethodNotAllowed):
		w.Header().Set("Allow", strings.Join(s.Allow, ", "))
		send(w, r, http.StatusMethodNotAllowed, htmlType, page("405 Method Not Allowed", "Method Not Allowed",
			"The method is not allowed for the requested URL."))
	default:
		writeError(w, r, s, Internal(err))
	}
}

const (
	htmlType = "text/html; charset=utf-8"
	jsonType = "application/json"
)

func writeError(w http.ResponseWriter, r *http.Request, s *Surface, e *Error) {
	object := map[string]any{"code": e.Code, "message": e.Message, "detail": e.Detail}
	if e.Detail == nil {
		object["detail"] = map[string]any{}
	}
	for k, v := range e.Extra {
		object[k] = v
	}
	body, err := pyjson.Compact(map[string]any{"errors": []any{object}})
	if err != nil { // only a detail that no JSON can hold; its code and message still go out
		object["detail"] = map[string]any{}
		body, _ = pyjson.Compact(map[string]any{"errors": []any{object}})
	}
	for k, v := range e.Header {
		w.Header()[k] = v
	}
	challenge(w, s, e.Status)
	send(w, r, e.Status, jsonType, string(body)+"\n")
}

func challenge(w http.ResponseWriter, s *Surface, status int) {
	if status == http.StatusUnauthorized && s.Challenge != "" {
		w.Header().Set("WWW-Authenticate", s.Challenge)
		w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	}
}

func cors(w http.ResponseWriter, s *Surface) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", strings.Join(s.Allow, ", "))
	h["Access-Control-Allow-Headers"] = []string{"Authorization", "Content-Type"}
	h.Set("Access-Control-Max-Age", "21600")
}

// pageText escapes text for a page the way the framework does.
var pageText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;")

func page(title, heading, text string) string {
	return "<!doctype html>\n<html lang=en>\n<title>" + title + "</title>\n<h1>" + heading + "</h1>\n<p>" + text + "</p>\n"
}

func send(w http.ResponseWriter, r *http.Request, status int, contentType, body string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body)) // the client is gone if this fails; there is nobody to tell
	}
}
