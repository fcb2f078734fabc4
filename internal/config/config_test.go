package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestNoDrift holds the structure against the catalogue of legacy keys, both ways.
func TestNoDrift(t *testing.T) {
	keys, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string][]string{
		"text": {"string"}, "secret": {"string"}, "address": {"string"}, "time span": {"string"}, "size": {"string"},
		"true/false": {"boolean"}, "whole number": {"number", "integer", "int"}, "list": {"array"}, "mapping": {"object"},
	}
	// The legacy schema calls this one a string, its default is true and the code reads a truth value.
	wrong := map[string]string{"ACTION_LOG_AUDIT_LOGINS": "true/false"}
	have := map[string]bool{}
	for _, d := range Documentation() {
		if have[d.Key] {
			t.Errorf("%s stands twice in the structure", d.Key)
		}
		have[d.Key] = true
		k, ok := keys[d.Key]
		if !ok {
			t.Errorf("%s: the legacy server has no such key", d.Key)
			continue
		}
		if d.Text == "" || !strings.HasSuffix(d.Text, ".") {
			t.Errorf("%s: documentation %q is not a sentence", d.Key, d.Text)
		}
		if len(k.Types) > 0 && wrong[d.Key] != d.Type && !slices.ContainsFunc(k.Types, func(s string) bool { return slices.Contains(types[d.Type], s) }) {
			t.Errorf("%s: is a %s here and %v there", d.Key, d.Type, k.Types)
		}
		var ours, theirs any
		if err := yaml.Unmarshal([]byte(d.Default), &ours); err != nil {
			t.Errorf("%s: default: %v", d.Key, err)
		}
		if len(k.Default) > 0 {
			if err := yaml.Unmarshal(k.Default, &theirs); err != nil {
				t.Errorf("%s: default: %v", d.Key, err)
			}
		}
		if len(k.Default) == 0 && ours == false {
			continue // absent is false
		}
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Errorf("%s: default differs (-legacy +ours):\n%s", d.Key, diff)
		}
	}
	relevant, err := os.ReadFile("testdata/relevant.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(string(relevant)) {
		if !have[key] {
			t.Errorf("%s matters to a registry and is not in the structure", key)
		}
	}
	for name, k := range keys {
		if k.Required && !have[name] {
			t.Errorf("%s is required and not in the structure", name)
		}
	}
}

// TestDefaultFeatures checks a handful of defaults by value, so that a wrong import cannot hide.
func TestDefaultFeatures(t *testing.T) {
	c := Default()
	f := c.Features
	if !f.AnonymousAccess || !f.GarbageCollection || !f.ReferrersAPI || f.ProxyCache || f.SuperusersFullAccess || f.AutoPrune {
		t.Errorf("features: %+v", f)
	}
	if c.MaximumLayerSize.Bytes() != 20_000_000_000 || c.MaximumLayerSize.FrontBytes() != 20<<30 {
		t.Errorf("MAXIMUM_LAYER_SIZE: %d, %d", c.MaximumLayerSize.Bytes(), c.MaximumLayerSize.FrontBytes())
	}
	if c.DefaultTagExpiration.Span() != 14*24*time.Hour || c.AppSpecificTokenLifetime.IsSet() {
		t.Errorf("time spans: %v, %v", c.DefaultTagExpiration, c.AppSpecificTokenLifetime)
	}
	if !slices.Equal(c.CORSOrigin, []string{"*"}) || len(c.AllowedOCIArtifactTypes) != 4 || c.PullMetricsRedis.DB != 1 {
		t.Errorf("lists and mappings: %v %v %v", c.CORSOrigin, c.AllowedOCIArtifactTypes, c.PullMetricsRedis)
	}
}

// vectors are the values that the legacy code gave.
type vectors struct {
	Durations []struct {
		Text    string
		Seconds float64
		Error   string
	}
	Sizes []struct {
		Text  string
		Bytes any // a number, or the error's name
	} `json:"size_strings"`
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("../../test/contract/vectors/names.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDurations(t *testing.T) {
	for _, v := range readVectors(t).Durations {
		d, err := ParseDuration(v.Text)
		if (err != nil) != (v.Error != "") || err == nil && (d.Span().Seconds() != v.Seconds || d.String() != v.Text) {
			t.Errorf("%q: %v %v, want %v s, error %q", v.Text, d.Span(), err, v.Seconds, v.Error)
		}
	}
	for _, text := range []string{"s", "99999999999999w"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, d.Span())
		}
	}
}

func TestSizes(t *testing.T) {
	for _, v := range readVectors(t).Sizes {
		s, err := ParseSize(v.Text)
		if want, ok := v.Bytes.(float64); ok != (err == nil) || ok && float64(s.Bytes()) != want {
			t.Errorf("%q: %d %v, want %v", v.Text, s.Bytes(), err, v.Bytes)
		}
	}
	for _, text := range []string{"", "-1G", "1Q"} {
		if s, err := ParseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, s.Bytes())
		}
	}
	if s, _ := ParseSize("512M"); s.FrontBytes() != 512<<20 {
		t.Errorf("512M at the front: %d", s.FrontBytes())
	}
}

// TestLegacyConfig reads the configuration of the recorded legacy server.
func TestLegacyConfig(t *testing.T) {
	data, err := os.ReadFile("../../test/contract/dataset/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := os.Expand(string(data), func(name string) string {
		return map[string]string{"SERVER_HOSTNAME": "localhost:18000", "DB_URI": "postgresql://quay@localhost/quay", "REDIS_PORT": "6379", "SMTP_PORT": "25"}[name] +
			map[string]string{"REDIS_HOST": "localhost", "SMTP_HOST": "localhost", "STORAGE_DIR": "/storage", "CONF_DIR": "/conf"}[name]
	})
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Validate(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	if u := c.Unknown(); len(u) > 0 {
		t.Errorf("unknown keys: %v", u)
	}
	if c.DatabaseSecretKey.Integer() || len(c.Storage) != 2 || c.Storage[0].Parameters.Text("storage_path") != "/storage/us" || !c.Features.ProxyCache {
		t.Errorf("read as %+v", c)
	}
}

const secretWord = "hunter2-very-secret"

const secretConfig = `
SECRET_KEY: ` + secretWord + `
DATABASE_SECRET_KEY: "` + secretWord + `"
PAGE_TOKEN_KEY: ` + secretWord + `
DB_URI: postgresql://quay:` + secretWord + `@db.example/quay?sslpassword=` + secretWord + `
DB_READ_REPLICAS: [{DB_URI: "postgresql://quay:p@` + secretWord + `@replica/quay"}]
DB_CONNECTION_ARGS: {password: ` + secretWord + `, sslmode: require}
BUILDLOGS_REDIS: {host: redis, password: ` + secretWord + `}
DISTRIBUTED_STORAGE_CONFIG:
  s3: [S3Storage, {storage_path: /x, s3_bucket: b, s3_secret_key: ` + secretWord + `, nested: {deep: ` + secretWord + `}, endpoint_url: "https://u:` + secretWord + `@h"}]
LDAP_ADMIN_PASSWD: ` + secretWord + `
COMPANY_LOGIN_CONFIG: {CLIENT_SECRET: ` + secretWord + `}
`

func TestSecretsAreNeverPrinted(t *testing.T) {
	c, err := Parse([]byte(secretConfig))
	if err != nil {
		t.Fatal(err)
	}
	if c.SecretKey.Reveal() != secretWord || !strings.Contains(c.DBURI.Reveal(), secretWord) {
		t.Fatal("the secrets were not read")
	}
	var out bytes.Buffer
	for _, v := range []any{c, *c, c.SecretKey, &c.SecretKey, c.DBURI, c.Storage, c.Other, c.BuildLogsRedis, c.DBReadReplicas, c.DBConnectionArgs} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		j, err := json.Marshal(v)
		if err != nil {
			t.Errorf("json %T: %v", v, err)
		}
		out.Write(j)
		y, err := yaml.Marshal(v)
		if err != nil {
			t.Errorf("yaml %T: %v", v, err)
		}
		out.Write(y)
	}
	for _, p := range c.Validate() {
		fmt.Fprintln(&out, p)
	}
	hexWord := fmt.Sprintf("%x", secretWord)
	for i, line := range strings.Split(out.String(), "\n") {
		if strings.Contains(line, secretWord) || strings.Contains(strings.ToLower(line), hexWord) {
			t.Errorf("line %d shows the secret: %.300s", i, line)
		}
	}
	for _, want := range []string{"postgresql://quay:[redacted]@db.example/quay?sslpassword=[redacted]", "s3_bucket"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown", want)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, `
# comment
SERVER_HOSTNAME: quay.example:8443
SUPER_USERS: [admin, 1234]
FEATURE_PROXY_CACHE: yes
lower_case: ignored
DEFAULT_TAG_EXPIRATION: 4w
DATABASE_SECRET_KEY: 72610394857261039485726103948572610394857261039485726103948572610394857261039
SECRET_KEY: '12345'
MAIL_SERVER: mail.example
SUPER_USER: [typo]
DISTRIBUTED_STORAGE_CONFIG: &c
  b: [LocalStorage, {storage_path: /b}]
  a: [LocalStorage, {storage_path: /a}]
MY_LOGIN_CONFIG: {}
SERVER_HOSTNAME: last.wins
`)
	env := map[string]string{
		"QUAY_OVERRIDE_CONFIG":                `{"SERVER_HOSTNAME":"over\/ride","V2_PAGINATION_SIZE":7,"FEATURE_AUTO_PRUNE":true,"small":1}`,
		"QUAY_DISTRIBUTED_STORAGE_PREFERENCE": "b a",
	}
	c, err := LoadEnv(dir, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerHostname != "over/ride" || c.V2PaginationSize != 7 || !c.Features.AutoPrune || !c.Features.ProxyCache {
		t.Errorf("override: %q %d %v", c.ServerHostname, c.V2PaginationSize, c.Features)
	}
	if !slices.Equal(c.SuperUsers, []string{"admin", "1234"}) || c.DefaultTagExpiration.Span() != 28*24*time.Hour {
		t.Errorf("file: %v %v", c.SuperUsers, c.DefaultTagExpiration)
	}
	if !c.DatabaseSecretKey.Integer() || len(c.DatabaseSecretKey.Reveal()) != 77 || c.SecretKey.Integer() || c.SecretKey.Reveal() != "12345" {
		t.Errorf("keys: %v %v", c.DatabaseSecretKey.Integer(), c.SecretKey.Integer())
	}
	if c.Storage[0].Name != "b" || c.Storage[1].Name != "a" || !slices.Equal(c.StoragePreference, []string{"b", "a"}) {
		t.Errorf("storage: %v %v", c.Storage, c.StoragePreference)
	}
	var mail string
	if err := c.Other["MAIL_SERVER"].Decode(&mail); err != nil || mail != "mail.example" {
		t.Errorf("kept key: %q %v", mail, err)
	}
	if _, ok := c.Other["lower_case"]; ok || c.Given("lower_case") {
		t.Error("a key in lower case was read")
	}
	var log bytes.Buffer
	c.LogWarnings(slog.New(slog.NewTextHandler(&log, nil)))
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "[SUPER_USER]") {
		t.Errorf("warning: %s", log.String())
	}
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ name, text, override, want string }{
		{"list", "- a\n", "", "must be a mapping"},
		{"broken", "A: [", "", "not valid YAML"},
		{"type", "V2_PAGINATION_SIZE: many\nFEATURE_PROXY_CACHE: [1]\n", "", "V2_PAGINATION_SIZE (many): must be a whole number; correct the value; page size of listings."},
		{"secret type", "DATABASE_SECRET_KEY: [" + secretWord + "]\n", "", "DATABASE_SECRET_KEY ([redacted]): must be text"},
		{"override", "A: 1", "{", "QUAY_OVERRIDE_CONFIG is not a JSON object"},
	} {
		dir := t.TempDir()
		write(t, dir, c.text)
		_, err := LoadEnv(dir, func(k string) string { return map[string]string{"QUAY_OVERRIDE_CONFIG": c.override}[k] })
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secretWord) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "config.yaml") {
		t.Errorf("missing file: %v", err)
	}
	if c, err := Parse([]byte("# nothing\n")); err != nil || c.V2PaginationSize != 50 {
		t.Errorf("empty file: %v", err)
	}
}

func TestValidateTellsEverything(t *testing.T) {
	c, err := Parse([]byte(`
PREFERRED_URL_SCHEME: ftp
SERVER_HOSTNAME: https://quay.example/
DB_URI: mysql+pymysql://quay:` + secretWord + `@db/quay
AUTHENTICATION_TYPE: Magic
DISTRIBUTED_STORAGE_CONFIG:
  a: [LocalStorage, {}]
  b: [NoSuchStorage, {}]
DISTRIBUTED_STORAGE_PREFERENCE: [c]
DEFAULT_TAG_EXPIRATION: 3w
TAG_EXPIRATION_OPTIONS: [2w, sometimes]
MAXIMUM_LAYER_SIZE: 0G
FEATURE_PROGRAMMATIC_BOOTSTRAP: true
GARBAGE_COLLECTION_FREQUENCY: often
PUSH_TEMP_TAG_EXPIRATION_SEC: 0
PAGE_TOKEN_KEY: short
REGISTRY_STATE: closed
`))
	if err != nil {
		t.Fatal(err)
	}
	problems := c.Validate()
	var keys []string
	for _, p := range problems {
		if p.Cause == "" || p.Remedy == "" || strings.Contains(p.String(), secretWord) {
			t.Errorf("incomplete or indiscreet: %s", p)
		}
		keys = append(keys, p.Key)
	}
	want := []string{
		"GARBAGE_COLLECTION_FREQUENCY", "BUILDLOGS_REDIS", "USER_EVENTS_REDIS", "SETUP_COMPLETE", "DATABASE_SECRET_KEY",
		"PREFERRED_URL_SCHEME", "REGISTRY_STATE", "AUTHENTICATION_TYPE", "SERVER_HOSTNAME", "DB_URI",
		"DISTRIBUTED_STORAGE_CONFIG", "DISTRIBUTED_STORAGE_CONFIG", "DISTRIBUTED_STORAGE_PREFERENCE",
		"TAG_EXPIRATION_OPTIONS", "DEFAULT_TAG_EXPIRATION", "MAXIMUM_LAYER_SIZE", "PAGE_TOKEN_KEY",
		"PUSH_TEMP_TAG_EXPIRATION_SEC", "BOOTSTRAP_TOKEN_OWNER",
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("problems (-want +got):\n%s\n%v", diff, problems)
	}
	if problems.Err() == nil || (Problems{}).Err() != nil {
		t.Error("Err does not tell problems from none")
	}
}

func TestApplianceConfig(t *testing.T) {
	a := Appliance{
		ServerHostname: "quay.example:8443", SecretKey: NewSecret("s3cret"), DatabaseSecretKey: NewSecret("123456"),
		PageTokenKey: NewSecret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), SuperUsers: []string{"admin"},
	}
	text, err := a.Render()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "appliance.yaml")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("rendered (-want +got):\n%s", diff)
	}
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Validate(); len(p) > 0 {
		t.Errorf("a fresh configuration has problems: %v", p)
	}
	if len(c.Unknown()) > 0 || len(c.Other) > 0 {
		t.Errorf("unknown keys: %v %v", c.Unknown(), c.Other)
	}
	if c.DatabaseSecretKey.Integer() || c.DatabaseSecretKey.Reveal() != "123456" || c.Testing || c.DBURI.Reveal() != ApplianceDatabase {
		t.Errorf("read back: %+v", c)
	}
	if _, err := (Appliance{}).Render(); err == nil {
		t.Error("a configuration without secrets was rendered")
	}
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
