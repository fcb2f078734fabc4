package jsondoc

import (
	"strings"
	"testing"
)

func TestParseRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"":               "Expecting value: line 1 column 1 (char 0)",
		" \n x":          "Expecting value: line 2 column 2 (char 3)",
		"{":              "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
		`{"a"}`:          "Expecting ':' delimiter: line 1 column 5 (char 4)",
		`{"a":1 "b":2}`:  "Expecting ',' delimiter: line 1 column 8 (char 7)",
		`{"a":1,}`:       "Expecting property name enclosed in double quotes: line 1 column 8 (char 7)",
		`{"a":}`:         "Expecting value: line 1 column 6 (char 5)",
		"[":              "Expecting value: line 1 column 2 (char 1)",
		"[1":             "Expecting ',' delimiter: line 1 column 3 (char 2)",
		"[1,]":           "Expecting value: line 1 column 4 (char 3)",
		`["ü" 1]`:        "Expecting ',' delimiter: line 1 column 6 (char 5)",
		"{} x":           "Extra data: line 1 column 4 (char 3)",
		"01":             "Extra data: line 1 column 2 (char 1)",
		"-":              "Expecting value: line 1 column 1 (char 0)",
		`"abc`:           "Unterminated string starting at: line 1 column 1 (char 0)",
		"\"a\nb\"":       "Invalid control character at: line 1 column 3 (char 2)",
		`"\q"`:           `Invalid \escape: line 1 column 2 (char 1)`,
		`"\u12"`:         `Invalid \uXXXX escape: line 1 column 3 (char 2)`,
		"\ufeff{}":       "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)",
		`{"a": tru}`:     "Expecting value: line 1 column 7 (char 6)",
		"\x01":           "Expecting value: line 1 column 1 (char 0)",
		`["a\` + "\"":    "Unterminated string starting at: line 1 column 2 (char 1)",
		"<html></html>":  "Expecting value: line 1 column 1 (char 0)",
		`{"a": "b"`:      "Expecting ',' delimiter: line 1 column 10 (char 9)",
		`{'a': 1}`:       "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
		`{"a": 1}{"b":1`: "Extra data: line 1 column 9 (char 8)",
	} {
		_, err := Parse(text)
		if err == nil || err.Error() != want {
			t.Errorf("Parse(%q) = %v, want %s", text, err, want)
		}
	}
}

func TestParseValues(t *testing.T) {
	value, err := Parse(` {"b": [1, -2.50, true, null], "a": "x\u00fc\ud83d\ude00\n\"", "b": {"c": []}} `)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Repr(value), `{'b': {'c': []}, 'a': 'xü😀\n"'}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	o := value.(*Object)
	if got := strings.Join(o.Keys(), ","); got != "b,a" {
		t.Errorf("keys %s", got)
	}
	for text, want := range map[string]string{
		"[1, -0, 2.50, 1e2, 12345678901234567890]": "[1, 0, 2.5, 100.0, 12345678901234567890]",
		`["it's", "say \"x\" 'y'", "tab\t\\"]`:     `["it's", 'say "x" \'y\'', 'tab\t\\']`,
		"[null, false, {}]":                        "[None, False, {}]",
	} {
		value, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := Repr(value); got != want {
			t.Errorf("Repr(%s) = %s, want %s", text, got, want)
		}
	}
	if _, err := Parse(strings.Repeat("[", 10000)); err == nil || !strings.HasPrefix(err.Error(), "Nested too deeply") {
		t.Errorf("deep nesting: %v", err)
	}
	if v, ok := Number("42").Int64(); !ok || v != 42 {
		t.Error("Int64")
	}
	if _, ok := Number("1.5").Int64(); ok {
		t.Error("a fraction is no integer")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"a": [1, "x"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		value, err := Parse(text)
		if err == nil {
			Repr(value)
		}
	})
}
