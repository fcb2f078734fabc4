// Package pagetoken makes and reads the opaque continuation tokens of listings: Fernet over JSON, as the
// legacy server does, so that either server continues what the other began (contract: vectors/page-tokens.json).
package pagetoken

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
)

// TTL is how long a token is good for.
const TTL = 48 * time.Hour

const (
	version    = 0x80
	headerSize = 1 + 8 + aes.BlockSize // version, seconds since the epoch, initialisation vector
)

// Codec makes and reads tokens of one key. It is safe for concurrent use.
type Codec struct {
	signing    []byte
	encryption cipher.Block
	clock      clock.Clock
	random     io.Reader
}

// New takes PAGE_TOKEN_KEY: 32 bytes in URL-safe base64.
func New(key string, clk clock.Clock) (*Codec, error) {
	raw, err := base64.URLEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 {
		return nil, fmt.Errorf("PAGE_TOKEN_KEY is not 32 bytes in URL-safe base64: make one with `openssl rand -base64 32 | tr +/ -_`")
	}
	block, err := aes.NewCipher(raw[16:])
	if err != nil {
		return nil, fmt.Errorf("make cipher of PAGE_TOKEN_KEY: %w", err)
	}
	return &Codec{signing: raw[:16], encryption: block, clock: clk, random: rand.Reader}, nil
}

// Encode makes a token that holds the JSON text value, which should be spelled as the legacy server spells it.
func (c *Codec) Encode(value string) (string, error) {
	padding := aes.BlockSize - len(value)%aes.BlockSize
	message := append([]byte(value), bytes.Repeat([]byte{byte(padding)}, padding)...)
	token := make([]byte, headerSize, headerSize+len(message)+sha256.Size)
	token[0] = version
	binary.BigEndian.PutUint64(token[1:], uint64(c.clock.Now().Unix()))
	iv := token[9:headerSize]
	if _, err := io.ReadFull(c.random, iv); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	cipher.NewCBCEncrypter(c.encryption, iv).CryptBlocks(message, message)
	token = append(token, message...)
	return base64.URLEncoding.EncodeToString(c.mac(token)), nil
}

// mac returns text with its authentication code behind it.
func (c *Codec) mac(text []byte) []byte {
	h := hmac.New(sha256.New, c.signing)
	h.Write(text)
	return h.Sum(text)
}

// Decode reads the value of a token into v. It is false, and v untouched, for whatever is no token of
// this key or is older than TTL: a listing then starts at its first page.
func (c *Codec) Decode(token string, v any) bool {
	raw, err := base64.URLEncoding.DecodeString(strings.TrimSpace(token))
	if err != nil || len(raw) < headerSize+aes.BlockSize+sha256.Size || raw[0] != version {
		return false
	}
	signed := raw[:len(raw)-sha256.Size]
	if !hmac.Equal(c.mac(bytes.Clone(signed))[len(signed):], raw[len(signed):]) {
		return false
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(raw[1:])), 0)
	now := c.clock.Now()
	if now.After(made.Add(TTL)) || made.After(now.Add(time.Minute)) {
		return false
	}
	message := bytes.Clone(signed[headerSize:])
	if len(message)%aes.BlockSize != 0 {
		return false
	}
	cipher.NewCBCDecrypter(c.encryption, raw[9:headerSize]).CryptBlocks(message, message)
	padding := int(message[len(message)-1])
	if padding == 0 || padding > aes.BlockSize {
		return false
	}
	return json.Unmarshal(message[:len(message)-padding], v) == nil
}
