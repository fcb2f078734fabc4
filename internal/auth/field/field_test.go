package field

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

type vectors struct {
	KeyConversion []struct {
		Text    *string
		Integer json.Number
		KeyHex  string `json:"key_hex"`
		Error   string
	} `json:"key_conversion"`
	EncryptedField []struct {
		Key, Plain, Stored string
		NonceHex           string `json:"nonce_hex"`
	} `json:"encrypted_field"`
	DecryptErrors []struct{ Key, Stored, Case string } `json:"decrypt_errors"`
	ClientKey     []struct {
		SecretKey           string `json:"secret_key"`
		Password, Encrypted string
	} `json:"client_key"`
}

func load(t *testing.T) vectors {
	t.Helper()
	text, err := os.ReadFile("testdata/encryption.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.KeyConversion) == 0 || len(v.EncryptedField) == 0 || len(v.DecryptErrors) == 0 || len(v.ClientKey) == 0 {
		t.Fatal("vectors are incomplete")
	}
	return v
}

func key(t *testing.T, secret string) []byte {
	t.Helper()
	k, err := Key(secret, false)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKey(t *testing.T) {
	for _, c := range load(t).KeyConversion {
		text, integer := c.Integer.String(), true
		if c.Text != nil {
			text, integer = *c.Text, false
		}
		got, err := Key(text, integer)
		if c.Error != "" {
			if err == nil {
				t.Errorf("%q (integer %v): no error", text, integer)
			}
			continue
		}
		if err != nil || hex.EncodeToString(got) != c.KeyHex {
			t.Errorf("%q (integer %v): got %x, %v, want %s", text, integer, got, err, c.KeyHex)
		}
	}
}

func TestField(t *testing.T) {
	v := load(t)
	for _, c := range v.EncryptedField {
		k := key(t, c.Key)
		if got, err := Decrypt(k, c.Stored); err != nil || got != c.Plain {
			t.Errorf("decrypt %s: got %q, %v, want %q", c.Stored, got, err, c.Plain)
		}
		nonce, err := hex.DecodeString(c.NonceHex)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := seal(k, nonce, c.Plain); err != nil || got != c.Stored {
			t.Errorf("encrypt %q: got %s, %v, want %s", c.Plain, got, err, c.Stored)
		}
		fresh, err := Encrypt(k, c.Plain)
		if err != nil || fresh == c.Stored {
			t.Errorf("encrypt %q: %s, %v: a nonce was used again", c.Plain, fresh, err)
		}
		if back, err := Decrypt(k, fresh); err != nil || back != c.Plain {
			t.Errorf("round trip of %q: %q, %v", c.Plain, back, err)
		}
	}
	for _, c := range v.DecryptErrors {
		if got, err := Decrypt(key(t, c.Key), c.Stored); err == nil {
			t.Errorf("%s: got %q, want an error", c.Case, got)
		}
	}
}

func TestPassword(t *testing.T) {
	for _, c := range load(t).ClientKey {
		k := key(t, c.SecretKey)
		if got, ok := DecryptPassword(k, c.Encrypted); !ok || got != c.Password {
			t.Errorf("%s: got %q, %v, want %q", c.Encrypted, got, ok, c.Password)
		}
		for _, bad := range []string{"", "password", c.Password, c.Encrypted[:len(c.Encrypted)-4], c.Encrypted + "AAAA"} {
			if got, ok := DecryptPassword(k, bad); ok {
				t.Errorf("%q: read as password %q", bad, got)
			}
		}
		if _, ok := DecryptPassword(key(t, "another"), c.Encrypted); ok {
			t.Errorf("%s: read with another key", c.Encrypted)
		}
	}
}
