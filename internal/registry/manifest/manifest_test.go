package manifest

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The golden file was produced by the legacy server's own parsers.
type vectors struct {
	Images, Lists []struct {
		Name      string
		MediaType string `json:"media_type"`
		Bytes     string
		Facts     facts
		Config    *string
	}
	Schema1 []struct {
		Name         string
		Bytes        string
		Signed       bool
		Namespace    string
		RepoName     string `json:"repo_name"`
		Tag          string
		Architecture string
		Facts        facts
	}
	Invalid []struct {
		Case      string
		MediaType string `json:"media_type"`
		Bytes     string
		Result    struct {
			Error    string
			Message  string
			Accepted bool
			Digest   string
			Layers   *int
			Validate json.RawMessage
		}
	}
}

type facts struct {
	Digest               string
	MediaType            string  `json:"media_type"`
	IsList               bool    `json:"is_manifest_list"`
	ConfigMediaType      *string `json:"config_media_type"`
	LayersCompressedSize *int64  `json:"layers_compressed_size"`
	ArtifactType         *string `json:"artifact_type"`
	Subject              []any
	BlobDigests          []string `json:"blob_digests"`
	LocalBlobDigests     []string `json:"local_blob_digests"`
	Labels               json.RawMessage
	AMD64                *string  `json:"amd64_linux_manifest_digest"`
	Children             []string `json:"child_manifest_digests"`
}

func load(t *testing.T) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/manifests.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func pointer[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func checkFacts(t *testing.T, m *Manifest, config []byte, want facts) {
	t.Helper()
	got := facts{Digest: m.Digest, MediaType: m.MediaType, IsList: m.IsList(), ArtifactType: pointer(m.ArtifactType),
		LocalBlobDigests: m.LocalBlobs(), Labels: json.RawMessage("null")}
	got.BlobDigests = []string{}
	for _, layer := range m.Layers {
		got.BlobDigests = append(got.BlobDigests, layer.Digest)
	}
	if m.Config != nil {
		got.ConfigMediaType = &m.Config.MediaType
		got.BlobDigests = append(got.BlobDigests, m.Config.Digest)
	}
	if size, ok := m.LayersCompressedSize(); ok {
		got.LayersCompressedSize = &size
	}
	if m.Subject != nil {
		got.Subject = []any{m.Subject.MediaType, float64(m.Subject.Size), m.Subject.Digest}
	}
	if m.IsList() {
		child, _ := m.LinuxAMD64()
		got.AMD64 = pointer(child.Digest)
		for _, child := range m.Children {
			got.Children = append(got.Children, child.Digest)
		}
	} else {
		labels, err := m.Labels(config)
		if err != nil {
			t.Fatal(err)
		}
		got.Labels = orderedJSON(labels)
	}
	// The legacy server keeps the blobs of an image as an ordered list and those of some formats as a set.
	if diff := cmp.Diff(want, got, cmp.Transformer("sorted", func(s []string) []string { s = slices.Clone(s); slices.Sort(s); return s }),
		cmp.Transformer("compact", func(r json.RawMessage) string {
			return strings.NewReplacer(": ", ":", ", ", ",").Replace(string(r))
		})); diff != "" {
		t.Errorf("facts differ (-legacy +here):\n%s", diff)
	}
}

// orderedJSON keeps the order of labels, which is the order of their rows.
func orderedJSON(labels []Label) json.RawMessage {
	var members []string
	for _, label := range labels {
		key, _ := json.Marshal(label.Key)
		value, _ := json.Marshal(label.Value)
		members = append(members, string(key)+":"+string(value))
	}
	return json.RawMessage("{" + strings.Join(members, ",") + "}")
}

func TestFacts(t *testing.T) {
	v := load(t)
	for _, c := range slices.Concat(v.Images, v.Lists) {
		t.Run(c.Name, func(t *testing.T) {
			m, err := Parse(c.MediaType, []byte(c.Bytes))
			if err != nil {
				t.Fatal(err)
			}
			var config []byte
			if c.Config != nil {
				config = []byte(*c.Config)
			}
			checkFacts(t, m, config, c.Facts)
		})
	}
}

func TestSchema1Facts(t *testing.T) {
	for _, c := range load(t).Schema1 {
		t.Run(c.Name, func(t *testing.T) {
			for _, mediaType := range []string{DockerSchema1, DockerSchema1Signed} {
				m, err := Parse(mediaType, []byte(c.Bytes))
				if err != nil {
					t.Fatal(err)
				}
				checkFacts(t, m, nil, c.Facts)
				s := m.Schema1
				if s.Namespace != c.Namespace || s.Repository != c.RepoName || s.Tag != c.Tag || s.Architecture != c.Architecture {
					t.Errorf("got %+v", s)
				}
				if (m.MediaType == DockerSchema1Signed) != c.Signed {
					t.Errorf("signed: %s", m.MediaType)
				}
				if err := s.CheckParents(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	v := load(t)
	for _, c := range v.Invalid {
		t.Run(c.Case, func(t *testing.T) {
			if c.Case == "schema1: tampered tag" { // the recording cuts this document short
				c.Bytes = strings.Replace(v.Schema1[0].Bytes, `"tag": "latest"`, `"tag": "other"`, 1)
			}
			m, err := Parse(c.MediaType, []byte(c.Bytes))
			want := c.Result
			if !want.Accepted {
				// The legacy server appends a report of its JSON-schema library, whose text is not part of the contract.
				message, withReport := strings.CutSuffix(want.Message, " [+ JSON-schema report]")
				if err == nil {
					t.Fatalf("accepted, want refusal %q", message)
				}
				got, report, reported := strings.Cut(err.Error(), "\n\n")
				if got != message || reported != withReport || reported && !strings.HasPrefix(report, "Failed validating '") {
					t.Fatalf("got %v, want refusal %q", err, want.Message)
				}
				return
			}
			if err != nil {
				t.Fatalf("legacy accepts it, here: %v", err)
			}
			if m.Digest != want.Digest {
				t.Errorf("digest %s, want %s", m.Digest, want.Digest)
			}
			if want.Layers != nil && len(m.Layers) != *want.Layers {
				t.Errorf("%d layers, want %d", len(m.Layers), *want.Layers)
			}
			if m.Schema1 != nil {
				err := m.Schema1.CheckParents()
				var wanted struct{ Message string }
				if json.Unmarshal(want.Validate, &wanted) == nil && wanted.Message != "" {
					if err == nil || err.Error() != wanted.Message {
						t.Errorf("parents: %v, want %s", err, wanted.Message)
					}
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What the legacy server answers with a 500 is refused here as the client's fault.
func TestRefusedInsteadOfFailing(t *testing.T) {
	for name, text := range map[string]string{
		"invalid UTF-8":    "{\"schemaVersion\": \xff}",
		"null character":   "{\"schemaVersion\": \x00}",
		"fraction as size": `{"schemaVersion":2,"config":{"mediaType":"a/b","size":1.5,"digest":"sha256:aa"},"layers":[]}`,
		"no digest":        `{"schemaVersion":2,"config":{"mediaType":"a/b","size":1,"digest":"sha256:aa"},"layers":[{"mediaType":"a/b","size":1,"digest":"x"}]}`,
	} {
		if _, err := Parse(OCIManifest, []byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	m, err := Parse(OCIManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","size":1,"digest":"sha256:aa"},"layers":[],"annotations":{"a":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Labels(nil); err == nil {
		t.Error("a label that is no string is accepted")
	}
}

func TestRefusalSaysWhere(t *testing.T) {
	_, err := Parse(OCIManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","size":1,"digest":"sha256:aa"},`+
		`"layers":[{"mediaType":"a/b","size":1,"digest":"sha256:aa"},{"mediaType":"foo","size":1,"digest":"sha256:aa"}]}`))
	want := `manifest data does not match schema: 'foo' does not match '\\w+/[-.\\w]+(?:\\+[-.\\w]+)?'

Failed validating 'pattern' in schema['properties']['layers']['items']['properties']['mediaType']

On instance['layers'][1]['mediaType']`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestConfigIsChecked(t *testing.T) {
	const document = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` +
		`"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":8,"digest":"sha256:aa"},"layers":[]}`
	m, err := Parse(DockerManifest, []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		"not json": "malformed config data: Expecting value: line 1 column 1 (char 0)",
		"123456":   "Size of config does not match that retrieved: 6 vs 8",
		"{      }": "config data does not match schema: 'history' is a required property",
	} {
		if _, err := m.Labels([]byte(config)); err == nil || strings.SplitN(err.Error(), "\n", 2)[0] != want {
			t.Errorf("config %q: %v, want %s", config, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(OCIManifest, `{"schemaVersion":2,"config":{"mediaType":"a/b","size":1,"digest":"sha256:aa"},"layers":[]}`)
	f.Add(DockerSchema1Signed, `{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[],"signatures":[{"protected":"e30","signature":"eA"}]}`)
	f.Add(OCIIndex, `{"schemaVersion":2,"manifests":[{"mediaType":"a/b","size":1,"digest":"x","platform":{"os":"linux","architecture":"amd64"}}]}`)
	f.Fuzz(func(t *testing.T, mediaType, text string) {
		if m, err := Parse(mediaType, []byte(text)); err == nil {
			_, _ = m.Labels(nil)
			m.LinuxAMD64()
		}
	})
}
