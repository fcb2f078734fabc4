// Package jsondoc reads JSON the way the legacy server does: members keep their order, the last of
// two equal keys wins, and a refusal names the place in the words that clients already parse.
//
// encoding/json cannot be used for manifests that are pushed: it loses the order of members, which
// is the order of label rows, and words its errors differently.
package jsondoc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may nest. No manifest comes near it.
const maxDepth = 200

// Number is a JSON number as written.
type Number string

// Int64 is n as an integer; ok is false when n has a fraction, an exponent or does not fit.
func (n Number) Int64() (v int64, ok bool) {
	v, err := strconv.ParseInt(string(n), 10, 64)
	return v, err == nil
}

// Float64 is n as a floating-point number.
func (n Number) Float64() float64 {
	f, _ := strconv.ParseFloat(string(n), 64)
	return f
}

// Object is a JSON object whose members keep the order of their first appearance.
type Object struct {
	keys   []string
	values map[string]any
}

// Get is the value under key; ok is false when there is none.
func (o *Object) Get(key string) (value any, ok bool) {
	value, ok = o.values[key]
	return value, ok
}

// Keys are the members' names in order. The caller must not change the slice.
func (o *Object) Keys() []string { return o.keys }

func (o *Object) set(key string, value any) {
	if _, exists := o.values[key]; !exists {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// SyntaxError is text that is not JSON.
type SyntaxError struct {
	Reason       string
	Line, Column int // from 1
	Char         int // from 0, in characters
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s: line %d column %d (char %d)", e.Reason, e.Line, e.Column, e.Char)
}

// Parse reads one JSON value: nil, bool, string, Number, []any or *Object.
// The error, when there is one, is a *SyntaxError. text must be valid UTF-8.
func Parse(text string) (any, error) {
	p := parser{text: text}
	if strings.HasPrefix(text, "\ufeff") {
		return nil, p.fail("Unexpected UTF-8 BOM (decode using utf-8-sig)", 0)
	}
	p.skipSpace()
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.skipSpace()
	if p.at < len(p.text) {
		return nil, p.fail("Extra data", p.at)
	}
	return value, nil
}

type parser struct {
	text string
	at   int // in bytes
}

func (p *parser) fail(reason string, at int) *SyntaxError {
	before := p.text[:at]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return &SyntaxError{Reason: reason, Line: line, Column: column, Char: utf8.RuneCountInString(before)}
}

func (p *parser) skipSpace() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, p.fail("Nested too deeply", p.at)
	}
	switch c := p.peek(); {
	case c == '"':
		return p.string()
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '-' || c >= '0' && c <= '9':
		if n, ok := p.number(); ok {
			return n, nil
		}
	}
	for _, literal := range []struct {
		text  string
		value any
	}{{"null", nil}, {"true", true}, {"false", false}, {"NaN", Number("nan")}, {"Infinity", Number("inf")}, {"-Infinity", Number("-inf")}} {
		if strings.HasPrefix(p.text[p.at:], literal.text) {
			p.at += len(literal.text)
			return literal.value, nil
		}
	}
	return nil, p.fail("Expecting value", p.at)
}

func (p *parser) object(depth int) (any, error) {
	o := &Object{values: map[string]any{}}
	p.at++
	p.skipSpace()
	if p.peek() == '}' {
		p.at++
		return o, nil
	}
	for {
		if p.peek() != '"' {
			return nil, p.fail("Expecting property name enclosed in double quotes", p.at)
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		p.skipSpace()
		if p.peek() != ':' {
			return nil, p.fail("Expecting ':' delimiter", p.at)
		}
		p.at++
		p.skipSpace()
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.set(key, value)
		p.skipSpace()
		switch p.peek() {
		case '}':
			p.at++
			return o, nil
		case ',':
			p.at++
			p.skipSpace()
		default:
			return nil, p.fail("Expecting ',' delimiter", p.at)
		}
	}
}

func (p *parser) array(depth int) (any, error) {
	list := []any{}
	p.at++
	p.skipSpace()
	if p.peek() == ']' {
		p.at++
		return list, nil
	}
	for {
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		p.skipSpace()
		switch p.peek() {
		case ']':
			p.at++
			return list, nil
		case ',':
			p.at++
			p.skipSpace()
		default:
			return nil, p.fail("Expecting ',' delimiter", p.at)
		}
	}
}

func (p *parser) number() (Number, bool) {
	digits := func(i int) int {
		for i < len(p.text) && p.text[i] >= '0' && p.text[i] <= '9' {
			i++
		}
		return i
	}
	start, i := p.at, p.at
	if p.text[i] == '-' {
		i++
	}
	switch {
	case i < len(p.text) && p.text[i] == '0':
		i++
	case digits(i) > i:
		i = digits(i)
	default:
		return "", false
	}
	if i < len(p.text) && p.text[i] == '.' && digits(i+1) > i+1 {
		i = digits(i + 1)
	}
	if i < len(p.text) && (p.text[i] == 'e' || p.text[i] == 'E') {
		j := i + 1
		if j < len(p.text) && (p.text[j] == '+' || p.text[j] == '-') {
			j++
		}
		if digits(j) > j {
			i = digits(j)
		}
	}
	p.at = i
	return Number(p.text[start:i]), true
}

func (p *parser) string() (string, error) {
	start := p.at
	p.at++
	if end := strings.IndexAny(p.text[p.at:], "\"\\\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"); end >= 0 && p.text[p.at+end] == '"' {
		s := p.text[p.at : p.at+end]
		p.at += end + 1
		return s, nil
	}
	var b strings.Builder
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return b.String(), nil
		case c < 0x20:
			return "", p.fail("Invalid control character at", p.at)
		case c == '\\':
			if err := p.escape(&b, start); err != nil {
				return "", err
			}
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return "", p.fail("Unterminated string starting at", start)
}

const simpleEscapes = "\"\\/bfnrt"
const simpleMeanings = "\"\\/\b\f\n\r\t"

func (p *parser) escape(b *strings.Builder, start int) error {
	backslash := p.at
	p.at++
	if p.at >= len(p.text) {
		return p.fail("Unterminated string starting at", start)
	}
	if i := strings.IndexByte(simpleEscapes, p.text[p.at]); i >= 0 {
		b.WriteByte(simpleMeanings[i])
		p.at++
		return nil
	}
	if p.text[p.at] != 'u' {
		return p.fail(`Invalid \escape`, backslash)
	}
	high, ok := p.hex4(p.at + 1)
	if !ok {
		return p.fail(`Invalid \uXXXX escape`, p.at)
	}
	p.at += 5
	if high >= 0xd800 && high < 0xdc00 && strings.HasPrefix(p.text[p.at:], `\u`) {
		if low, ok := p.hex4(p.at + 2); ok && low >= 0xdc00 && low < 0xe000 {
			p.at += 6
			high = 0x10000 + (high-0xd800)<<10 + (low - 0xdc00)
		}
	}
	b.WriteRune(high) // a lone surrogate, which no text column can hold, becomes U+FFFD
	return nil
}

func (p *parser) hex4(at int) (rune, bool) {
	if at+4 > len(p.text) {
		return 0, false
	}
	v, err := strconv.ParseUint(p.text[at:at+4], 16, 32)
	return rune(v), err == nil
}

// Repr words a value the way the legacy server's messages do: None, True, 'text', ['a', 1].
func Repr(value any) string {
	var b strings.Builder
	repr(&b, value)
	return b.String()
}

func repr(b *strings.Builder, value any) {
	switch v := value.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case Number:
		b.WriteString(reprNumber(v))
	case string:
		reprString(b, v)
	case []string:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			reprString(b, item)
		}
		b.WriteByte(']')
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			repr(b, item)
		}
		b.WriteByte(']')
	case *Object:
		b.WriteByte('{')
		for i, key := range v.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			reprString(b, key)
			b.WriteString(": ")
			repr(b, v.values[key])
		}
		b.WriteByte('}')
	}
}

func reprNumber(n Number) string {
	if !strings.ContainsAny(string(n), ".eE") {
		if n == "-0" {
			return "0"
		}
		return string(n)
	}
	f, _ := strconv.ParseFloat(string(n), 64)
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".einf") {
		s += ".0"
	}
	return s
}

func reprString(b *strings.Builder, s string) {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte(quote)
}

// NewObject is an object of the members given as name, value, name, value, …
func NewObject(members ...any) *Object {
	o := &Object{values: make(map[string]any, len(members)/2)}
	for i := 0; i+1 < len(members); i += 2 {
		o.set(members[i].(string), members[i+1])
	}
	return o
}

// Set adds a member, or changes it in its place.
func (o *Object) Set(key string, value any) { o.set(key, value) }

// Without is o without the members of these names.
func (o *Object) Without(names ...string) *Object {
	rest := &Object{values: make(map[string]any, len(o.keys))}
	for _, key := range o.keys {
		if !slices.Contains(names, key) {
			rest.set(key, o.values[key])
		}
	}
	return rest
}

// Dump writes a value as JSON text the way the legacy server spells it: members in their order, ", " and ": "
// between them, everything beyond ASCII escaped.
func Dump(value any) string {
	var b strings.Builder
	dump(&b, value)
	return b.String()
}

func dump(b *strings.Builder, value any) {
	switch v := value.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case Number:
		b.WriteString(reprNumber(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case string:
		dumpString(b, v)
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			dump(b, item)
		}
		b.WriteByte(']')
	case *Object:
		b.WriteByte('{')
		for i, key := range v.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			dumpString(b, key)
			b.WriteString(": ")
			dump(b, v.values[key])
		}
		b.WriteByte('}')
	}
}

func dumpString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch i := strings.IndexRune(simpleMeanings, r); {
		case i >= 0 && r != '/':
			b.WriteByte('\\')
			b.WriteByte(simpleEscapes[i])
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		case r < 0x20 || r > 0x7e && r != 0x7f:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}
