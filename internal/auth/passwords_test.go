package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
)

// TestBcrypt is the contract's vectors of password hashes.
func TestBcrypt(t *testing.T) {
	p, err := newPasswords(clock.NewFake(time.Unix(1700000000, 0)))
	if err != nil {
		t.Fatal(err)
	}
	const long = "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i"
	for _, c := range []struct {
		password, hash string
		want           bool
	}{
		{"password", "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm", true},
		{"Password", "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm", false},
		{"päss wörd", "$2b$04$ABCDEFGHIJKLMNOPQRSTUOCg824z6QhlqYL0vMF.tmdcMONS0L4k6", true},
		{"", "$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq", true},
		{strings.Repeat("x", 71), long, false},
		{strings.Repeat("x", 72), long, true},
		{strings.Repeat("x", 80), long, true},
		{"a\x00b", "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm", false},
	} {
		for range 2 { // the second answer comes from memory
			if got, err := p.match(t.Context(), c.hash, c.password); err != nil || got != c.want {
				t.Errorf("%q: %v, %v, want %v", c.password, got, err, c.want)
			}
		}
	}
	if _, err := p.match(t.Context(), "garbage", "password"); err == nil {
		t.Error("a hash that is none matched without an error")
	}
}

func TestHashingIsBounded(t *testing.T) {
	p, err := newPasswords(clock.NewFake(time.Unix(1700000000, 0)))
	if err != nil {
		t.Fatal(err)
	}
	const hash = "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm"
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := p.match(gone, hash, "password"); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v beyond the bound, want the end of its context", ok, err)
	}
	<-p.slots
	if ok, err := p.match(t.Context(), hash, "password"); !ok || err != nil {
		t.Errorf("%v, %v with a free slot", ok, err)
	}
	p.slots <- struct{}{}
	if ok, err := p.match(gone, hash, "password"); !ok || err != nil {
		t.Errorf("%v, %v: what is remembered needs no slot", ok, err)
	}
}

func TestMemoryIsShortAndBounded(t *testing.T) {
	c := clock.NewFake(time.Unix(1700000000, 0))
	p, err := newPasswords(c)
	if err != nil {
		t.Fatal(err)
	}
	var id [32]byte
	p.remember(id)
	c.Advance(rememberFor - time.Second)
	if !p.remembered(id) {
		t.Error("forgotten too early")
	}
	c.Advance(time.Second)
	if p.remembered(id) {
		t.Error("remembered too long")
	}
	for i := range 3 * rememberMost {
		id[0], id[1] = byte(i), byte(i>>8)
		p.remember(id)
	}
	if len(p.known) > rememberMost {
		t.Errorf("%d passwords in memory", len(p.known))
	}
}

func TestScopes(t *testing.T) {
	for text, want := range map[string]Scopes{
		"":                                {},
		"repo:read repo:admin":            {Repository: Admin},
		"repo:read,repo:write":            {Repository: Write},
		"repo:read bogus":                 {},
		"super:user":                      {Superuser: true},
		"repo:create org:admin user:read": {Create: true, Admin: true},
	} {
		if got := ParseScopes(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestLockoutGrows(t *testing.T) {
	last := time.Unix(1700000000, 0)
	for n, want := range map[int64]time.Duration{0: 0, 1: 500 * time.Millisecond, 2: 1500 * time.Millisecond, 12: 2047500 * time.Millisecond, 1000: 30 * 24 * time.Hour} {
		if got := lockout(n, last).Sub(last); got != want {
			t.Errorf("after %d: %v, want %v", n, got, want)
		}
	}
}
