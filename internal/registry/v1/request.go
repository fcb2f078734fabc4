package v1

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/itsdangerous"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/directory"
	"github.com/quayctl/quayctl/internal/registry/push"
	"github.com/quayctl/quayctl/internal/registry/regerr"
	v2 "github.com/quayctl/quayctl/internal/registry/v2"
)

// request is a request with what is known of it.
type request struct {
	h       *Handler
	r       *http.Request
	w       *answer
	session *session

	// What the path says; images find their repository in the session.
	namespace, repo string
	tagName         string
	image           string
	username        string // of /v1/users/<name>/

	who    *auth.Principal      // anonymous until authenticate finds somebody
	grants []itsdangerous.Grant // of a signed grant that names nobody
	known  bool                 // valid credentials of any kind were sent
	signed bool                 // they were a signed grant

	row     *directory.Repository // once repository was called
	looked  bool
	account *auth.Namespace // once lookNamespace was called
	enabled bool
	asked   bool
}

func (q *request) ctx() context.Context { return q.r.Context() }

// named takes a path's name of a repository; false when no route has such a name.
func (h *Handler) named(q *request, name string) bool {
	if name == "" || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains(name, "//") {
		return false
	}
	library := ""
	if h.Config.Features.LibrarySupport {
		library = h.Config.LibraryNamespace
	} else if !strings.Contains(name, "/") {
		return false
	}
	q.namespace, q.repo = v2.SplitName(name, library)
	return true
}

// authenticate looks for a signed grant, then for Basic credentials. Whatever is wrong with them, the request goes on without
// anybody, and is refused where somebody is needed.
func (q *request) authenticate() error {
	parts := strings.FieldsFunc(q.r.Header.Get("Authorization"), func(r rune) bool { return r == ' ' })
	if len(parts) != 2 {
		return nil
	}
	switch strings.ToLower(parts[0]) {
	case "token":
		return q.authenticateGrant(parts[1])
	case "basic":
		text, err := base64.StdEncoding.DecodeString(parts[1])
		username, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok || !utf8.Valid(text) {
			return nil //nolint:nilerr // no credentials
		}
		return q.authenticateBasic(username, password)
	}
	return nil
}

func (q *request) authenticateBasic(username, password string) error {
	who, kind, err := q.h.Credentials.Verify(q.ctx(), username, password)
	var refused *auth.CredentialError
	var locked *auth.LockedError
	metric := "basic"
	if kind == auth.CredentialOAuth {
		metric = "oauth"
	}
	switch {
	case err == nil:
		q.h.Metrics.AuthAttempt(metric, true)
		q.who, q.known = who, true
		return nil
	case errors.As(err, &locked):
		q.h.Metrics.AuthAttempt(metric, false)
		return &regerr.TooManyLogins{RetryAfterSeconds: int(locked.RetryAfter.Seconds())}
	case errors.As(err, &refused):
		q.h.Metrics.AuthAttempt(metric, false)
		return q.logRefusal(refused)
	}
	return err
}

// logRefusal notes a failed sign-in where the configuration asks for it.
func (q *request) logRefusal(refused *auth.CredentialError) error {
	if !q.h.Config.AuditLoginFailures || refused.Kind == auth.CredentialToken {
		return nil
	}
	members := map[string]any{"type": "v2auth", "kind": string(refused.Kind), "useragent": q.r.UserAgent(), "message": refused.Message}
	if refused.Kind == auth.CredentialOAuth {
		members["type"] = "quayauth"
	}
	for k, v := range refused.Metadata {
		members[k] = v
	}
	return q.h.ActionLog.Log(q.ctx(), actionlog.Entry{Kind: "login_failure", Namespace: refused.LogNamespace,
		AccountID: refused.LogAccountID, PerformerID: refused.PerformerID, IP: actionlog.ClientIP(q.r), Metadata: members})
}

// authenticateGrant takes a signed grant. One that names somebody is as good as that account; only one that names nobody gives
// what it lists. An account that is gone or disabled since is refused: the legacy server let the listed grants work on.
func (q *request) authenticateGrant(token string) error {
	if !strings.HasPrefix(token, itsdangerous.GrantPrefix) {
		return nil
	}
	lifetime := secondsOf(q.h.Config.SignedGrantExpirationSec)
	g, err := q.h.serializer.OpenGrants(token, lifetime, q.h.Clock.Now())
	q.h.Metrics.AuthAttempt("signed_grant", err == nil)
	if err != nil {
		return nil //nolint:nilerr // not signed by us, or too old
	}
	grants := make([][]string, 0, len(g.Grants))
	for _, grant := range g.Grants {
		grants = append(grants, grant.Members())
	}
	performer := &auth.Performer{Description: "signed", Metadata: map[string]any{
		"signed": map[string]any{"grants": grants, "user_context": g.User}}}
	who := &auth.Principal{Performer: performer}
	if g.User != nil {
		row, err := q.h.DB.Read(q.ctx()).AccountByName(q.ctx(), *g.User)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look up account of a signed grant: %w", err)
		}
		if row.Organization || !row.Enabled {
			return nil
		}
		who.Kind, who.Username, who.UserID = auth.User, row.Username, &row.ID
		if row.Robot {
			who.Kind = auth.Robot
		}
		performer.UserID, performer.Username = &row.ID, row.Username
	} else {
		q.grants = g.Grants
	}
	q.who, q.known, q.signed = who, true, true
	return nil
}

// checks are what a route asks before its own work, each in the order in which the legacy server asks it.
func (q *request) checks(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// anonymousAllowed refuses requests of nobody where the configuration does not want them.
func (q *request) anonymousAllowed() error {
	if q.h.Config.Features.AnonymousAccess || q.known {
		return nil
	}
	return abort(http.StatusUnauthorized, "Anonymous access is not allowed")
}

// writable refuses changes while the registry is read-only.
func (q *request) writable() error {
	if q.h.Config.RegistryState == "readonly" {
		return regerr.ReadOnly()
	}
	return nil
}

// pushEnabled is cfg FEATURE_RESTRICTED_V1_PUSH.
func (q *request) pushEnabled() error {
	if q.h.Config.Features.RestrictedV1Push && !slices.Contains(q.h.Config.V1PushWhitelist, q.namespace) {
		return abort(http.StatusMethodNotAllowed, "V1 push support has been deprecated. To enable for this namespace, please contact support.")
	}
	return nil
}

// fromSession takes the repository out of the session.
func (q *request) fromSession() error {
	namespace, name, ok := q.session.repository()
	if !ok {
		return abort(http.StatusBadRequest, "Missing namespace in request")
	}
	q.namespace, q.repo = namespace, name
	return nil
}

func (q *request) lookNamespace() error {
	if q.asked {
		return nil
	}
	row, err := q.h.DB.Read(q.ctx()).AccountByName(q.ctx(), q.namespace)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return fmt.Errorf("look up namespace %s: %w", q.namespace, err)
	default:
		q.account, q.enabled = &auth.Namespace{ID: row.ID, Name: row.Username, Organization: row.Organization}, row.Enabled
	}
	q.asked = true
	return nil
}

// namespaceEnabled refuses namespaces that are disabled or missing.
func (q *request) namespaceEnabled() error {
	if err := q.lookNamespace(); err != nil {
		return err
	}
	if q.account == nil || !q.enabled {
		return abort(http.StatusBadRequest, "Namespace is disabled. Please contact your system administrator.")
	}
	return nil
}

// repository is the request's repository, whatever its kind; nil when there is none.
func (q *request) repository() (*directory.Repository, error) {
	if q.looked {
		return q.row, nil
	}
	row, err := q.h.Directory.Repository(q.ctx(), q.namespace, q.repo)
	if err != nil {
		return nil, err
	}
	q.row, q.looked = row, true
	return row, nil
}

// images is the request's repository if it holds images.
func (q *request) images() (*directory.Repository, error) {
	row, err := q.repository()
	if row != nil && row.Kind != directory.KindImage {
		row = nil
	}
	return row, err
}

// stateAllows holds a change against the repository's state. Requests of nobody are left to the check of permissions.
func (q *request) stateAllows() error {
	if q.who.UserID == nil {
		return nil
	}
	row, err := q.repository()
	if err != nil || row == nil {
		return err
	}
	name := q.namespace + "/" + q.repo
	switch row.State {
	case directory.StateReadOnly:
		return abort(http.StatusMethodNotAllowed, "%s is in read-only mode.", name)
	case directory.StateMirror, directory.StateOrgMirror:
		robots, err := q.h.DB.Read(q.ctx()).MirrorRobotOfRepository(q.ctx(), sqlc.MirrorRobotOfRepositoryParams{RepositoryID: row.ID, State: row.State})
		if err != nil {
			return fmt.Errorf("look up mirror robot of %s: %w", name, err)
		}
		switch {
		case slices.Contains(robots, *q.who.UserID):
			return nil
		case row.State == directory.StateOrgMirror:
			return abort(http.StatusMethodNotAllowed, "Repository %s is an org mirror. Org-mirrored repositories cannot be modified directly.", name)
		case len(robots) == 0: // the legacy server answers 500 where the configuration of the mirror is missing
			return abort(http.StatusBadRequest, "Repository %s is configured for mirroring but no robot is assigned.", name)
		}
		return abort(http.StatusMethodNotAllowed, "Repository %s is a mirror. Mirrored repositories cannot be modified directly.", name)
	}
	return nil
}

// need is what the request may do with its repository.
func (q *request) need() (auth.Need, error) {
	if q.grants != nil {
		need := auth.None
		for _, g := range q.grants {
			if g.Namespace == q.namespace && g.Repository == q.repo {
				need = max(need, g.Need)
			}
		}
		return need, nil
	}
	row, err := q.repository()
	if err == nil {
		err = q.lookNamespace()
	}
	if err != nil || q.account == nil {
		return auth.None, err
	}
	ctx := q.ctx()
	var id *int64
	if row != nil {
		id = &row.ID
	}
	return q.h.Permissions.Repository(ctx, q.who, *q.account, id)
}

// may tells whether the request has a permission on its repository.
func (q *request) may(need auth.Need) (bool, error) {
	have, err := q.need()
	return have >= need, err
}

// readable tells whether the request may read its repository of images.
func (q *request) readable() (row *directory.Repository, ok bool, err error) {
	if row, err = q.images(); err != nil {
		return nil, false, err
	}
	if row != nil && row.Public {
		return row, true, nil
	}
	ok, err = q.may(auth.Read)
	return row, ok, err
}

// log writes an action log entry about the repository by whoever asks.
func (q *request) log(kind string, row *directory.Repository, members map[string]any) error {
	e := actionlog.Entry{Kind: kind, Namespace: row.Namespace, AccountID: &row.NamespaceUserID, RepositoryID: &row.ID,
		PerformerID: q.who.UserID, IP: actionlog.ClientIP(q.r), Metadata: map[string]any{
			"repo": row.Name, "namespace": row.Namespace, "user-agent": q.r.UserAgent()}}
	if resolved := actionlog.ResolveIP(e.IP); resolved != nil {
		e.Metadata["resolved_ip"] = resolved
	}
	if q.who.Performer != nil {
		for k, v := range q.who.Performer.Metadata {
			e.Metadata[k] = v
		}
	}
	for k, v := range members {
		e.Metadata[k] = v
	}
	return q.h.ActionLog.Log(q.ctx(), e)
}

// performer is who asks, as the JSON object in notifications.
func (q *request) performer() (string, error) {
	if q.who.UserID == nil {
		return "{}", nil
	}
	p := q.who.Performer
	data, err := pyjson.Spaced(struct {
		TokenID       any    `json:"oauth_token_id,omitempty"`
		ApplicationID any    `json:"oauth_token_application_id,omitempty"`
		Application   any    `json:"oauth_token_application,omitempty"`
		ID            int64  `json:"entity_id"`
		Name          string `json:"entity_name"`
	}{p.Metadata["oauth_token_id"], p.Metadata["oauth_token_application_id"], p.Metadata["oauth_token_application"], *q.who.UserID, q.who.Username})
	return string(data), err
}

// target is a repository as package push wants it.
func target(row *directory.Repository) push.Repository {
	return push.Repository{ID: row.ID, NamespaceID: row.NamespaceUserID, Namespace: row.Namespace, Name: row.Name,
		NamespaceEnabled: row.NamespaceEnabled}
}

// text answers with a text under the framework's default type.
func text(w http.ResponseWriter, status int, body string) {
	send(w, status, "text/html; charset=utf-8", body)
}

func (q *request) text(status int, body string) error {
	text(q.w, status, body)
	return nil
}

// json answers with a value in the spelling of the framework: compact, sorted, a final line feed.
func (q *request) json(v any) error {
	body, err := pyjson.Compact(v)
	if err != nil {
		return err
	}
	send(q.w, http.StatusOK, "application/json", string(body)+"\n")
	return nil
}

func send(w http.ResponseWriter, status int, contentType, body string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		_, _ = w.Write([]byte(body)) // for HEAD the server drops it; else the client is gone if this fails
	}
}

// writer is ctx for reads that must see what was written a moment ago.
func (q *request) writer() context.Context { return metadata.ForceWriter(q.ctx()) }
