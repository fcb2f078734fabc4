// Package token is GET /v2/auth: it checks credentials, decides what they may do with the repositories asked for, makes
// repositories for those who push to new ones, and answers with a signed bearer token. The order of its decisions
// is the legacy server's.
package token

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/registryjwt"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	"github.com/quayctl/quayctl/internal/registry/telemetry"
)

// Path of the endpoint.
const Path = "/v2/auth"

// Deps are what the endpoint works with. All are needed.
type Deps struct {
	DB          *metadata.DB
	Clock       clock.Clock
	Config      *config.Config
	Log         *slog.Logger
	Metrics     *telemetry.Metrics
	ActionLog   *actionlog.Writer
	Directory   *directory.Directory
	Credentials *auth.Credentials
	Permissions *auth.Permissions
	// Key signs.
	Key registryjwt.Signer
	// Challenge is the value of WWW-Authenticate for refused requests.
	Challenge string
}

// Endpoint serves Path.
type Endpoint struct {
	Deps
	grammar grammar
}

// New makes an Endpoint.
func New(d Deps) *Endpoint { return &Endpoint{Deps: d, grammar: newGrammar(d.Config)} }

var allow = []string{http.MethodGet, http.MethodHead, http.MethodOptions}

// ServeHTTP implements http.Handler.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := e.Clock.Now()
	surface := &regerr.Surface{Allow: allow, Challenge: e.Challenge}
	r = r.WithContext(regerr.WithSurface(r.Context(), surface))
	status := http.StatusOK
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		err = e.serve(w, r)
	case http.MethodOptions:
		w.Header().Set("Allow", strings.Join(allow, ", "))
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
	default:
		err = regerr.MethodNotAllowed
	}
	if err != nil {
		if status = regerr.Status(err); status >= http.StatusInternalServerError && r.Context().Err() == nil {
			e.Log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
		}
		var abort *regerr.Abort
		if errors.As(err, &abort) {
			surface.Challenge = "" // the legacy server sends none with this shape here
		}
		regerr.Write(w, r, err)
	}
	e.Metrics.Request(r.Method, "v2.generate_registry_jwt", "", status, e.Clock.Now().Sub(begin))
}

func (e *Endpoint) serve(w http.ResponseWriter, r *http.Request) error {
	ctx := metadata.Track(r.Context())
	who, err := e.authenticate(ctx, r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	scopes, asked := query["scope"]
	if who.IsAnonymous() && !asked {
		return regerr.Unauthorized()
	}
	var grants []registryjwt.Grant
	for _, text := range scopes {
		if text == "" {
			if who.IsAnonymous() {
				return regerr.Unauthorized()
			}
			continue
		}
		grant, err := e.decide(ctx, who, text)
		if err != nil {
			return err
		}
		if grant != nil {
			grants = append(grants, *grant)
		}
	}
	if !asked {
		if err := e.logSignIn(ctx, r, who); err != nil {
			return err
		}
	}
	var audience *string
	if services := query["service"]; len(services) > 0 {
		audience = &services[0]
	}
	token, err := registryjwt.Mint(e.Key, e.Config.InstanceKeyService, audience, e.Clock.Now(), who.Identity, grants)
	if err != nil {
		return err
	}
	body, err := pyjson.Compact(map[string]any{"token": token})
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n')) // the client is gone if this fails
	}
	return nil
}

// authenticate checks the request's credentials. Without any it returns the anonymous principal, where that is allowed.
func (e *Endpoint) authenticate(ctx context.Context, r *http.Request) (*auth.Principal, error) {
	header := r.Header.Get("Authorization")
	username, password, parsed := parseBasic(header)
	message := ""
	if parsed {
		who, kind, err := e.Credentials.Verify(ctx, username, password)
		var refused *auth.CredentialError
		var locked *auth.LockedError
		switch {
		case err == nil:
			e.Metrics.AuthAttempt(metricKind(kind), true)
			return who, nil
		case errors.As(err, &locked):
			e.Metrics.AuthAttempt(metricKind(kind), false)
			return nil, &regerr.TooManyLogins{RetryAfterSeconds: int(locked.RetryAfter.Seconds())}
		case errors.As(err, &refused):
			e.Metrics.AuthAttempt(metricKind(kind), false)
			message = refused.Message
			if err := e.logRefusal(ctx, r, refused); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	if !e.Config.Features.AnonymousAccess {
		return nil, &regerr.Abort{Status: http.StatusUnauthorized, Message: "Anonymous access is not allowed"}
	}
	if header != "" {
		return nil, regerr.InvalidLogin(message)
	}
	return &auth.Principal{}, nil
}

// metricKind is the legacy server's name for a kind of credentials in its metric.
func metricKind(kind auth.CredentialKind) string {
	if kind == auth.CredentialOAuth {
		return "oauth"
	}
	return "basic"
}

// parseBasic reads a Basic header: exactly two parts, the scheme in any case.
func parseBasic(header string) (username, password string, ok bool) {
	parts := strings.Split(header, " ")
	if len(parts) != 2 || !strings.EqualFold(parts[0], "basic") {
		return "", "", false
	}
	text, err := base64.StdEncoding.DecodeString(parts[1])
	if err != nil || !utf8.Valid(text) {
		return "", "", false
	}
	return strings.Cut(string(text), ":")
}

// logSignIn notes a sign-in without scopes, as docker login makes it. Access tokens have no account to note it for.
func (e *Endpoint) logSignIn(ctx context.Context, r *http.Request, who *auth.Principal) error {
	if !e.Config.AuditLogins || who.UserID == nil {
		return nil
	}
	members := map[string]any{"type": "v2auth", "useragent": r.UserAgent()}
	switch who.Kind {
	case auth.User:
		members["kind"] = "user"
	case auth.Robot:
		members["kind"], members["robot"] = "robot", who.Username
	case auth.AppSpecificToken:
		members["kind"] = "app_specific_token"
		members["app_specific_token_title"] = who.Performer.Metadata["app_specific_token_title"]
	case auth.OAuthToken:
		for k, v := range who.Performer.Metadata {
			if k != "username" {
				members[k] = v
			}
		}
	}
	return e.ActionLog.Log(ctx, actionlog.Entry{Kind: "login_success", Namespace: who.LogNamespace, AccountID: who.LogAccountID,
		PerformerID: who.UserID, IP: actionlog.ClientIP(r), Metadata: members})
}

// logRefusal notes a failed sign-in where the configuration asks for it.
func (e *Endpoint) logRefusal(ctx context.Context, r *http.Request, refused *auth.CredentialError) error {
	if !e.Config.AuditLoginFailures || refused.Kind == auth.CredentialToken {
		return nil
	}
	members := map[string]any{"type": "v2auth", "kind": string(refused.Kind), "useragent": r.UserAgent(), "message": refused.Message}
	if refused.Kind == auth.CredentialOAuth {
		members["type"] = "quayauth"
	}
	for k, v := range refused.Metadata {
		members[k] = v
	}
	return e.ActionLog.Log(ctx, actionlog.Entry{Kind: "login_failure", Namespace: refused.LogNamespace, AccountID: refused.LogAccountID,
		PerformerID: refused.PerformerID, IP: actionlog.ClientIP(r), Metadata: members})
}

// decide is what one scope gives; nil when it leaves no entry in the token.
func (e *Endpoint) decide(ctx context.Context, who *auth.Principal, text string) (*registryjwt.Grant, error) {
	s, err := e.grammar.parse(text)
	if err != nil || s.catalog {
		return nil, err
	}
	grant := &registryjwt.Grant{
		Access:     registryjwt.Access{Type: "repository", Name: s.echoed, Actions: []string{}},
		Repository: s.name(),
	}
	ns, err := e.namespace(ctx, who, s)
	if err != nil || ns == nil {
		return grant, err
	}
	repo, err := e.Directory.Repository(ctx, s.namespace, s.repo)
	if err != nil {
		return nil, err
	}
	need, err := e.need(ctx, who, *ns, repo)
	if err != nil {
		return nil, err
	}

	// push, and delete on what exists
	pushed := false
	if (s.push || s.delete) && repo != nil {
		if pushed, err = e.mayPush(ctx, who, repo, need); err != nil {
			return nil, err
		}
	} else if s.push {
		if repo, pushed, err = e.createOnPush(ctx, who, *ns, s); err != nil {
			return nil, err
		}
		if pushed {
			if need, err = e.need(ctx, who, *ns, repo); err != nil {
				return nil, err
			}
		}
	}
	if pushed {
		grant.Actions = append(grant.Actions, "push")
	}

	if s.pull {
		readable, err := e.mayPull(ctx, who, *ns, repo, need)
		if err != nil {
			return nil, err
		}
		if readable {
			grant.Actions = append(grant.Actions, "pull")
		}
	}
	if s.star && repo != nil && need >= auth.Admin && repo.State == directory.StateNormal {
		grant.Actions = append(grant.Actions, "*")
	}
	return grant, nil
}

// need is what a principal may do with a repository, which may be missing.
func (e *Endpoint) need(ctx context.Context, who *auth.Principal, ns auth.Namespace, repo *directory.Repository) (auth.Need, error) {
	var id *int64
	if repo != nil {
		id = &repo.ID
	}
	return e.Permissions.Repository(ctx, who, ns, id)
}

func wrongKind(kind string) error {
	return regerr.Unsupported().WithMessage("This repository is for managing %s and not container images.", kind)
}

// mayPush tells whether an existing repository takes pushes of a principal: its state decides besides the permission.
func (e *Endpoint) mayPush(ctx context.Context, who *auth.Principal, repo *directory.Repository, need auth.Need) (bool, error) {
	if who.IsAnonymous() || need < auth.Write {
		return false, nil
	}
	if repo.Kind != directory.KindImage {
		return false, wrongKind(repo.Kind)
	}
	switch repo.State {
	case directory.StateNormal:
		return true, nil
	case directory.StateMirror, directory.StateOrgMirror:
		return e.isMirrorRobot(ctx, who, repo)
	}
	return false, nil
}

// mayPull tells whether a principal may read a repository. The owner of a namespace, and whoever may read everything,
// get the right also where there is no such repository.
func (e *Endpoint) mayPull(ctx context.Context, who *auth.Principal, ns auth.Namespace, repo *directory.Repository, need auth.Need) (bool, error) {
	readable := need >= auth.Read || repo != nil && repo.Public || e.Permissions.ReadsEverything(who)
	if !readable && e.Config.Features.ProxyCache && ns.Organization {
		proxy, err := e.DB.Read(ctx).IsProxyCacheOrganization(ctx, ns.ID)
		if err != nil {
			return false, fmt.Errorf("look up proxy cache of %s: %w", ns.Name, err)
		}
		if proxy {
			if readable, err = e.Permissions.Member(ctx, who, ns); err != nil {
				return false, err
			}
		}
	}
	if readable && repo != nil && repo.Kind != directory.KindImage {
		return false, wrongKind(repo.Kind)
	}
	return readable, nil
}
