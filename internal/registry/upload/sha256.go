package upload

import (
	"crypto/sha256"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
)

// Hash is a SHA-256 that can be put down in a row and taken up again, by this server or a legacy one.
//
// The text form is column blobupload.sha_state: base64 of a Python pickle of the class that the legacy
// server hashes with (contract, behaviour.md §1.6). Its last blocks are kept too, because that class never
// clears its block buffer: the bytes behind the pending ones are those of the block before.
type Hash struct {
	sum  hash.Hash
	n    uint64
	last [sha256.BlockSize]byte // byte i is the last one hashed at a position congruent to i
}

// NewHash returns the hash of nothing.
func NewHash() *Hash { return &Hash{sum: sha256.New()} }

// Write adds to the hash; it never fails.
func (h *Hash) Write(p []byte) (int, error) {
	h.sum.Write(p)
	tail := p[max(0, len(p)-len(h.last)):]
	at := h.n + uint64(len(p)-len(tail)) //nolint:gosec // a tail is never longer than the whole
	for i, c := range tail {
		h.last[(at+uint64(i))%sha256.BlockSize] = c //nolint:gosec // an index is not negative
	}
	h.n += uint64(len(p))
	return len(p), nil
}

// Len is the number of bytes hashed so far.
func (h *Hash) Len() int64 { return int64(h.n) } //nolint:gosec // no body reaches 2^63 bytes

// Digest is sha256: and the lower-case hexadecimal sum of everything hashed so far.
func (h *Hash) Digest() string { return "sha256:" + hex.EncodeToString(h.sum.Sum(nil)) }

// The pickle around the 112 bytes of state, protocol 4.
const (
	pickleHead = "\x80\x04\x95\x95\x00\x00\x00\x00\x00\x00\x00" +
		"\x8c\x0fresumablesha256\x94\x8c\x06sha256\x94\x93\x94)\x81\x94C\x70"
	pickleTail = "\x94b."
	stateSize  = 112

	// goMagic begins what crypto/sha256 marshals.
	goMagic = "sha\x03"
	goSize  = len(goMagic) + sha256.Size + sha256.BlockSize + 8
)

// MarshalText implements encoding.TextMarshaler.
func (h *Hash) MarshalText() ([]byte, error) {
	inner, err := h.sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("save SHA-256 state: %w", err)
	}
	if len(inner) != goSize || string(inner[:len(goMagic)]) != goMagic {
		return nil, errors.New("save SHA-256 state: crypto/sha256 marshals a form that is not known here")
	}
	p := make([]byte, 0, len(pickleHead)+stateSize+len(pickleTail))
	p = append(p, pickleHead...)
	p = append(p, h.last[:]...)
	p = binary.LittleEndian.AppendUint32(p, uint32(h.n%sha256.BlockSize))
	p = append(p, 0, 0, 0, 0)
	p = binary.LittleEndian.AppendUint64(p, h.n/sha256.BlockSize*sha256.BlockSize*8)
	for words := inner[len(goMagic):][:sha256.Size]; len(words) > 0; words = words[4:] {
		p = binary.LittleEndian.AppendUint32(p, binary.BigEndian.Uint32(words))
	}
	p = append(p, pickleTail...)
	return base64.StdEncoding.AppendEncode(nil, p), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. It reads nothing but the one form that MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) error {
	p, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("read SHA-256 state: %w", err)
	}
	if len(p) != len(pickleHead)+stateSize+len(pickleTail) || string(p[:len(pickleHead)]) != pickleHead || string(p[len(p)-len(pickleTail):]) != pickleTail {
		return errors.New("read SHA-256 state: not the pickle of a resumablesha256.sha256")
	}
	p = p[len(pickleHead):]
	last, used, bits, words := p[:64], binary.LittleEndian.Uint32(p[64:]), binary.LittleEndian.Uint64(p[72:]), p[80:112]
	if used >= sha256.BlockSize || bits%(sha256.BlockSize*8) != 0 {
		return fmt.Errorf("read SHA-256 state: impossible: %d bytes pending, %d bits done", used, bits)
	}
	n := bits/8 + uint64(used)
	inner := make([]byte, 0, goSize)
	inner = append(inner, goMagic...)
	for ; len(words) > 0; words = words[4:] {
		inner = binary.BigEndian.AppendUint32(inner, binary.LittleEndian.Uint32(words))
	}
	inner = append(inner, last[:used]...)
	inner = append(inner, make([]byte, sha256.BlockSize-int(used))...)
	inner = binary.BigEndian.AppendUint64(inner, n)
	sum := sha256.New()
	if err := sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(inner); err != nil {
		return fmt.Errorf("read SHA-256 state: %w", err)
	}
	h.sum, h.n, h.last = sum, n, [sha256.BlockSize]byte(last)
	return nil
}
