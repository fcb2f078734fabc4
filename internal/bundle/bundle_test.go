package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	recipes "github.com/quayctl/quayctl/bundle"
)

// fixture is a small bundle, made by the code that makes real ones, with two images and without Debian packages.
type fixture struct {
	tar     string
	program []byte
	key     *ecdsa.PrivateKey
	options CreateOptions
	recipe  *recipes.Recipe
}

var (
	fixtureOnce sync.Once
	theFixture  fixture
	errFixture  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theFixture.tar != "" {
		if err := os.RemoveAll(filepath.Dir(theFixture.tar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	fixtureOnce.Do(func() { theFixture, errFixture = makeFixture() })
	if errFixture != nil {
		t.Fatal(errFixture)
	}
	return theFixture
}

func makeFixture() (fixture, error) {
	var f fixture
	dir, err := os.MkdirTemp("", "bundle-test-")
	if err != nil {
		return f, err
	}
	f.tar = filepath.Join(dir, "bundle.tar")
	ctx := context.Background()
	program := filepath.Join(dir, "program")
	if err := goBuild(ctx, "../..", "./cmd/postgresql", "amd64", "1.2.3", "abc", "", program); err != nil {
		return f, err
	}
	if f.program, err = os.ReadFile(program); err != nil {
		return f, err
	}
	if f.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return f, err
	}
	if f.recipe, err = recipes.Load(); err != nil {
		return f, err
	}
	f.recipe.Images = f.recipe.Images[:2]
	f.options = CreateOptions{
		Version: "1.2.3", Commit: "abc", Arch: "amd64", Created: time.Unix(1700000000, 0), SignKey: f.key, Output: f.tar,
		Binaries: map[string]string{BinaryName: program, f.recipe.Images[0].Component: program, f.recipe.Images[1].Component: program},
		Profiles: fstest.MapFS{"small.yaml": {Data: []byte("name: small\n")}, "profiles.go": {Data: []byte("package x\n")}},
		CacheDir: dir,
	}
	_, err = create(ctx, f.options, f.recipe)
	return f, err
}

func (f fixture) keys() []*ecdsa.PublicKey { return []*ecdsa.PublicKey{&f.key.PublicKey} }

// entries are the members of a tar in their order.
type entries struct {
	order   []string
	headers map[string]*tar.Header
	data    map[string][]byte
}

func readTar(t *testing.T, r io.Reader) entries {
	t.Helper()
	e := entries{nil, map[string]*tar.Header{}, map[string][]byte{}}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return e
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		e.order = append(e.order, h.Name)
		e.headers[h.Name], e.data[h.Name] = h, b
	}
}

func readBundle(t *testing.T, file string) entries {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return readTar(t, f)
}

func (e entries) clone() entries {
	c := entries{slices.Clone(e.order), maps.Clone(e.headers), map[string][]byte{}}
	for n, b := range e.data {
		c.data[n] = slices.Clone(b)
	}
	return c
}

func (e entries) write(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, n := range e.order {
		h := tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644}
		if old := e.headers[n]; old != nil {
			h = *old
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.data[n]))
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(e.data[n]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (e entries) unpack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range e.order {
		file := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if h := e.headers[n]; h != nil && h.Typeflag == tar.TypeSymlink {
			if err := os.Symlink(h.Linkname, file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, e.data[n], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mustRefuse opens a bundle and expects this violation.
func mustRefuse(t *testing.T, path string, o OpenOptions, kind Kind, member string) {
	t.Helper()
	b, err := Open(t.Context(), path, o)
	if err == nil {
		b.Close()
		t.Fatalf("opened, expected: %s %s", member, kind)
	}
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || e.Member != member {
		t.Fatalf("got %v, expected: %s %s", err, member, kind)
	}
	if e.Bundle != path || !strings.Contains(err.Error(), path) {
		t.Errorf("error %q does not name the bundle %s", err, path)
	}
	if e.Kind.Remedy() == "" {
		t.Errorf("no remedy for %q", err)
	}
}

func TestOpen(t *testing.T) {
	f := newFixture(t)
	all := readBundle(t, f.tar)
	if all.order[0] != ManifestName || all.order[1] != SignatureName {
		t.Errorf("the bundle begins with %v, expected manifest and signature", all.order[:2])
	}
	if h := all.headers[BinaryName]; h.Mode != 0o755 {
		t.Errorf("mode of quayctl is %o, expected 755", h.Mode)
	}
	for name, path := range map[string]string{"tar": f.tar, "directory": all.unpack(t)} {
		t.Run(name, func(t *testing.T) {
			var done, total int64
			b, err := Open(t.Context(), path, OpenOptions{Keys: f.keys(), Arch: "amd64", Progress: func(d, n int64) { done, total = d, n }})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if done == 0 || done != total {
				t.Errorf("progress ended at %d of %d", done, total)
			}
			m := b.Manifest()
			if m.Version != "1.2.3" || m.Arch != "amd64" || m.Commit != "abc" || !m.Created.Equal(f.options.Created) || m.Requires.Podman == "" || m.Database.Newest == "" {
				t.Errorf("manifest: %+v", m)
			}
			if !bytes.Equal(b.RawManifest(), all.data[ManifestName]) {
				t.Error("RawManifest is not manifest.json")
			}
			if got := b.Profiles(); !slices.Equal(got, []string{"small"}) {
				t.Errorf("profiles %v, expected small", got)
			}
			if got, err := b.ReadMember("profiles/small.yaml"); err != nil || string(got) != "name: small\n" {
				t.Errorf("profile: %q, %v", got, err)
			}
			if _, err := b.ReadMember("profiles/none.yaml"); !errors.Is(err, Missing) {
				t.Errorf("a member that is not there: %v", err)
			}
			var out bytes.Buffer
			if err := b.ExtractBinary(&out); err != nil || !bytes.Equal(out.Bytes(), f.program) {
				t.Errorf("extracted %d bytes of quayctl, %v, expected %d", out.Len(), err, len(f.program))
			}
			dir, ok := b.LayoutPath()
			if isDir := name == "directory"; ok != isDir || (ok && dir != filepath.Join(path, "oci")) {
				t.Errorf("layout path %q, %t", dir, ok)
			}
		})
	}
	t.Run("directory with other files beside the members", func(t *testing.T) {
		dir := all.unpack(t)
		if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Open(t.Context(), dir, OpenOptions{Keys: f.keys()})
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Open(ctx, f.tar, OpenOptions{Keys: f.keys(), Progress: func(int64, int64) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, expected the context's error", err)
		}
	})
}

// TestFlippedByte changes the first, the last and a random byte of each member, in the tar and unpacked.
func TestFlippedByte(t *testing.T) {
	f := newFixture(t)
	all := readBundle(t, f.tar)
	seed := mrand.Uint64()
	random := mrand.New(mrand.NewPCG(seed, 0))
	for _, name := range all.order {
		size := len(all.data[name])
		for _, at := range []int{0, size - 1, random.IntN(size)} {
			t.Run(fmt.Sprintf("%s/%d", name, at), func(t *testing.T) {
				c := all.clone()
				c.data[name][at] ^= 1 << random.IntN(8)
				kind, member := Altered, name
				if name == ManifestName || name == SignatureName {
					kind, member = BadSignature, ManifestName
				}
				mustRefuse(t, c.write(t), OpenOptions{Keys: f.keys()}, kind, member)
				mustRefuse(t, c.unpack(t), OpenOptions{Keys: f.keys()}, kind, member)
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			})
		}
	}
}

func TestRefused(t *testing.T) {
	f := newFixture(t)
	all := readBundle(t, f.tar)
	blobs := slices.DeleteFunc(slices.Clone(all.order), func(n string) bool { return !strings.Contains(n, "/blobs/") })
	without := func(name string) entries {
		c := all.clone()
		c.order = slices.DeleteFunc(c.order, func(n string) bool { return n == name })
		return c
	}
	resigned := func(t *testing.T, key *ecdsa.PrivateKey, change func(m map[string]any)) entries {
		c := all.clone()
		var m map[string]any
		if err := json.Unmarshal(c.data[ManifestName], &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		c.data[ManifestName] = b
		if c.data[SignatureName], err = sign(key, b); err != nil {
			t.Fatal(err)
		}
		return c
	}
	good := OpenOptions{Keys: f.keys()}

	for _, name := range all.order {
		kind, member := Missing, name
		switch name {
		case ManifestName:
			kind, member = NotABundle, ""
		case SignatureName:
			kind, member = Unsigned, ""
		}
		t.Run("removed "+name, func(t *testing.T) {
			c := without(name)
			mustRefuse(t, c.write(t), good, kind, member)
			mustRefuse(t, c.unpack(t), good, kind, member)
		})
		t.Run("empty "+name, func(t *testing.T) {
			c := all.clone()
			c.data[name] = nil
			kind, member := Altered, name
			if name == ManifestName || name == SignatureName {
				kind, member = BadSignature, ManifestName
			}
			mustRefuse(t, c.write(t), good, kind, member)
			mustRefuse(t, c.unpack(t), good, kind, member)
		})
	}
	for _, name := range []string{"oci/blobs/sha256/" + strings.Repeat("0", 64), "profiles/evil.yaml"} {
		t.Run("added "+name, func(t *testing.T) {
			c := all.clone()
			c.order = append(c.order, name)
			c.data[name] = []byte("x")
			mustRefuse(t, c.write(t), good, Unexpected, name)
			mustRefuse(t, c.unpack(t), good, Unexpected, name)
		})
	}
	for _, name := range []string{"install.sh", "../evil", "/etc/evil"} {
		t.Run("added to the tar "+name, func(t *testing.T) {
			c := all.clone()
			c.order = append(c.order, name)
			c.data[name] = []byte("x")
			mustRefuse(t, c.write(t), good, Unexpected, name)
		})
	}
	t.Run("swapped", func(t *testing.T) {
		c := all.clone()
		c.data[blobs[0]], c.data[blobs[1]] = c.data[blobs[1]], c.data[blobs[0]]
		mustRefuse(t, c.write(t), good, Altered, blobs[0])
		mustRefuse(t, c.unpack(t), good, Altered, blobs[0])
	})
	t.Run("twice", func(t *testing.T) {
		c := all.clone()
		c.order = append(c.order, BinaryName)
		mustRefuse(t, c.write(t), good, Unexpected, BinaryName)
	})
	t.Run("symbolic link", func(t *testing.T) {
		c := all.clone()
		c.headers[SBOMName] = &tar.Header{Typeflag: tar.TypeSymlink, Name: SBOMName, Linkname: ManifestName}
		c.data[SBOMName] = nil
		mustRefuse(t, c.write(t), good, Unexpected, SBOMName)
		mustRefuse(t, c.unpack(t), good, Unexpected, SBOMName)
	})
	t.Run("other key", func(t *testing.T) {
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := resigned(t, other, func(map[string]any) {})
		mustRefuse(t, c.write(t), good, BadSignature, ManifestName)
		mustRefuse(t, f.tar, OpenOptions{Keys: []*ecdsa.PublicKey{&other.PublicKey}}, BadSignature, ManifestName)
		b, err := Open(t.Context(), f.tar, OpenOptions{Keys: []*ecdsa.PublicKey{&other.PublicKey, &f.key.PublicKey}})
		if err != nil {
			t.Fatalf("one of two keys: %v", err)
		}
		b.Close()
	})
	t.Run("no key", func(t *testing.T) { mustRefuse(t, f.tar, OpenOptions{}, NoKey, "") })
	t.Run("signature written otherwise", func(t *testing.T) {
		c := all.clone()
		c.data[SignatureName] = append(c.data[SignatureName], '\n')
		mustRefuse(t, c.write(t), good, BadSignature, ManifestName)
	})
	t.Run("other architecture", func(t *testing.T) {
		mustRefuse(t, f.tar, OpenOptions{Keys: f.keys(), Arch: "arm64"}, WrongArch, "")
		c := resigned(t, f.key, func(m map[string]any) { m["arch"] = "arm64" })
		mustRefuse(t, c.write(t), OpenOptions{Keys: f.keys(), Arch: "arm64"}, WrongArch, blobOf(t, c, 0, "config"))
	})
	t.Run("newer schema", func(t *testing.T) {
		c := resigned(t, f.key, func(m map[string]any) { m["schema"] = SchemaVersion + 1; m["members"] = "elsewhere" })
		mustRefuse(t, c.write(t), good, UnknownSchema, ManifestName)
	})
	t.Run("other product", func(t *testing.T) {
		c := resigned(t, f.key, func(m map[string]any) { m["product"] = "other" })
		mustRefuse(t, c.write(t), good, Malformed, ManifestName)
	})
	t.Run("version that leads elsewhere", func(t *testing.T) {
		c := resigned(t, f.key, func(m map[string]any) { m["version"] = "../../../etc" })
		mustRefuse(t, c.write(t), good, Malformed, ManifestName)
	})
	t.Run("manifest is no JSON", func(t *testing.T) {
		c := all.clone()
		c.data[ManifestName] = []byte("{")
		var err error
		if c.data[SignatureName], err = sign(f.key, c.data[ManifestName]); err != nil {
			t.Fatal(err)
		}
		mustRefuse(t, c.write(t), good, Malformed, ManifestName)
	})
	for _, name := range []string{"../evil", "/etc/passwd", "install.sh", ManifestName, "oci/../quayctl", ""} {
		t.Run("signed member name "+name, func(t *testing.T) {
			c := resigned(t, f.key, func(m map[string]any) { m["members"].([]any)[0].(map[string]any)["name"] = name })
			mustRefuse(t, c.write(t), good, Malformed, ManifestName)
		})
	}
	t.Run("image that the layout lacks", func(t *testing.T) {
		c := resigned(t, f.key, func(m map[string]any) { m["images"].([]any)[0].(map[string]any)["name"] = "localhost/quay/none:1" })
		mustRefuse(t, c.write(t), good, Malformed, "oci/index.json")
	})
	t.Run("image with another ID", func(t *testing.T) {
		c := resigned(t, f.key, func(m map[string]any) {
			m["images"].([]any)[0].(map[string]any)["id"] = "sha256:" + strings.Repeat("0", 64)
		})
		mustRefuse(t, c.write(t), good, Malformed, blobOf(t, c, 0, "manifest"))
	})

	whole, err := os.ReadFile(f.tar)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(t *testing.T, b []byte) string {
		file := filepath.Join(t.TempDir(), "bundle.tar")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, keep := range []int{len(whole) - 1, len(whole) - 512, len(whole) - 1024, len(whole) - 2000, len(whole) / 2, 600, 512} {
		t.Run(fmt.Sprintf("cut after %d bytes", keep), func(t *testing.T) {
			_, err := Open(t.Context(), raw(t, whole[:keep]), good)
			if !errors.Is(err, Truncated) {
				t.Errorf("got %v, expected that it is cut short", err)
			}
		})
	}
	t.Run("data after the end", func(t *testing.T) {
		mustRefuse(t, raw(t, append(slices.Clone(whole), "more"...)), good, Unexpected, "")
	})
	t.Run("no tar", func(t *testing.T) {
		mustRefuse(t, raw(t, bytes.Repeat([]byte("x"), 4096)), good, NotABundle, "")
		mustRefuse(t, raw(t, nil), good, NotABundle, "")
	})
	t.Run("other tar", func(t *testing.T) {
		mustRefuse(t, entries{order: []string{"README"}}.write(t), good, NotABundle, "")
	})
	t.Run("empty directory", func(t *testing.T) { mustRefuse(t, t.TempDir(), good, NotABundle, "") })
	t.Run("no such file", func(t *testing.T) {
		mustRefuse(t, filepath.Join(t.TempDir(), "none.tar"), good, Unreadable, "")
	})
	t.Run("device", func(t *testing.T) { mustRefuse(t, os.DevNull, good, NotABundle, "") })
}

// blobOf gives the member name of a blob of the n-th image.
func blobOf(t *testing.T, e entries, n int, what string) string {
	t.Helper()
	var index struct {
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(e.data["oci/index.json"], &index); err != nil {
		t.Fatal(err)
	}
	name := blobName(parts(index.Manifests[n].Digest))
	if what == "manifest" {
		return name
	}
	var m struct{ Config struct{ Digest string } }
	if err := json.Unmarshal(e.data[name], &m); err != nil {
		t.Fatal(err)
	}
	return blobName(parts(m.Config.Digest))
}

// TestImageTar reads the archive back with two other implementations of the format.
func TestImageTar(t *testing.T) {
	f := newFixture(t)
	b, err := Open(t.Context(), f.tar, OpenOptions{Keys: f.keys()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, want := range b.Images() {
		r, err := b.ImageTar(want.Component)
		if err != nil {
			t.Fatal(err)
		}
		got := readTar(t, r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		dir := got.unpack(t)
		index, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest.String() != want.Digest || manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != want.Name {
			t.Errorf("index %+v, expected only %s %s", manifest.Manifests, want.Name, want.Digest)
		}
		img, err := index.Image(manifest.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkLayers(t, img)
		if id, err := img.ConfigName(); err != nil || id.String() != want.ID {
			t.Errorf("ID %s, %v, expected %s", id, err, want.ID)
		}
		file := got.write(t)
		out, err := exec.CommandContext(t.Context(), "skopeo", "inspect", "--format={{.Digest}}", "oci-archive:"+file+":"+want.Name).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want.Digest {
			t.Errorf("skopeo: %s, %v, expected %s", out, err, want.Digest)
		}
	}
	if _, err := b.ImageTar("none"); !errors.Is(err, Missing) {
		t.Errorf("an image that is not there: %v", err)
	}
}

// checkLayers compares the content of each layer with both digests that the image has of it.
func checkLayers(t *testing.T, img v1.Image) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) == 0 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for _, l := range layers {
		for _, c := range []struct {
			open func() (io.ReadCloser, error)
			want func() (v1.Hash, error)
		}{{l.Compressed, l.Digest}, {l.Uncompressed, l.DiffID}} {
			r, err := c.open()
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := v1.SHA256(r)
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			if want, err := c.want(); err != nil || got != want {
				t.Errorf("layer %s, %v, expected %s", got, err, want)
			}
		}
	}
}

// TestChangedAfterOpen holds the readers to what was verified.
func TestChangedAfterOpen(t *testing.T) {
	f := newFixture(t)
	all := readBundle(t, f.tar)
	dir := all.unpack(t)
	b, err := Open(t.Context(), dir, OpenOptions{Keys: f.keys()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	image := b.Images()[0]
	for _, name := range []string{BinaryName, blobName(parts(image.ID)), "profiles/small.yaml"} {
		all.data[name][0] ^= 1
		if err := os.WriteFile(filepath.Join(dir, name), all.data[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.ExtractBinary(io.Discard); !errors.Is(err, Altered) {
		t.Errorf("ExtractBinary: %v", err)
	}
	if _, err := b.ReadMember("profiles/small.yaml"); !errors.Is(err, Altered) {
		t.Errorf("ReadMember: %v", err)
	}
	r, err := b.ImageTar(image.Component)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, Altered) {
		t.Errorf("ImageTar: %v", err)
	}
}

func TestReproducible(t *testing.T) {
	f := newFixture(t)
	first, err := os.ReadFile(f.tar)
	if err != nil {
		t.Fatal(err)
	}
	again := f.options
	again.Output, again.CacheDir = filepath.Join(t.TempDir(), "again.tar"), t.TempDir()
	m, err := create(t.Context(), again, f.recipe)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(again.Output)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same input gave another bundle")
	}
	later := f.options
	later.Output, later.Created = filepath.Join(t.TempDir(), "later.tar"), f.options.Created.Add(time.Hour)
	n, err := create(t.Context(), later, f.recipe)
	if err != nil {
		t.Fatal(err)
	}
	if m.Images[0].Digest == n.Images[0].Digest {
		t.Error("another time of creation gave the same image")
	}
}

func TestCreateRefuses(t *testing.T) {
	f := newFixture(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(o *CreateOptions)
		want   string
	}{
		"version":      {func(o *CreateOptions) { o.Version = "latest" }, `version "latest"`},
		"architecture": {func(o *CreateOptions) { o.Arch = "s390x" }, `architecture "s390x"`},
		"no key":       {func(o *CreateOptions) { o.SignKey = nil }, "no key to sign with"},
		"no time":      {func(o *CreateOptions) { o.Created = time.Time{} }, "no time of creation"},
		"foreign":      {func(o *CreateOptions) { o.Arch = "arm64" }, "made for EM_X86_64, expected arm64"},
		"no program":   {func(o *CreateOptions) { o.Binaries = map[string]string{BinaryName: script} }, "no binary and no source"},
		"unknown name": {func(o *CreateOptions) { o.Binaries = map[string]string{"other": script} }, "binary other is not part of a bundle"},
		"not a program": {func(o *CreateOptions) {
			o.Source = "../.."
			o.Binaries = maps.Clone(o.Binaries)
			o.Binaries["edge"] = script
		}, "no Linux program"},
		"dynamic": {func(o *CreateOptions) {
			o.Binaries = maps.Clone(o.Binaries)
			o.Binaries["edge"] = "/bin/sh"
		}, "not statically linked"},
	} {
		t.Run(name, func(t *testing.T) {
			o := f.options
			o.Output = filepath.Join(t.TempDir(), "x.tar")
			c.change(&o)
			_, err := create(t.Context(), o, f.recipe)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, expected %q", err, c.want)
			}
			if _, err := os.Stat(o.Output); err == nil {
				t.Error("it left a file")
			}
		})
	}
}

func TestInspect(t *testing.T) {
	f := newFixture(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, keys := range map[SignatureState][]*ecdsa.PublicKey{SignatureValid: f.keys(), SignatureUnknown: nil, SignatureInvalid: {&other.PublicKey}} {
		i, err := Inspect(f.tar, keys)
		if err != nil || i.Signature != want || i.Manifest.Version != "1.2.3" {
			t.Errorf("got %+v, %v, expected signature %s", i, err, want)
		}
	}
	if _, err := Inspect(t.TempDir(), f.keys()); !errors.Is(err, NotABundle) {
		t.Errorf("an empty directory: %v", err)
	}
}
