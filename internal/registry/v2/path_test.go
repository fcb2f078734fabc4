package v2

import (
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	const digest = "sha256:0123456789abcdefABCDEF"
	for path, want := range map[string]parsedPath{
		"/v2/":                                {shape: ShapePing},
		"/v2/_catalog":                        {shape: ShapeCatalog},
		"/v2/a/b/tags/list":                   {shape: ShapeTags, repo: "a/b"},
		"/v2/busybox/tags/list":               {shape: ShapeTags, repo: "busybox"},
		"/v2/a/b/c/d/manifests/latest":        {shape: ShapeManifest, repo: "a/b/c/d", reference: "latest"},
		"/v2/a/b/manifests/" + digest:         {shape: ShapeManifest, repo: "a/b", reference: digest, digest: digest},
		"/v2/a/b/manifests/é":                 {shape: ShapeManifest, repo: "a/b", reference: "é"},
		"/v2/a/b/referrers/" + digest:         {shape: ShapeReferrers, repo: "a/b", reference: digest, digest: digest},
		"/v2/a/b/blobs/" + digest:             {shape: ShapeBlob, repo: "a/b", reference: digest, digest: digest},
		"/v2/a/b/blobs/x":                     {shape: ShapeBlobAny, repo: "a/b", reference: "x"},
		"/v2/a/b/blobs/uploads":               {shape: ShapeBlobAny, repo: "a/b", reference: "uploads", noSlash: true},
		"/v2/a/b/blobs/uploads/":              {shape: ShapeUploads, repo: "a/b"},
		"/v2/a/b/blobs/uploads/some-uuid":     {shape: ShapeUpload, repo: "a/b", uploadID: "some-uuid"},
		"/v2/a/manifests/b/manifests/c":       {shape: ShapeManifest, repo: "a/manifests/b", reference: "c"},
		"/v2/a/tags/list/manifests/c":         {shape: ShapeManifest, repo: "a/tags/list", reference: "c"},
		"/v2/a/blobs/uploads/blobs/" + digest: {shape: ShapeBlob, repo: "a/blobs/uploads", reference: digest, digest: digest},
	} {
		if got, ok := parsePath(path); !ok || got != want {
			t.Errorf("%s: %+v %v, want %+v", path, got, ok, want)
		}
	}
	for _, path := range []string{"", "/", "/v2", "/v1/", "/v2/nope", "/v2/auth/", "/v2/a/manifests/", "/v2/manifests/latest", "/v2/tags/list",
		"/v2/a/manifests/.a", "/v2/a/manifests/-a", "/v2/a/manifests/a b", "/v2/a/manifests/" + strings.Repeat("a", 129), "/v2/a/referrers/latest",
		"/v2/blobs/uploads/", "/v2/a/b", "/v2/_catalog/"} {
		if got, ok := parsePath(path); ok {
			t.Errorf("%s: routed as %+v", path, got)
		}
	}
}

func TestSplitName(t *testing.T) {
	for in, want := range map[string][2]string{
		"devtable/simple": {"devtable", "simple"}, "a/b/c": {"a", "b/c"}, "busybox": {"library", "busybox"}, "a/b///": {"a", "b"},
		"devtable/été": {"devtable", "ete"}, "devtable/a b": {"devtable", "a+b"}, "devtable/a+b%": {"devtable", "a%2Bb%25"},
		"straße/Ærø": {"strasse", "AEro"}, "a/日": {"a", "%3F"}, "a/x~y_z.-": {"a", "x~y_z.-"},
	} {
		if ns, repo := SplitName(in, "library"); ns != want[0] || repo != want[1] {
			t.Errorf("%s: %q %q, want %q", in, ns, repo, want)
		}
	}
	if ns, repo := SplitName("busybox", ""); ns != "" || repo != "busybox" {
		t.Errorf("without library: %q %q", ns, repo)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"/v2/a/b/blobs/uploads/x", "/v2/a/b/manifests/latest", "/v2//", "/v2/a/blobs/uploads"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := parsePath(path)
		if ok && p.shape > ShapeCatalog && p.repo == "" {
			t.Errorf("%q has a route but no repository", path)
		}
		ns, repo := SplitName(p.repo, "library")
		for _, s := range []string{ns, repo} {
			for i := range len(s) {
				if s[i] >= 0x80 {
					t.Errorf("%q gives %q, which is not ASCII", path, s)
				}
			}
		}
	})
}
