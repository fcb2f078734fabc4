// Package field reads and writes the encrypted forms that the legacy server keeps in database columns and hands to
// users: the "v0$$" fields under cfg DATABASE_SECRET_KEY, and the encrypted passwords under cfg SECRET_KEY.
package field

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/google/uuid"

	"github.com/quayctl/quayctl/internal/auth/ccm"
)

// KeySize of the converted keys in bytes.
const KeySize = 32

const prefix = "v0$$"

// Key converts a configured secret into an AES key by the legacy rules: the bytes of a decimal number, else those of a
// UUID, else one for each character; repeated and cut to 32. integer tells that config.yaml holds a number without
// quotes, for which only the first rule applies.
func Key(secret string, integer bool) ([]byte, error) {
	bytes, ok := fromInteger(secret)
	if !ok && integer {
		return nil, errors.New("convert secret key: the number has an odd count of hexadecimal digits; put it into quotes")
	}
	if !ok {
		if id, err := uuid.Parse(secret); err == nil {
			bytes, ok = id[:], true
		}
	}
	if !ok {
		for _, r := range secret {
			if r > 255 {
				return nil, errors.New("convert secret key: it has characters beyond Latin-1; use letters and digits")
			}
			bytes = append(bytes, byte(r))
		}
	}
	if len(bytes) == 0 {
		return nil, errors.New("convert secret key: it is empty; set it in config.yaml")
	}
	key := make([]byte, 0, KeySize+len(bytes))
	for len(key) < KeySize {
		key = append(key, bytes...)
	}
	return key[:KeySize], nil
}

// fromInteger is Python's int() and hex formatting with at least two digits; an odd count of digits does not decode.
func fromInteger(secret string) ([]byte, bool) {
	digits := strings.TrimSpace(secret)
	n, ok := new(big.Int).SetString(strings.TrimPrefix(digits, "+"), 10)
	if !ok || n.Sign() < 0 || digits == "" {
		return nil, false
	}
	text := n.Text(16)
	if len(text) < 2 {
		text = "0" + text
	}
	bytes, err := hex.DecodeString(text)
	if err != nil {
		return nil, false
	}
	return bytes, true
}

// Decrypt reads a column's value.
func Decrypt(key []byte, stored string) (string, error) {
	text, ok := strings.CutPrefix(stored, prefix)
	if !ok {
		return "", errors.New("decrypt field: not in the form v0$$…")
	}
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(sealed) < ccm.NonceSize {
		return "", errors.New("decrypt field: not base64, or too short")
	}
	plain, err := ccm.Open(key, sealed[:ccm.NonceSize], sealed[ccm.NonceSize:])
	if err != nil {
		return "", fmt.Errorf("decrypt field: %w; was DATABASE_SECRET_KEY changed?", err)
	}
	return string(plain), nil
}

// Encrypt makes a column's value.
func Encrypt(key []byte, plain string) (string, error) {
	nonce := make([]byte, ccm.NonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("encrypt field: %w", err)
	}
	return seal(key, nonce, plain)
}

func seal(key, nonce []byte, plain string) (string, error) {
	sealed, err := ccm.Seal(key, nonce, []byte(plain))
	if err != nil {
		return "", fmt.Errorf("encrypt field: %w", err)
	}
	return prefix + base64.StdEncoding.EncodeToString(append(nonce[:len(nonce):len(nonce)], sealed...)), nil
}

// DecryptPassword reads an encrypted password (the "CLI password"); ok is false when text is none made with this key.
func DecryptPassword(key []byte, text string) (password string, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) < 2*aes.BlockSize || len(raw)%aes.BlockSize != 0 {
		return "", false
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", false
	}
	iv, body := raw[:aes.BlockSize], raw[aes.BlockSize:]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(body, body)
	pad := int(body[len(body)-1])
	if pad < 1 || pad > aes.BlockSize {
		return "", false
	}
	for _, c := range body[len(body)-pad:] {
		if int(c) != pad {
			return "", false
		}
	}
	var content struct {
		Password *string `json:"password"`
	}
	if err := json.Unmarshal(body[:len(body)-pad], &content); err != nil || content.Password == nil {
		return "", false
	}
	return *content.Password, true
}
