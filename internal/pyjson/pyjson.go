// Package pyjson writes JSON texts byte for byte as the legacy (Python) server writes them, where bytes are contract:
// error bodies, token claims, JSON columns.
package pyjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Compact renders v the way the legacy server's jsonify does: keys sorted (for maps; struct fields keep
// their order), no spaces, everything beyond ASCII escaped, nothing HTML-escaped, no final newline.
func Compact(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode JSON answer: %w", err)
	}
	return asciiOnly(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// asciiOnly replaces every rune beyond ASCII by its \u escapes. In JSON text such runes occur only inside strings.
func asciiOnly(text []byte) []byte {
	plain := true
	for _, c := range text {
		if c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/2)
	for _, r := range string(text) {
		switch {
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// Spaced renders v the way Python's json.dumps does by default: like Compact, but with ", " and ": ".
func Spaced(v any) ([]byte, error) {
	compact, err := Compact(v)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(compact)+len(compact)/8)
	inString, escaped := false, false
	for _, c := range compact {
		out = append(out, c)
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == ':'):
			out = append(out, ' ')
		}
	}
	return out, nil
}
