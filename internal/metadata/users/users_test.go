package users_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata/pgtest"
	"github.com/quayctl/quayctl/internal/metadata/users"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var now = time.Date(2026, 11, 23, 16, 25, 27, 123456000, time.FixedZone("west", -3600))

const (
	wall = "2026-11-23T17:25:27.123456" // now in UTC, as PostgreSQL's JSON writes it
	hash = "$2b$12$abcdefghijklmnopqrstuutwZ1IOTtu3SsEBT5lI/LFncP31tIybm"
)

// rows are a query's rows as JSON objects without their null columns, the form of the recordings.
func rows(t *testing.T, conn *pgx.Conn, query string) []map[string]any {
	t.Helper()
	var text []byte
	err := conn.QueryRow(t.Context(), `SELECT coalesce(json_agg(json_strip_nulls(to_json(x))), '[]') FROM (`+query+`) x`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	var v []map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func take(t *testing.T, row map[string]any, key string) any {
	t.Helper()
	v, ok := row[key]
	if !ok {
		t.Fatalf("row %v has no %s", row, key)
	}
	delete(row, key)
	return v
}

func TestANewUserHasTheRecordedRows(t *testing.T) {
	db := pgtest.Populated(t)
	conn := db.Super()
	user, err := users.Create(t.Context(), conn, users.New{
		Username: "newuser", Email: "newuser@example.com", PasswordHash: hash,
		Prompts: []string{users.PromptCompany, users.PromptName}, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := rows(t, conn, `SELECT * FROM "user" WHERE username = 'newuser'`)
	if len(got) != 1 {
		t.Fatalf("%d rows", len(got))
	}
	id := take(t, got[0], "id")
	if uuid, _ := take(t, got[0], "uuid").(string); len(uuid) != 36 || user.UUID == nil || *user.UUID != uuid {
		t.Errorf("uuid %v", uuid)
	}
	want := map[string]any{
		"creation_date": wall, "email": "newuser@example.com", "enabled": true, "invalid_login_attempts": 0.0,
		"invoice_email": false, "last_invalid_login": wall, "organization": false, "password_hash": hash,
		"removed_tag_expiration_s": 1209600.0, "robot": false, "username": "newuser", "verified": false,
	}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
	prompts := rows(t, conn, `SELECT kind_id, user_id FROM userprompt WHERE user_id <> 8 ORDER BY id`)
	if diff := cmp.Diff([]map[string]any{{"kind_id": 3.0, "user_id": id}, {"kind_id": 2.0, "user_id": id}}, prompts); diff != "" {
		t.Error(diff)
	}
	logs := rows(t, conn, `SELECT * FROM logentry3 ORDER BY id DESC LIMIT 1`)
	take(t, logs[0], "id")
	wantLog := map[string]any{
		"account_id": id, "datetime": wall, "kind_id": 86.0,
		"metadata_json": `{"email": "newuser@example.com", "username": "newuser"}`,
	}
	if diff := cmp.Diff(wantLog, logs[0]); diff != "" {
		t.Error(diff)
	}
}

func TestNamesAndAddressesInUseAreRefused(t *testing.T) {
	db := pgtest.Populated(t)
	db.Exec(`INSERT INTO queueitem (queue_name, body, available, available_after, processing_expires, retries_remaining, state_id) VALUES ('namespacegc/2/', '{}', true, now(), now(), 5, 'x');
		INSERT INTO deletednamespace (namespace_id, marked, original_username, original_email, queue_id) SELECT 2, now(), 'leaving', 'l@example.com', max(id) FROM queueitem`)
	conn := db.Conn()
	for _, c := range []struct {
		username, email, message string
		invalid                  bool
	}{
		{"buynlarge", "n@example.com", "Username has already been taken by an organization and cannot be reused: buynlarge", false},
		{"devtable", "n@example.com", "Username has already been taken by a user and cannot be reused: devtable", false},
		{"leaving", "n@example.com", "Username belonged to a namespace that is still being deleted: leaving", false},
		{"newuser", "jschorr@devtable.com", "Email has already been used: jschorr@devtable.com", false},
		{"New User!", "n@example.com", "Invalid namespace New User!: Namespace must match expression ^([a-z0-9]+(?:[._-][a-z0-9]+)*)$", true},
		{"new+user", "n@example.com", "Invalid namespace new+user: Namespace must match expression ^([a-z0-9]+(?:[._-][a-z0-9]+)*)$", true},
		{"a", "n@example.com", "Invalid namespace a: Namespace must be between 2 and 255 characters in length", true},
		{"newuser", "", "Email address is required", true},
		{"newuser", "bad", "Invalid email address: bad", true},
	} {
		_, err := users.Create(t.Context(), conn, users.New{Username: c.username, Email: c.email, PasswordHash: hash, Now: now})
		var taken *users.TakenError
		var invalid *users.InvalidError
		if err == nil || err.Error() != c.message || errors.As(err, &invalid) != c.invalid || errors.As(err, &taken) == c.invalid {
			t.Errorf("%s %s: %v", c.username, c.email, err)
		}
	}
	if n := len(rows(t, conn, `SELECT id FROM "user"`)); n != 29 {
		t.Errorf("%d users after refusals, were 29", n)
	}
}

func TestAPasswordResetChangesWhatIsRecorded(t *testing.T) {
	db := pgtest.Populated(t)
	db.Exec(`UPDATE "user" SET invalid_login_attempts = 5 WHERE username = 'freshuser'`)
	conn := db.Conn()
	before := rows(t, conn, `SELECT * FROM "user" ORDER BY id`)
	if err := users.ResetPassword(t.Context(), conn, "freshuser", hash, now); err != nil {
		t.Fatal(err)
	}
	after := rows(t, conn, `SELECT * FROM "user" ORDER BY id`)
	for i := range before {
		if before[i]["username"] != "freshuser" {
			continue
		}
		if before[i]["uuid"] == after[i]["uuid"] {
			t.Error("the uuid stayed, so old sessions live on")
		}
		before[i]["uuid"] = after[i]["uuid"]
		before[i]["password_hash"] = hash
		before[i]["invalid_login_attempts"] = 0.0
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	logs := rows(t, conn, `SELECT kind_id, account_id, metadata_json FROM logentry3 ORDER BY id DESC LIMIT 1`)
	if diff := cmp.Diff(map[string]any{"kind_id": 91.0, "account_id": 6.0, "metadata_json": `{"username": "freshuser"}`}, logs[0]); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"nosuch", "buynlarge", "devtable+dtrobot"} {
		if err := users.ResetPassword(t.Context(), conn, name, hash, now); !errors.Is(err, users.ErrNoSuchUser) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheListHasPeopleOnly(t *testing.T) {
	list, err := users.List(context.Background(), pgtest.Populated(t).Conn())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range list {
		names = append(names, u.Username)
	}
	want := "admin creator devtable disabled freshuser globalreadonlysuperuser member normaluser outsideorg public randomuser reader subscription unverified"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func vector[T any](t *testing.T, file string) (v T) {
	t.Helper()
	text, err := os.ReadFile("../../../test/contract/vectors/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRulesOfNames(t *testing.T) {
	v := vector[struct {
		Namespace []struct {
			Name, Message string
			Valid         bool
		}
		Email []struct {
			Email string
			Valid bool
		}
		Password []struct {
			Password string
			Valid    bool
		}
		Messages struct{ Password string }
	}](t, "names.json")
	if len(v.Namespace) == 0 || len(v.Email) == 0 || len(v.Password) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.Namespace {
		err := users.ValidateUsername(c.Name)
		if strings.HasSuffix(c.Name, "\n") {
			// The legacy pattern lets one final line feed through, and nobody can sign in by such a name.
			if err == nil {
				t.Errorf("%q was taken", c.Name)
			}
			continue
		}
		if (err == nil) != c.Valid || (err != nil && err.Error() != "Invalid namespace "+c.Name+": "+c.Message) {
			t.Errorf("%q: %v, want %s", c.Name, err, c.Message)
		}
	}
	for _, c := range v.Email {
		if err := users.ValidateEmail(c.Email); (err == nil) != c.Valid {
			t.Errorf("%q: %v, want %t", c.Email, err, c.Valid)
		}
	}
	for _, c := range v.Password {
		if err := users.ValidatePassword(c.Password); (err == nil) != c.Valid || (err != nil && err.Error() != v.Messages.Password) {
			t.Errorf("%q: %v, want %t", c.Password, err, c.Valid)
		}
	}
}

func TestHashes(t *testing.T) {
	v := vector[struct {
		Bcrypt []struct {
			Password, Hash, Error string
			Matches               bool
		}
	}](t, "credentials.json")
	if len(v.Bcrypt) == 0 {
		t.Fatal("no vectors")
	}
	for _, c := range v.Bcrypt {
		if got := users.CheckPassword(c.Hash, c.Password); got != c.Matches {
			t.Errorf("%q against %s: %t", c.Password, c.Hash, got)
		}
	}
	for _, password := range []string{"password1", strings.Repeat("x", 200), "pässwörd"} {
		made, err := users.HashPassword(password)
		if err != nil || !strings.HasPrefix(made, "$2b$12$") || !users.CheckPassword(made, password) || users.CheckPassword(made, "password2") {
			t.Errorf("%s: %s, %v", password, made, err)
		}
	}
	if _, err := users.HashPassword("short"); err == nil {
		t.Error("a short password was hashed")
	}
	if _, err := users.HashPassword("nul\x00inside"); err == nil {
		t.Error("a password with a NUL was hashed")
	}
}
