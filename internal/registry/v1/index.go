package v1

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/auth/itsdangerous"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/metadata/users"
	"github.com/quayctl/quayctl/internal/pyjson"
	"github.com/quayctl/quayctl/internal/registry/actionlog"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// maxDocument is the largest JSON body that is read, in bytes. The metadata of an image has some kilobytes.
const maxDocument = 1 << 20

// repositoryName is the rule of version 1: no slash.
var repositoryName = regexp.MustCompile(`\A[a-z0-9][.a-z0-9_-]{0,254}\z`)

func secondsOf(n int64) time.Duration { return time.Duration(n) * time.Second }

// ping tells clients what speaks here.
func (q *request) ping() error {
	q.w.Header().Set("X-Docker-Registry-Version", "0.6.0")
	q.w.Header().Set("X-Docker-Registry-Standalone", "0")
	send(q.w, http.StatusOK, "text/plain", "true")
	return nil
}

func (q *request) internalPing() error { return q.text(http.StatusOK, "true") }

// body reads a JSON body that the framework reads for its routes: the type must be JSON's.
func (q *request) body() (map[string]any, error) {
	media, _, err := mime.ParseMediaType(q.r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && !(strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return nil, &regerr.Page{Status: http.StatusUnsupportedMediaType,
			Text: "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."}
	}
	data, err := io.ReadAll(http.MaxBytesReader(q.w, q.r.Body, maxDocument))
	if err != nil {
		return nil, bodyError(err)
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return nil, errors.Join(&regerr.Page{Status: http.StatusBadRequest}, err)
	}
	object, _ := value.(map[string]any)
	return object, nil
}

// signIn is how clients of version 1 try a password: success is the refusal to make an account that is there already.
func (q *request) signIn() error {
	if err := q.writable(); err != nil {
		return err
	}
	body, err := q.body()
	if err != nil {
		return err
	}
	username, ok := body["username"].(string)
	if !ok {
		return abort(http.StatusBadRequest, "Missing username")
	}
	password, _ := body["password"].(string)
	who, kind, err := q.h.Credentials.Verify(q.ctx(), username, password)
	var refused *auth.CredentialError
	var locked *auth.LockedError
	switch {
	case err == nil:
	case errors.As(err, &locked):
		return &regerr.TooManyLogins{RetryAfterSeconds: int(locked.RetryAfter.Seconds())}
	case errors.As(err, &refused):
		if err := q.logRefusal(refused); err != nil {
			return err
		}
		message := refused.Message
		switch kind {
		case auth.CredentialToken:
			message = "Invalid access token."
		case auth.CredentialRobot:
			message = "Invalid robot account or password."
		case auth.CredentialOAuth:
			message = "Invalid oauth access token."
		case auth.CredentialAppToken, auth.CredentialUser:
		}
		return &regerr.Abort{Status: http.StatusBadRequest, Message: message}
	default:
		return err
	}
	if q.h.Config.AuditLogins && who.UserID != nil && who.Kind != auth.Robot {
		err := q.h.ActionLog.Log(q.ctx(), actionlog.Entry{Kind: "login_success", Namespace: who.LogNamespace, AccountID: who.LogAccountID,
			IP: actionlog.ClientIP(q.r), Metadata: map[string]any{"type": "quayauth", "useragent": q.r.UserAgent()}})
		if err != nil {
			return err
		}
	}
	return q.text(http.StatusBadRequest, `"Username or email already exists"`)
}

// user tells whose credentials the request has.
func (q *request) user() error {
	if err := q.authenticate(); err != nil {
		return err
	}
	if !q.known {
		return abort(http.StatusNotFound, "")
	}
	name := &q.who.Username
	switch {
	case q.signed:
		name = nil
	case q.who.Kind == auth.AppSpecificToken:
		*name = "$app"
	case q.who.Kind == auth.OAuthToken:
		*name = "$oauthtoken"
	case q.who.Kind == auth.AccessToken:
		*name = "$token"
	}
	return q.json(map[string]any{"username": name, "email": nil})
}

// changeUser sets the password of the account that asks, which ends its sessions.
func (q *request) changeUser() error {
	if err := q.checks(q.authenticate, q.writable); err != nil {
		return err
	}
	if own := q.who.Kind == auth.User || q.who.Kind == auth.AppSpecificToken; !own || q.who.Username != q.username {
		return abort(http.StatusForbidden, "")
	}
	body, err := q.body()
	if err != nil {
		return err
	}
	if value, ok := body["password"]; ok {
		if err := q.setPassword(value); err != nil {
			return err
		}
	}
	row, err := q.h.DB.Read(q.writer()).AccountByName(q.ctx(), q.username)
	if err != nil {
		return err
	}
	return q.json(map[string]any{"username": row.Username, "email": row.Email})
}

func (q *request) setPassword(value any) error {
	password, _ := value.(string)
	hash, err := users.HashPassword(password)
	var invalid *users.InvalidError
	if errors.As(err, &invalid) {
		return &regerr.Model{Message: invalid.Reason}
	}
	if err != nil {
		return err
	}
	return q.h.DB.Tx(q.ctx(), func(ctx context.Context, tx pgx.Tx) error {
		db := sqlc.New(tx)
		id, err := db.SetUserPassword(ctx, sqlc.SetUserPasswordParams{PasswordHash: hash, UUID: uuid.NewString(), Username: q.username})
		if err != nil {
			return err
		}
		return db.DropPasswordNotification(ctx, id)
	})
}

// index says where the repository's images are, remembers the repository in the session, and gives the client a token for what
// it may do. force gives the grant without asking for the permission.
func (q *request) index(need auth.Need, force bool) error {
	if err := errors.Join(q.session.set(sessionNamespace, q.namespace), q.session.set(sessionRepository, q.repo)); err != nil {
		return err
	}
	header := q.w.Header()
	header.Set("X-Docker-Endpoints", q.r.Host)
	if !force && q.r.Header.Get("X-Docker-Token") == "" {
		return nil
	}
	granted := force
	if !granted {
		var err error
		if granted, err = q.may(need); err != nil {
			return err
		}
	}
	if !granted && q.who.UserID == nil {
		return nil
	}
	var g itsdangerous.Grants
	if granted {
		g.Grants = []itsdangerous.Grant{{Namespace: q.namespace, Repository: q.repo, Need: need}}
	}
	if q.who.UserID != nil {
		g.User = &q.who.Username
	}
	token, err := q.h.serializer.SignGrants(g, q.h.Clock.Now())
	if err != nil {
		return err
	}
	header.Set("WWW-Authenticate", token)
	header.Set("X-Docker-Token", token)
	return nil
}

// beginPush opens a push, and makes the repository of one to a new name.
func (q *request) beginPush() error {
	if err := q.checks(q.authenticate, q.pushEnabled, q.namespaceEnabled, q.stateAllows, q.writable); err != nil {
		return err
	}
	if !repositoryName.MatchString(q.repo) {
		return abort(http.StatusBadRequest, "Invalid repository name. Repository names cannot contain slashes.")
	}
	row, err := q.repository()
	if err != nil {
		return err
	}
	if row != nil {
		if ok, err := q.may(auth.Write); err != nil {
			return err
		} else if !ok {
			return abort(http.StatusForbidden, "You do not have permission to modify repository %s/%s", q.namespace, q.repo)
		}
	} else if err := q.create(); err != nil {
		return err
	}
	b := newBuilder()
	if err := errors.Join(q.saveBuilder(b), q.session.set(sessionBuilder, b.id), q.index(auth.Write, true)); err != nil {
		return err
	}
	return q.text(http.StatusCreated, "Created")
}

// create makes the request's repository. It is private, whatever the visibility of those made by the other protocol.
func (q *request) create() error {
	if q.who.UserID == nil {
		return abort(http.StatusUnauthorized, `Cannot create a repository as a guest. Please login via "docker login" first.`)
	}
	may, err := q.h.Permissions.CreateRepository(q.ctx(), q.who, *q.account)
	if err != nil {
		return err
	}
	if !may || q.who.Username == q.account.Name && auth.Restricted(q.h.Config, q.who.Username) {
		return abort(http.StatusForbidden, `You do not have permission to create repositories in namespace "%s"`, q.namespace)
	}
	if _, err := q.h.Directory.Create(q.ctx(), q.who, *q.account, q.repo, "private"); err != nil {
		return err
	}
	row, err := q.h.Directory.Repository(q.writer(), q.namespace, q.repo)
	if err != nil {
		return err
	}
	if row == nil { // the name is taken by a repository that is being deleted
		return abort(http.StatusNotFound, "Unknown repository")
	}
	q.row = row
	return nil
}

// endPush ends a push and tells who wants to hear of it.
func (q *request) endPush() (err error) {
	defer func() { q.h.Metrics.V1Push(statusOf(err, http.StatusNoContent)) }()
	if err := q.checks(q.authenticate, q.pushEnabled, q.namespaceEnabled, q.stateAllows, q.writable); err != nil {
		return err
	}
	if ok, err := q.may(auth.Write); err != nil {
		return err
	} else if !ok {
		return abort(http.StatusForbidden, "")
	}
	row, err := q.images()
	if err != nil {
		return err
	}
	if row == nil {
		return abort(http.StatusNotFound, "Unknown repository")
	}
	b := q.builder()
	if b == nil {
		return abort(http.StatusBadRequest, "")
	}
	performer, err := q.performer()
	if err != nil {
		return err
	}
	q.session.drop(sessionState)
	if err := q.log("push_repo", row, nil); err != nil {
		return err
	}
	if err := q.h.push.Notify(q.ctx(), target(row), b.tagNames(), performer); err != nil {
		return err
	}
	if err := q.index(auth.Write, false); err != nil {
		return err
	}
	return q.text(http.StatusNoContent, "")
}

// beginPull opens a pull. The list of images is empty: clients go by tags and ancestries.
func (q *request) beginPull() (err error) {
	defer func() { q.h.Metrics.V1Pull(statusOf(err, http.StatusOK)) }()
	if err := q.checks(q.authenticate, q.namespaceEnabled, q.anonymousAllowed); err != nil {
		return err
	}
	row, ok, err := q.readable()
	if err != nil {
		return err
	}
	if !ok {
		return abort(http.StatusForbidden, "")
	}
	if row == nil {
		return abort(http.StatusNotFound, "Unknown repository")
	}
	if err := q.log("pull_repo", row, nil); err != nil {
		return err
	}
	if err := q.index(auth.Read, false); err != nil {
		return err
	}
	send(q.w, http.StatusOK, "application/json", "[]")
	return nil
}

func (q *request) deleteImages() error {
	if err := q.checks(q.authenticate, q.pushEnabled, q.namespaceEnabled, q.stateAllows, q.writable); err != nil {
		return err
	}
	return abort(http.StatusNotImplemented, "")
}

// repositoryAuth never looks at credentials.
func (q *request) repositoryAuth() error {
	if err := q.checks(q.pushEnabled, q.namespaceEnabled, q.stateAllows, q.writable); err != nil {
		return err
	}
	return abort(http.StatusNotImplemented, "")
}

const maxSearchPage = 5

// found is one repository in the answer of a search.
type found struct {
	Name        string  `json:"name"`
	Description *string `json:"description"`
	Public      bool    `json:"is_public"`
	Href        string  `json:"href"`
}

// search finds repositories by name and description.
func (q *request) search() error {
	if err := q.checks(q.authenticate, q.anonymousAllowed); err != nil {
		return err
	}
	query := q.r.URL.Query()
	number := func(name string, otherwise int64) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(query.Get(name)), 10, 64)
		if err != nil {
			return otherwise
		}
		return n
	}
	limit := min(100, max(1, number("n", 25)))
	page := min(maxSearchPage, max(0, number("page", 1)))
	asked := query.Get("q")
	answer := struct {
		Query   string  `json:"query"`
		Results int     `json:"num_results"`
		Pages   int64   `json:"num_pages"`
		Page    int64   `json:"page"`
		Size    int64   `json:"page_size"`
		List    []found `json:"results"`
	}{Query: asked, Pages: page, Page: page, Size: limit, List: []found{}}
	if asked != "" && utf8.ValidString(asked) && !strings.ContainsRune(asked, 0) {
		namespace, name, both := strings.Cut(asked, "/")
		if !both {
			namespace, name = "", asked
		}
		rows, err := q.h.DB.Read(q.ctx()).SearchRepositories(q.ctx(), sqlc.SearchRepositoriesParams{
			Pattern: "%" + wildcards.Replace(name) + "%", Namespace: namespace, UserID: q.who.UserID,
			SkipRows: max(0, page-1) * limit, MaxRows: limit + 1})
		if err != nil {
			return err
		}
		if int64(len(rows)) > limit {
			rows, answer.Pages = rows[:limit], page+1
		}
		for _, row := range rows {
			full := row.Namespace + "/" + row.Name
			answer.List = append(answer.List, found{Name: full, Description: row.Description, Public: row.Visibility == "public",
				Href: "/repository/" + full})
		}
	}
	answer.Results = len(answer.List)
	body, err := pyjson.Spaced(answer)
	if err != nil {
		return err
	}
	send(q.w, http.StatusOK, "application/json", string(body))
	return nil
}

// wildcards makes a text one that ILIKE … ESCAPE '!' takes as it is.
var wildcards = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_", "'", "", `"`, "", "`", "")

func statusOf(err error, success int) int {
	if err == nil {
		return success
	}
	return regerr.Status(err)
}
