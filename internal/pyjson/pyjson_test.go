package pyjson_test

import (
	"testing"

	"github.com/quayctl/quayctl/internal/pyjson"
)

func TestForms(t *testing.T) {
	v := map[string]any{"b": []any{1, "é<&>\u2028😀"}, "a": map[string]any{"x": `quote " comma , colon :`}}
	compact, err := pyjson.Compact(v)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":{"x":"quote \" comma , colon :"},"b":[1,"\u00e9<&>\u2028\ud83d\ude00"]}`; string(compact) != want {
		t.Errorf("compact:\n got %s\nwant %s", compact, want)
	}
	spaced, err := pyjson.Spaced(v)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a": {"x": "quote \" comma , colon :"}, "b": [1, "\u00e9<&>\u2028\ud83d\ude00"]}`; string(spaced) != want {
		t.Errorf("spaced:\n got %s\nwant %s", spaced, want)
	}
}
