package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// source is where a bundle's members lie. It is safe for concurrent use.
type source interface {
	// names gives every file that claims to be a member.
	names() []string
	// open opens a member and gives its size in bytes; fs.ErrNotExist if there is none.
	open(name string) (io.ReadCloser, int64, error)
	close() error
}

func openSource(path string) (source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Bundle: path, Kind: Unreadable, Err: pathless(err)}
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, &Error{Bundle: path, Kind: Unreadable, Err: pathless(err)}
	}
	if info.IsDir() {
		f.Close()
		return openDir(path)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, &Error{Bundle: path, Kind: NotABundle, Found: "a special file", Expected: "a tar file or a directory"}
	}
	s, err := openTar(f, info.Size())
	if err != nil {
		f.Close()
		var e *Error
		if errors.As(err, &e) {
			e.Bundle = path
		}
		return nil, err
	}
	return s, nil
}

// pathless takes the path out of a file error, since Error tells it.
func pathless(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// tarSource is a bundle that was not unpacked.
type tarSource struct {
	file  *os.File
	order []string
	at    map[string]tarMember
}

type tarMember struct{ offset, size int64 }

// openTar reads the headers only, seeking over the contents.
func openTar(f *os.File, size int64) (*tarSource, error) {
	s := &tarSource{file: f, at: map[string]tarMember{}}
	tr := tar.NewReader(f)
	var end int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		last := ""
		if len(s.order) > 0 {
			last = s.order[len(s.order)-1]
		}
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, &Error{Kind: Truncated, Member: last, Found: fmt.Sprintf("%d bytes", size), Expected: "more"}
		case err != nil && len(s.order) == 0:
			return nil, &Error{Kind: NotABundle, Found: "no tar file", Expected: "a tar file that begins with " + ManifestName, Err: err}
		case err != nil:
			return nil, &Error{Kind: Malformed, Found: "an unreadable entry after " + last, Err: err}
		case h.Typeflag != tar.TypeReg:
			return nil, &Error{Kind: Unexpected, Member: h.Name, Found: fmt.Sprintf("entry of type %q", h.Typeflag), Expected: "regular files only"}
		case len(s.order) == 0 && h.Name != ManifestName:
			return nil, &Error{Kind: NotABundle, Found: h.Name + " as its first member", Expected: ManifestName}
		}
		if _, ok := s.at[h.Name]; ok {
			return nil, &Error{Kind: Unexpected, Member: h.Name, Found: "it twice", Expected: "each member once"}
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, &Error{Kind: Unreadable, Err: pathless(err)}
		}
		s.at[h.Name] = tarMember{at, h.Size}
		s.order = append(s.order, h.Name)
		end = at + (h.Size+511)/512*512
	}
	if len(s.order) == 0 {
		return nil, &Error{Kind: NotABundle, Found: "no members", Expected: ManifestName}
	}
	// Two blocks of zeros end a tar file. The reader is content without them, and ignores what comes after.
	if size < end+1024 {
		return nil, &Error{Kind: Truncated, Found: fmt.Sprintf("%d bytes", size), Expected: fmt.Sprintf("%d", end+1024)}
	}
	tail := make([]byte, min(size-end, 64<<10))
	if _, err := f.ReadAt(tail, end); err != nil {
		return nil, &Error{Kind: Unreadable, Err: pathless(err)}
	}
	if size-end > 64<<10 || strings.Trim(string(tail), "\x00") != "" {
		return nil, &Error{Kind: Unexpected, Found: "data after the last member", Expected: "the end"}
	}
	return s, nil
}

func (s *tarSource) names() []string { return s.order }

func (s *tarSource) open(name string) (io.ReadCloser, int64, error) {
	m, ok := s.at[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(s.file, m.offset, m.size)), m.size, nil
}

func (s *tarSource) close() error { return s.file.Close() }

// dirSource is a bundle that was unpacked. Other files may lie beside the members at the top, since people
// unpack where they are; below profiles/ and oci/ everything counts. Nothing is reached through symbolic links that
// lead out of the directory.
type dirSource struct {
	root  *os.Root
	order []string
}

func openDir(path string) (*dirSource, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, &Error{Bundle: path, Kind: Unreadable, Err: pathless(err)}
	}
	s := &dirSource{root: root}
	for _, top := range []string{ManifestName, SignatureName, SBOMName, ProfilesDir, LayoutDir, BinaryName} {
		// The walk would follow a link that it begins with.
		if info, err := root.Lstat(top); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
			root.Close()
			return nil, &Error{Bundle: path, Kind: Unexpected, Member: top, Found: "no regular file", Expected: "regular files only"}
		}
		err := fs.WalkDir(root.FS(), top, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil && name == top && errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return &Error{Bundle: path, Kind: Unreadable, Member: name, Err: pathless(err)}
			case d.IsDir():
				return nil
			case !d.Type().IsRegular():
				return &Error{Bundle: path, Kind: Unexpected, Member: name, Found: "no regular file", Expected: "regular files only"}
			}
			s.order = append(s.order, name)
			return nil
		})
		if err != nil {
			root.Close()
			return nil, err
		}
	}
	if len(s.order) == 0 || s.order[0] != ManifestName {
		root.Close()
		return nil, &Error{Bundle: path, Kind: NotABundle, Found: "a directory without " + ManifestName, Expected: "the directory that the bundle was unpacked into"}
	}
	return s, nil
}

func (s *dirSource) names() []string { return s.order }

func (s *dirSource) open(name string) (io.ReadCloser, int64, error) {
	f, err := s.root.Open(name)
	if err != nil {
		return nil, 0, pathless(err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, pathless(err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, 0, errors.New("no regular file")
	}
	return f, info.Size(), nil
}

func (s *dirSource) close() error { return s.root.Close() }
