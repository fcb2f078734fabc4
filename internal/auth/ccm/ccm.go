// Package ccm is AES in CCM mode (RFC 3610) with the one set of parameters that the legacy server's encrypted fields
// have: a nonce of 13 bytes, a tag of 16 bytes, no associated data.
//
// CCM is not in the standard library and this implementation is outside its FIPS module: nothing but the reader and
// writer of those fields may import it. The block cipher is crypto/aes.
package ccm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	NonceSize = 13
	TagSize   = 16

	lengthSize = 15 - NonceSize // of the length field and the counter
	maxText    = 1<<(8*lengthSize) - 1
)

// ErrOpen says that a ciphertext was not made with this key, or was changed.
var ErrOpen = errors.New("ciphertext does not fit the key")

// Seal encrypts plaintext (at most 65535 bytes) and appends the tag. A nonce must never be used twice with one key.
func Seal(key, nonce, plaintext []byte) ([]byte, error) {
	block, err := prepare(key, nonce)
	if err != nil {
		return nil, err
	}
	if len(plaintext) > maxText {
		return nil, fmt.Errorf("seal field: %d bytes are more than CCM takes with this nonce (%d)", len(plaintext), maxText)
	}
	out := make([]byte, len(plaintext)+TagSize)
	crypt(block, nonce, out[:len(plaintext)], plaintext)
	copy(out[len(plaintext):], tag(block, nonce, plaintext))
	return out, nil
}

// Open decrypts what Seal made, or gives ErrOpen.
func Open(key, nonce, sealed []byte) ([]byte, error) {
	block, err := prepare(key, nonce)
	if err != nil {
		return nil, err
	}
	n := len(sealed) - TagSize
	if n < 0 || n > maxText {
		return nil, ErrOpen
	}
	plaintext := make([]byte, n)
	crypt(block, nonce, plaintext, sealed[:n])
	if subtle.ConstantTimeCompare(tag(block, nonce, plaintext), sealed[n:]) != 1 {
		return nil, ErrOpen
	}
	return plaintext, nil
}

func prepare(key, nonce []byte) (cipher.Block, error) {
	if len(nonce) != NonceSize {
		return nil, fmt.Errorf("CCM nonce has %d bytes, it needs %d", len(nonce), NonceSize)
	}
	return aes.NewCipher(key)
}

// crypt is counter mode from block 1 on; block 0 is for the tag.
func crypt(block cipher.Block, nonce, dst, src []byte) {
	cipher.NewCTR(block, counter(nonce, 1)).XORKeyStream(dst, src)
}

func counter(nonce []byte, n uint16) []byte {
	b := make([]byte, aes.BlockSize)
	b[0] = lengthSize - 1
	copy(b[1:], nonce)
	binary.BigEndian.PutUint16(b[aes.BlockSize-lengthSize:], n)
	return b
}

// tag is the CBC-MAC of length, nonce and plaintext, encrypted with counter block 0.
func tag(block cipher.Block, nonce, plaintext []byte) []byte {
	mac := make([]byte, aes.BlockSize)
	mac[0] = (TagSize-2)/2<<3 | (lengthSize - 1)
	copy(mac[1:], nonce)
	binary.BigEndian.PutUint16(mac[aes.BlockSize-lengthSize:], uint16(len(plaintext))) //nolint:gosec // bounded by maxText
	block.Encrypt(mac, mac)
	for len(plaintext) > 0 {
		n := subtle.XORBytes(mac, mac, plaintext)
		plaintext = plaintext[n:]
		block.Encrypt(mac, mac)
	}
	key := counter(nonce, 0)
	block.Encrypt(key, key)
	subtle.XORBytes(mac, mac, key)
	return mac
}
