package ccm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/quayctl/quayctl/internal/auth/ccm"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRoundTrip covers lengths around the block size; values against another implementation are in package field.
func TestRoundTrip(t *testing.T) {
	key, nonce := unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"), unhex(t, "101112131415161718191a1b1c")
	for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 1000, 65535} {
		plain := bytes.Repeat([]byte{0xa5}, n)
		sealed, err := ccm.Seal(key, nonce, plain)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) != n+ccm.TagSize {
			t.Fatalf("%d bytes became %d", n, len(sealed))
		}
		got, err := ccm.Open(key, nonce, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes do not come back: %v", n, err)
		}
		for _, at := range []int{0, len(sealed) / 2, len(sealed) - 1} {
			changed := bytes.Clone(sealed)
			changed[at] ^= 1
			if _, err := ccm.Open(key, nonce, changed); !errors.Is(err, ccm.ErrOpen) {
				t.Fatalf("%d bytes, byte %d changed: %v", n, at, err)
			}
		}
	}
	if _, err := ccm.Seal(key, nonce, make([]byte, 65536)); err == nil {
		t.Error("65536 bytes were taken")
	}
	if _, err := ccm.Open(key, nonce, make([]byte, ccm.TagSize-1)); !errors.Is(err, ccm.ErrOpen) {
		t.Errorf("too short: %v", err)
	}
	if _, err := ccm.Seal(key, nonce[1:], nil); err == nil {
		t.Error("a short nonce was taken")
	}
	if _, err := ccm.Seal(key[1:], nonce, nil); err == nil {
		t.Error("a short key was taken")
	}
}
