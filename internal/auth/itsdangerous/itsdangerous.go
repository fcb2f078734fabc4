// Package itsdangerous reads and writes the signed texts of the legacy server's web framework: the session cookie and
// the grants of /v1 (contract, behaviour.md §4.6). Either server reads what the other has signed.
//
// A text is payload.timestamp.signature, each part in base64url without padding. The payload is JSON, in which a member that
// begins with a space names the type of a value JSON lacks; a payload that zlib makes shorter is compressed and begins
// with a dot of its own. The signature is HMAC-SHA1 under a key that is HMAC-SHA1 of a salt under SECRET_KEY.
//
// SHA-1 is given by the format and lives in this package alone. HMAC does not need a hash without collisions, so nobody can
// forge a text for it. With GODEBUG=fips140=on it works, as a service outside the approved ones; with fips140=only
// crypto/hmac refuses SHA-1 by a panic, so /v1 cannot be served in that mode.
package itsdangerous

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // see the package's comment
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Why a text is refused.
var (
	// ErrSignature is a text that was not signed with this key, or is none.
	ErrSignature = errors.New("signature does not match")
	// ErrExpired is a text that was signed too long ago.
	ErrExpired = errors.New("signature has expired")
)

const (
	salt = "cookie-session"
	// maxPayload bounds what a compressed payload becomes, in bytes. A push of the largest image that fits a request's
	// headers stays far below.
	maxPayload = 8 << 20
	// skew is how far another server's clock may be ahead.
	skew = time.Minute
)

var encoding = base64.RawURLEncoding

// Serializer signs and opens texts. It is safe for concurrent use; make it with New.
type Serializer struct{ key []byte }

// New makes a Serializer; secret is SECRET_KEY as it is written in the configuration.
func New(secret string) *Serializer {
	return &Serializer{key: sum([]byte(secret), salt)}
}

func sum(key []byte, text string) []byte {
	mac := hmac.New(sha1.New, key)
	_, _ = io.WriteString(mac, text)
	return mac.Sum(nil)
}

// Sign makes a text of payload, which is JSON. The timestamp has whole seconds.
func (s *Serializer) Sign(payload []byte, at time.Time) (string, error) {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(payload); err != nil {
		return "", fmt.Errorf("compress payload: %w", err)
	}
	if err := z.Close(); err != nil {
		return "", fmt.Errorf("compress payload: %w", err)
	}
	text := encoding.EncodeToString(payload)
	if b.Len() < len(payload)-1 {
		text = "." + encoding.EncodeToString(b.Bytes())
	}
	text += "." + encoding.EncodeToString(bytes.TrimLeft(binary.BigEndian.AppendUint64(nil, uint64(at.Unix())), "\x00")) //nolint:gosec // after 1970
	return text + "." + encoding.EncodeToString(sum(s.key, text)), nil
}

// Open returns the payload of a text that was signed with this key no longer than maxAge before now.
func (s *Serializer) Open(text string, maxAge time.Duration, now time.Time) ([]byte, error) {
	value, signature, ok := cutLast(text)
	if !ok {
		return nil, ErrSignature
	}
	given, err := encoding.DecodeString(signature)
	if err != nil || !hmac.Equal(given, sum(s.key, value)) {
		return nil, ErrSignature
	}
	payload, stamp, ok := cutLast(value)
	if !ok {
		return nil, ErrSignature
	}
	at, err := encoding.DecodeString(stamp)
	if err != nil || len(at) > 8 {
		return nil, ErrSignature
	}
	seconds := binary.BigEndian.Uint64(append(make([]byte, 8-len(at)), at...))
	if seconds > 1<<40 {
		return nil, ErrSignature
	}
	if age := now.Sub(time.Unix(int64(seconds), 0)); age > maxAge || age < -skew { //nolint:gosec // bounded above
		return nil, ErrExpired
	}
	return unpack(payload)
}

func unpack(text string) ([]byte, error) {
	text, compressed := strings.CutPrefix(text, ".")
	payload, err := encoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("decode payload: %w", err)
	}
	if !compressed {
		return payload, nil
	}
	z, err := zlib.NewReader(bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("decompress payload: %w", err)
	}
	payload, err = io.ReadAll(io.LimitReader(z, maxPayload+1))
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, fmt.Errorf("decompress payload: %w", err)
	}
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("decompress payload: more than the allowed %d bytes", maxPayload)
	}
	return payload, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}
