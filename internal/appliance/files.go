package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// writeFile replaces a file durably: after a power cut it is the old or the new one, and the new one once this has
// returned. A file that is as wanted already is left alone; only its name may not have reached the disk yet.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		if info, err := os.Lstat(path); err == nil && info.Mode() == mode {
			return syncDir(filepath.Dir(path))
		}
	}
	if err := renameio.WriteFile(path, data, mode, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// makeDir makes a directory durably, with that mode whatever the umask is.
func makeDir(path string, mode fs.FileMode) error {
	if err := errors.Join(os.Mkdir(path, mode), os.Chmod(path, mode)); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

func renameExchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// replaceDir puts the directory staged in the place of target, in one instant where exchange can; what was there is deleted.
func replaceDir(staged, target string, exchange func(a, b string) error) error {
	err := exchange(staged, target)
	switch {
	case errors.Is(err, unix.ENOENT):
		err = os.Rename(staged, target)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EXDEV):
		// The file system cannot do it: NFS, or a lower layer of an overlay. Interrupted between the two, there are no
		// units until the operation is run again.
		err = errors.Join(os.RemoveAll(target), os.Rename(staged, target))
	}
	if err != nil {
		return fmt.Errorf("put %s in place: %w", target, err)
	}
	for _, dir := range []string{filepath.Dir(target), filepath.Dir(staged)} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(staged); err != nil {
		return fmt.Errorf("delete replaced units: %w", err)
	}
	return nil
}

// symlink makes a link durably, whatever was there.
func symlink(target, link string) error {
	if now, err := os.Readlink(link); err == nil && now == target {
		return syncDir(filepath.Dir(link))
	}
	if err := renameio.Symlink(target, link); err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	return syncDir(filepath.Dir(link))
}

// missing lists the directories of path that do not exist yet, the outermost first.
func missing(path string) ([]string, error) {
	var dirs []string
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		_, err := os.Lstat(p)
		if err == nil {
			return dirs, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for %s: %w", p, err)
		}
		dirs = append([]string{p}, dirs...)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
