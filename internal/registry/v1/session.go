package v1

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/auth/itsdangerous"
	"github.com/quayctl/quayctl/internal/config"
)

// Members of the session that /v1 uses.
const (
	sessionNamespace  = "namespace"
	sessionRepository = "repository"
	sessionBuilder    = "manifest_builder"
	sessionState      = "__manifestbuilder"
	sessionPermanent  = "_permanent"
)

type cookieSettings struct {
	name   string
	secure bool
	maxAge time.Duration
}

func readCookieSettings(c *config.Config) (cookieSettings, error) {
	s := cookieSettings{name: "_csrf_token", maxAge: c.SessionTimeout.Span()}
	insecure := false
	for key, target := range map[string]any{"SESSION_COOKIE_NAME": &s.name, "FORCE_NONSECURE_SESSION_COOKIE": &insecure} {
		if value, ok := c.Other[key]; ok {
			if err := value.Decode(target); err != nil {
				return s, fmt.Errorf("read %s: %w", key, err)
			}
		}
	}
	s.secure = c.PreferredURLScheme == "https" && !insecure
	return s, nil
}

// session is the session of a request. It is read when it is asked for, and goes out with the answer when it was changed.
type session struct {
	h        *Handler
	r        *http.Request
	members  itsdangerous.Session
	accessed bool // the answer depends on the cookie
	modified bool
}

func (s *session) load() {
	if s.members != nil {
		return
	}
	s.members = itsdangerous.Session{}
	cookie, err := s.r.Cookie(s.h.cookie.name)
	if err != nil {
		return
	}
	// A cookie that cannot be opened is none: the legacy server begins a new session too.
	if members, err := s.h.serializer.OpenSession(cookie.Value, s.h.cookie.maxAge, s.h.Clock.Now()); err == nil && members != nil {
		s.members = members
	}
}

func (s *session) get(name string) (string, bool) {
	s.load()
	s.accessed = true
	return s.members.Text(name)
}

func (s *session) set(name, text string) error {
	s.load()
	s.accessed, s.modified = true, true
	return s.members.SetText(name, text)
}

func (s *session) drop(name string) {
	s.load()
	s.accessed, s.modified = true, true
	delete(s.members, name)
}

// repository is the repository that an earlier request has put into the session.
func (s *session) repository() (namespace, name string, ok bool) {
	s.load()
	namespace, ok = s.members.Text(sessionNamespace)
	if !ok {
		return "", "", false
	}
	name, ok = s.members.Text(sessionRepository)
	s.accessed = s.accessed || ok // what is merely missing leaves no trace
	return namespace, name, ok
}

// answer writes the session's headers when the answer begins, and remembers the status that went out.
type answer struct {
	http.ResponseWriter
	session *session
	status  int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
		a.session.header(a.Header())
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Status that went out; 200 when the handler wrote nothing.
func (a *answer) Status() int {
	if a.status == 0 {
		return http.StatusOK
	}
	return a.status
}

func (s *session) header(header http.Header) {
	if !s.accessed {
		return
	}
	vary := "Cookie"
	if before := header.Get("Vary"); before != "" {
		vary = before + ", Cookie"
	}
	header.Set("Vary", vary)
	if !s.modified {
		return
	}
	now := s.h.Clock.Now()
	value, err := s.h.serializer.SealSession(s.members, now)
	if err != nil {
		s.h.Log.Error("session is lost", "error", err)
		return
	}
	var b strings.Builder
	b.WriteString(s.h.cookie.name + "=" + value)
	var permanent bool
	if json.Unmarshal(s.members[sessionPermanent], &permanent) == nil && permanent {
		b.WriteString("; Expires=" + now.Add(s.h.cookie.maxAge).UTC().Format(http.TimeFormat))
	}
	if s.h.cookie.secure {
		b.WriteString("; Secure")
	}
	b.WriteString("; HttpOnly; Path=/; SameSite=Lax")
	header.Set("Set-Cookie", b.String())
}
