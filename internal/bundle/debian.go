package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	recipes "github.com/quayctl/quayctl/bundle"
)

// debianFiles is what an image takes from Debian.
type debianFiles struct {
	tree     tree
	packages []debPackage // those that tree has files of, by name
}

// debPackage is a Debian package, as its own control file describes it.
type debPackage struct {
	name, version, arch, source, homepage, maintainer, sha256 string
	files                                                     []string // paths without a leading slash
	copyright                                                 []byte   // usr/share/doc/<name>/copyright
}

// describeDebs is the hook that mmdebstrap runs (with the new root as $1) while the packages lie in
// its cache: it notes what they are, since the extract variant leaves no package database behind.
const describeDebs = `set -eu
mkdir "$1/.packages"
for deb in "$1"/var/cache/apt/archives/*.deb; do
  name=$(basename "$deb" .deb)
  {
    dpkg-deb --show --showformat='name ${Package}\nversion ${Version}\narch ${Architecture}\nsource ${source:Package} ${source:Version}\nhomepage ${Homepage}\nmaintainer ${Maintainer}\n' "$deb"
    echo "sha256 $(sha256sum <"$deb" | cut -d' ' -f1)"
    dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's/^/file /'
  } >"$1/.packages/$name"
done`

// fetchDebian downloads the packages of the recipe, with all that they depend on, for arch, verified by
// Debian's own signatures, and extracts them into one tar file in the cache directory. Nothing of them is
// run, so any architecture will do. It returns the path of the tar.
func fetchDebian(ctx context.Context, d *recipes.Debian, arch, cacheDir string, log io.Writer) (string, error) {
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	key := sha256.Sum256([]byte(strings.Join(append([]string{d.Suite, arch, describeDebs}, d.Packages...), "\n")))
	file := filepath.Join(cacheDir, fmt.Sprintf("debian-%s-%s-%s.tar", d.Suite, arch, hex.EncodeToString(key[:6])))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("mmdebstrap is not installed: apt-get install mmdebstrap")
	}
	part := file + ".part.tar"
	defer os.Remove(part)
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--variant=extract", "--format=tar",
		"--architectures="+arch, "--include="+strings.Join(d.Packages, ","), "--extract-hook="+describeDebs, d.Suite, part)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, log), io.MultiWriter(&out, log)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("fetch Debian packages %s for %s with mmdebstrap: %w\n%s", strings.Join(d.Packages, " "), arch, err, lastLines(out.String(), 5))
	}
	if err := os.Rename(part, file); err != nil {
		return "", fmt.Errorf("keep Debian packages: %w", err)
	}
	return file, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// selectDebian takes from the tar that fetchDebian made what the recipe names, and what that is linked with.
func selectDebian(d *recipes.Debian, tarFile string) (*debianFiles, error) {
	root, err := openRoot(tarFile)
	if err != nil {
		return nil, err
	}
	defer root.close()
	out := tree{}
	for link, target := range d.Links {
		out.add(link, &entry{mode: fs.ModeSymlink | 0o777, link: target})
	}
	for _, dir := range slices.Sorted(maps.Keys(d.Files)) {
		for _, pattern := range d.Files[dir] {
			names, err := root.glob(dir, pattern)
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				if err := root.copyTo(out, n); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := addLibraries(root, out); err != nil {
		return nil, err
	}
	if d.ICURoot {
		if err := cutICU(out); err != nil {
			return nil, err
		}
	}
	for link, target := range d.Links {
		// Not every architecture has every directory: arm64 has no lib64.
		if at := path.Join(path.Dir(link), target); out[at] == nil {
			delete(out, link)
		}
	}
	packages, err := root.packages()
	if err != nil {
		return nil, err
	}
	// Whoever passes files on passes their licences on.
	f := &debianFiles{tree: out}
	for _, p := range packages {
		if !slices.ContainsFunc(p.files, func(n string) bool { e := out[n]; return e != nil && !e.mode.IsDir() }) {
			continue
		}
		doc := path.Join("usr/share/doc", p.name, "copyright")
		if err := root.copyTo(out, doc); err != nil {
			return nil, fmt.Errorf("package %s: %w", p.name, err)
		}
		real, err := root.resolve(doc)
		if err != nil {
			return nil, err
		}
		p.copyright = out[real].data
		f.packages = append(f.packages, p)
	}
	return f, nil
}

// debianRoot is a root file system in a tar file, read without unpacking it.
type debianRoot struct {
	file    *os.File
	entries map[string]*rootEntry
}

type rootEntry struct {
	header *tar.Header
	offset int64 // of the content in the file
}

func openRoot(tarFile string) (*debianRoot, error) {
	f, err := os.Open(tarFile)
	if err != nil {
		return nil, fmt.Errorf("open Debian packages: %w", err)
	}
	r := &debianRoot{file: f, entries: map[string]*rootEntry{}}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("read Debian packages %s: %w", tarFile, err)
		}
		// The reader stands at the content after Next, and seeks over it in the next call.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("read Debian packages %s: %w", tarFile, err)
		}
		r.entries[path.Clean(strings.TrimPrefix(h.Name, "./"))] = &rootEntry{h, at}
	}
}

func (r *debianRoot) close() { r.file.Close() }

// glob gives the files in dir whose names match pattern; none is an error, as the recipe wants something that is not there.
func (r *debianRoot) glob(dir, pattern string) ([]string, error) {
	var names []string
	for n, e := range r.entries {
		if path.Dir(n) != dir || e.header.Typeflag == tar.TypeDir {
			continue
		}
		ok, err := path.Match(pattern, path.Base(n))
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		if ok {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the Debian packages have no file %s/%s", dir, pattern)
	}
	slices.Sort(names)
	return names, nil
}

// mergedUsr is where the links at the top of a Debian system lead; the extracted packages lack these links.
var mergedUsr = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

// resolve gives the path without symbolic links of a file.
func (r *debianRoot) resolve(name string) (string, error) {
	rest := strings.Split(strings.Trim(path.Clean(name), "/"), "/")
	at := ""
	for hops := 0; len(rest) > 0; {
		if hops > 40 {
			return "", fmt.Errorf("%s: too many symbolic links", name)
		}
		next := path.Join(at, rest[0])
		rest = rest[1:]
		if to, ok := mergedUsr[next]; ok {
			at = to
			continue
		}
		e, ok := r.entries[next]
		if !ok {
			return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		if e.header.Typeflag != tar.TypeSymlink {
			at = next
			continue
		}
		hops++
		to := e.header.Linkname
		if path.IsAbs(to) {
			at = ""
		}
		rest = append(strings.Split(strings.Trim(path.Clean(to), "/"), "/"), rest...)
		for len(rest) > 0 && rest[0] == ".." {
			at, rest = path.Dir(at), rest[1:]
			if at == "." {
				at = ""
			}
		}
	}
	return at, nil
}

// copyTo adds a file to t; of a symbolic link, the link and what it leads to.
func (r *debianRoot) copyTo(t tree, name string) error {
	real, err := r.resolve(name)
	if err != nil {
		return err
	}
	dir, err := r.resolve(path.Dir(name))
	if err != nil {
		return err
	}
	if at := path.Join(dir, path.Base(name)); at != real {
		t.add(at, &entry{mode: fs.ModeSymlink | 0o777, link: relative(path.Dir(at), real)})
	}
	if t[real] != nil {
		return nil
	}
	e := r.entries[real]
	if e.header.Typeflag == tar.TypeLink {
		e = r.entries[path.Clean(strings.TrimPrefix(e.header.Linkname, "./"))]
	}
	if e == nil || e.header.Typeflag != tar.TypeReg {
		return fmt.Errorf("%s is no regular file", name)
	}
	b := make([]byte, e.header.Size)
	if _, err := r.file.ReadAt(b, e.offset); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	t.add(real, &entry{mode: 0o644 | fs.FileMode(e.header.Mode)&0o111, data: b})
	return nil
}

// relative gives the path from one directory of the root to a file of it.
func relative(dir, file string) string {
	up := strings.Split(dir, "/")
	down := strings.Split(file, "/")
	for len(up) > 0 && len(down) > 1 && up[0] == down[0] {
		up, down = up[1:], down[1:]
	}
	return strings.Repeat("../", len(up)) + strings.Join(down, "/")
}

// packages gives what describeDebs noted, by name.
func (r *debianRoot) packages() ([]debPackage, error) {
	var all []debPackage
	for n, e := range r.entries {
		if path.Dir(n) != ".packages" {
			continue
		}
		b := make([]byte, e.header.Size)
		if _, err := r.file.ReadAt(b, e.offset); err != nil {
			return nil, fmt.Errorf("read %s: %w", n, err)
		}
		var p debPackage
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			switch key {
			case "name":
				p.name = value
			case "version":
				p.version = value
			case "arch":
				p.arch = value
			case "source":
				p.source = value
			case "homepage":
				p.homepage = value
			case "maintainer":
				p.maintainer = value
			case "sha256":
				p.sha256 = value
			case "file":
				f := path.Clean(strings.TrimPrefix(value, "./"))
				if first, rest, ok := strings.Cut(f, "/"); ok && mergedUsr[first] != "" {
					f = path.Join(mergedUsr[first], rest)
				}
				p.files = append(p.files, f)
			}
		}
		if p.name == "" || p.version == "" || len(p.sha256) != 64 {
			return nil, fmt.Errorf("read %s: no name, version or checksum in it", n)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, errors.New("the Debian packages have no descriptions")
	}
	slices.SortFunc(all, func(a, b debPackage) int { return strings.Compare(a.name, b.name) })
	return all, nil
}
