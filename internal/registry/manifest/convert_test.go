package manifest

import (
	"encoding/json"
	"os"
	"testing"
)

func TestAsSchema1(t *testing.T) {
	text, err := os.ReadFile("testdata/manifests.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Conversions []struct {
			Manifest string
			Schema1  *struct{ Bytes, Digest string } `json:"as_schema1"`
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	want := map[string]*string{}
	for _, c := range golden.Conversions {
		want[c.Manifest] = nil
		if c.Schema1 != nil {
			want[c.Manifest] = &c.Schema1.Digest
		}
	}
	for _, c := range load(t).Images {
		t.Run(c.Name, func(t *testing.T) {
			m, err := Parse(c.MediaType, []byte(c.Bytes))
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			var ok bool
			if c.Config != nil {
				got, ok = m.AsSchema1([]byte(*c.Config), "devtable/simple", "latest")
			}
			switch digest := want[c.Name]; {
			case digest == nil && ok:
				t.Errorf("converted to %s, want no conversion", got)
			case digest != nil && (!ok || Digest(got) != *digest):
				t.Errorf("digest %s, want %s:\n%s", Digest(got), *digest, got)
			}
		})
	}
}

func TestHistoryThatDoesNotFit(t *testing.T) {
	m, err := Parse(OCIManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":1,"digest":"sha256:aa"},`+
		`"layers":[{"mediaType":"a/b","size":1,"digest":"sha256:aa"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{`{}`, `{"history":[]}`, `{"history":[{},{}]}`, `{"history":[{"empty_layer":true}]}`, `{"history":[1]}`, `[]`, `x`} {
		if got, ok := m.AsSchema1([]byte(config), "a/b", "t"); ok {
			t.Errorf("%s: converted to %s", config, got)
		}
	}
}
