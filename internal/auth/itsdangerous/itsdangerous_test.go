package itsdangerous

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/auth"
)

type vectors struct {
	Sessions []struct {
		Secret string `json:"secret_key"`
		Time   int64  `json:"time"`
		JSON   string `json:"tagged_json"`
		Cookie string `json:"cookie"`
	} `json:"sessions"`
	Grants []struct {
		Secret string      `json:"secret_key"`
		Time   int64       `json:"time"`
		Grants [][4]string `json:"grants"`
		User   *string     `json:"user_context"`
		Token  string      `json:"token"`
	} `json:"signed_grants"`
}

func read(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("../../../test/contract/vectors/sessions.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSessionsOfTheLegacyServer(t *testing.T) {
	for _, v := range read(t).Sessions {
		s, at := New(v.Secret), time.Unix(v.Time, 0)
		payload, err := s.Open(v.Cookie, time.Hour, at.Add(time.Minute))
		if err != nil || string(payload) != v.JSON {
			t.Errorf("%s: %q, %v, want %q", v.Cookie, payload, err, v.JSON)
		}
		// What is compressed depends on the compressor, not the format.
		if !strings.HasPrefix(v.Cookie, ".") {
			if text, err := s.Sign([]byte(v.JSON), at); err != nil || text != v.Cookie {
				t.Errorf("signed %s, %v, want %s", text, err, v.Cookie)
			}
		}
		session, err := s.OpenSession(v.Cookie, time.Hour, at)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := s.SealSession(session, at)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.OpenSession(sealed, time.Hour, at)
		if err != nil || !reflect.DeepEqual(session, again) {
			t.Errorf("%s: %v became %v, %v", v.Cookie, session, again, err)
		}
	}
}

func TestGrantsOfTheLegacyServer(t *testing.T) {
	for _, v := range read(t).Grants {
		s, at := New(v.Secret), time.Unix(v.Time, 0)
		g, err := s.OpenGrants(v.Token, time.Hour, at)
		if err != nil {
			t.Fatal(err)
		}
		var got [][4]string
		for _, grant := range g.Grants {
			got = append(got, [4]string(grant.Members()))
		}
		if len(got) != len(v.Grants) || len(got) > 0 && !reflect.DeepEqual(got, v.Grants) || !reflect.DeepEqual(g.User, v.User) {
			t.Errorf("%s: %v for %v, want %v for %v", v.Token, got, g.User, v.Grants, v.User)
		}
		token, err := s.SignGrants(g, at)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(v.Token, "sigv2=.") && token != v.Token {
			t.Errorf("signed %s, want %s", token, v.Token)
		}
		again, err := s.OpenGrants(token, time.Hour, at)
		if err != nil || !reflect.DeepEqual(g, again) {
			t.Errorf("%v became %v, %v", g, again, err)
		}
	}
}

func TestRefused(t *testing.T) {
	s, now := New("secret"), time.Unix(1700000000, 0)
	good, err := s.Sign([]byte(`{"a":1}`), now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		at   time.Time
		want error
	}{
		"empty":           {"", now, ErrSignature},
		"no dot":          {"garbage", now, ErrSignature},
		"one dot":         {"e30.AA", now, ErrSignature},
		"other payload":   {"x" + good, now, ErrSignature},
		"other signature": {good[:len(good)-2] + "AA", now, ErrSignature},
		"expired":         {good, now.Add(time.Hour + time.Second), ErrExpired},
		"from the future": {good, now.Add(-2 * time.Minute), ErrExpired},
	} {
		if payload, err := s.Open(c.text, time.Hour, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v, want %v", name, payload, err, c.want)
		}
	}
	if _, err := New("other").Open(good, time.Hour, now); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	if _, err := s.Open(good, time.Hour, now.Add(time.Hour)); err != nil {
		t.Errorf("at the end of its life: %v", err)
	}
}

func TestPayloadBomb(t *testing.T) {
	s, now := New("secret"), time.Unix(1700000000, 0)
	text, err := s.Sign(make([]byte, maxPayload+1), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(text, time.Hour, now); err == nil {
		t.Fatal("was opened")
	}
}

func FuzzOpen(f *testing.F) {
	for _, v := range read(f).Sessions {
		f.Add(v.Cookie)
	}
	for _, v := range read(f).Grants {
		f.Add(v.Token)
	}
	s, now := New("test-secret-key"), time.Unix(1700000000, 0)
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = s.OpenSession(text, time.Hour, now)
		_, _ = s.OpenGrants(text, time.Hour, now)
		_, _ = unpack(text)
	})
}

func FuzzGrants(f *testing.F) {
	f.Add([]byte(`{"grants":[{" t":["repository","a","b","read"]}],"user_context":null}`))
	f.Add([]byte(`{"grants":[[1]],"user_context":{}}`))
	s, now := New("secret"), time.Unix(1700000000, 0)
	f.Fuzz(func(t *testing.T, payload []byte) {
		g, err := parseGrants(payload)
		if err != nil {
			return
		}
		for _, grant := range g.Grants {
			if grant.Need != auth.Read && grant.Need != auth.Write {
				t.Fatalf("%v", grant)
			}
		}
		token, err := s.SignGrants(g, now)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.OpenGrants(token, time.Hour, now)
		if err != nil || len(again.Grants) != len(g.Grants) {
			t.Fatalf("%v became %v, %v", g, again, err)
		}
	})
}
