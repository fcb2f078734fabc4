package bundle

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// addLibraries adds to t the program interpreters and shared libraries that the files in it need, and those that
// these need, as the dynamic linker would find them in root. It reads the files instead of asking the linker,
// so that it works for every architecture.
func addLibraries(root *debianRoot, t tree) error {
	var queue []string
	for n, e := range t {
		if e.mode.IsRegular() {
			queue = append(queue, n)
		}
	}
	slices.Sort(queue)
	seen := map[string]bool{}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		data := t[name].data
		if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			continue
		}
		needs, err := readNeeds(data)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		for _, lib := range needs.libraries {
			at, err := findLibrary(root, name, lib, needs)
			if err != nil {
				return err
			}
			if err := root.copyTo(t, at); err != nil {
				return fmt.Errorf("library %s of %s: %w", lib, name, err)
			}
			real, err := root.resolve(at)
			if err != nil {
				return err
			}
			queue = append(queue, real)
		}
	}
	return nil
}

type needs struct {
	triplet   string   // of the directory that Debian keeps the architecture's libraries in
	libraries []string // names, or a path: the interpreter
	runPaths  []string
}

var triplets = map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}

func readNeeds(data []byte) (*needs, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	n := &needs{triplet: triplets[f.Machine]}
	if n.triplet == "" {
		return nil, fmt.Errorf("unknown machine %s", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, err
			}
			n.libraries = append(n.libraries, strings.TrimRight(string(b), "\x00"))
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	n.libraries = append(n.libraries, libs...)
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			n.runPaths = append(n.runPaths, strings.Split(p, ":")...)
		}
	}
	return n, nil
}

func findLibrary(root *debianRoot, of, lib string, n *needs) (string, error) {
	dirs := []string{""}
	if !strings.Contains(lib, "/") {
		dirs = nil
		for _, p := range n.runPaths {
			dirs = append(dirs, strings.ReplaceAll(p, "$ORIGIN", "/"+path.Dir(of)))
		}
		dirs = append(dirs, "usr/lib/"+n.triplet, "usr/lib")
	}
	for _, d := range dirs {
		at := strings.TrimPrefix(path.Join(d, lib), "/")
		_, err := root.resolve(at)
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("library %s of %s is in none of the Debian packages", lib, of)
}

// checkProgram refuses what would not run in an image that has nothing else in it.
func checkProgram(b []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("no Linux program: %w", err)
	}
	machines := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}
	if machines[f.Machine] != arch {
		return fmt.Errorf("made for %s, expected %s", f.Machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("not statically linked")
		}
	}
	return nil
}
