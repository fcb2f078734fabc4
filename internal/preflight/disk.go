package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"
)

// GraphRoot is where Podman keeps images for this user: containers-storage.conf(5) says which file decides.
func (h *Host) GraphRoot() (string, error) {
	files := []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"}
	fallback := "/var/lib/containers/storage"
	if h.rootless() {
		files = append([]string{filepath.Join(h.xdg("XDG_CONFIG_HOME", ".config"), "containers/storage.conf")}, files...)
		fallback = filepath.Join(h.xdg("XDG_DATA_HOME", ".local/share"), "containers/storage")
	}
	if v := h.Getenv("CONTAINERS_STORAGE_CONF"); v != "" {
		files = []string{v}
	}
	for i, file := range files {
		text, err := h.read(file)
		if notExist(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read %s: %w", file, err)
		}
		var conf struct {
			Storage struct {
				GraphRoot    string `toml:"graphroot"`
				RootlessPath string `toml:"rootless_storage_path"`
			} `toml:"storage"`
		}
		if _, err := toml.Decode(text, &conf); err != nil {
			return "", fmt.Errorf("parse %s: %w", file, err)
		}
		root := conf.Storage.GraphRoot
		if h.rootless() {
			expanded := strings.NewReplacer("$HOME", h.Home, "$UID", fmt.Sprint(h.UID), "$USER", h.User).Replace(conf.Storage.RootlessPath)
			switch {
			case expanded != "":
				root = expanded
			case i > 0 || h.Getenv("CONTAINERS_STORAGE_CONF") != "":
				root = "" // graphroot of the system's file is not the user's
			}
		}
		if root == "" {
			root = fallback
		}
		return root, nil
	}
	return fallback, nil
}

func checkGraphRoot(_ context.Context, h *Host, _ *Target) finding {
	const needed = "a writable file system that lets programs run"
	root, err := h.GraphRoot()
	if err != nil {
		return bad("unknown", needed, err.Error(), "correct the file; see containers-storage.conf(5)")
	}
	dir := h.nearest(root)
	f, err := h.Filesystem(h.path(dir))
	if err != nil {
		return bad("unknown", needed, err.Error(), "")
	}
	switch {
	case f.ReadOnly:
		return bad(root+" read-only", needed, "Podman's storage "+root+" lies on a read-only file system", "mount it writable, or set graphroot in storage.conf")
	case f.NoExec:
		return bad(root+" noexec", needed, "Podman's storage "+root+" lies on a file system mounted noexec: no container can start", "sudo mount -o remount,exec the file system of "+dir)
	case networkFilesystem(f.TypeNumber) != "":
		return bad(root+" on "+networkFilesystem(f.TypeNumber), needed, "Podman's storage "+root+" lies on a network file system, which cannot hold image layers", "set graphroot in storage.conf to a local disk")
	}
	return good(root, needed)
}

func checkDataDir(_ context.Context, h *Host, t *Target) finding {
	needed := "a directory of " + h.User + " that others cannot write to, or one that can be made"
	if !filepath.IsAbs(t.DataDir) || filepath.Clean(t.DataDir) == "/" {
		return bad(t.DataDir, needed, "the data directory must be an absolute path below /", "give another with --data-dir")
	}
	owner, mode, err := h.owner(t.DataDir)
	switch {
	case notExist(err):
		parent := h.nearest(t.DataDir)
		if err := h.Writable(h.path(parent)); err != nil {
			return bad(parent+" is not writable", needed, fmt.Sprintf("%s cannot be made in %s: %v", t.DataDir, parent, err),
				fmt.Sprintf("give a directory of yours with --data-dir, or: sudo install -d -o %s -m 700 %s", h.User, t.DataDir))
		}
		return good("will be made in "+parent, needed)
	case err != nil:
		return bad("unknown", needed, err.Error(), "give another with --data-dir")
	case !mode.IsDir():
		return bad("no directory", needed, t.DataDir+" is a file", "give another with --data-dir")
	case owner != h.UID:
		return bad(fmt.Sprintf("owned by uid %d", owner), needed, t.DataDir+" belongs to another user",
			fmt.Sprintf("sudo chown %s %s", h.User, t.DataDir))
	case mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0:
		return bad(fmt.Sprintf("mode %04o", mode.Perm()), needed, "others may write to "+t.DataDir, "chmod 700 "+t.DataDir)
	case mode&fs.ModeSticky != 0:
		return bad(fmt.Sprintf("mode %04o, sticky", mode.Perm()), needed, t.DataDir+" is a shared directory", "give a directory below it with --data-dir")
	}
	return good(fmt.Sprintf("%s, mode %04o", t.DataDir, mode.Perm()), needed)
}

// networkFilesystem names a file system that keeps no owners, or no locks and syncs of its own: by f_type of statfs(2).
func networkFilesystem(magic int64) string {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB"
	case unix.MSDOS_SUPER_MAGIC:
		return "FAT"
	case unix.EXFAT_SUPER_MAGIC:
		return "exFAT"
	case unix.V9FS_MAGIC:
		return "9p"
	}
	return ""
}

// localFilesystem names the usual ones, for the report.
func localFilesystem(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	}
	return fmt.Sprintf("type 0x%x", magic)
}

func checkDataFilesystem(_ context.Context, h *Host, t *Target) finding {
	const needed = "a writable local file system with owners, such as xfs, ext4 or btrfs"
	dir := h.nearest(t.DataDir)
	f, err := h.Filesystem(h.path(dir))
	if err != nil {
		return bad("unknown", needed, err.Error(), "")
	}
	if f.ReadOnly {
		return bad("read-only", needed, "the file system of "+dir+" is mounted read-only", "mount it writable, or give another directory with --data-dir")
	}
	if name := networkFilesystem(f.TypeNumber); name != "" {
		return bad(name, needed, fmt.Sprintf("%s lies on %s, where files cannot belong to the containers' users, or a database is not safe", dir, name), "give a directory on a local disk with --data-dir")
	}
	return good(localFilesystem(f.TypeNumber), needed)
}

func checkDataDurable(_ context.Context, h *Host, t *Target) finding {
	const needed = "a disk"
	dir := h.nearest(t.DataDir)
	f, err := h.Filesystem(h.path(dir))
	if err != nil {
		return bad("unknown", needed, err.Error(), "")
	}
	if f.TypeNumber == unix.TMPFS_MAGIC || f.TypeNumber == unix.RAMFS_MAGIC {
		return bad("memory (tmpfs)", needed, "what is stored in "+dir+" is gone after the next boot", "give a directory on a disk with --data-dir")
	}
	return good("disk", needed)
}

// place is a directory something will be written to.
type place struct {
	what, dir string
	bytes     int64
}

func places(h *Host, t *Target) ([]place, error) {
	root, err := h.GraphRoot()
	if err != nil {
		return nil, err
	}
	// Podman's service is started by systemd, so that a TMPDIR of this shell does not reach it.
	const tmp = "/var/tmp"
	return []place{
		{"data directory " + t.DataDir, h.nearest(t.DataDir), t.Space.Data},
		{"Podman's storage " + root, h.nearest(root), t.Space.Graph},
		{"temporary files in " + tmp, h.nearest(tmp), t.Space.Tmp},
	}, nil
}

// byFilesystem adds up what is needed on each file system, in the order of places.
func byFilesystem(h *Host, t *Target) ([]demand, error) {
	all, err := places(h, t)
	if err != nil {
		return nil, err
	}
	var out []demand
next:
	for _, p := range all {
		f, err := h.Filesystem(h.path(p.dir))
		if err != nil {
			return nil, err
		}
		for i := range out {
			if out[i].ID == f.ID {
				out[i].need += p.bytes
				out[i].whats = append(out[i].whats, p.what)
				continue next
			}
		}
		out = append(out, demand{f, []string{p.what}, p.dir, p.bytes})
	}
	return out, nil
}

// demand is what is needed of one file system.
type demand struct {
	Filesystem
	whats []string
	dir   string
	need  int64
}

func checkDisk(_ context.Context, h *Host, t *Target) finding {
	demands, err := byFilesystem(h, t)
	if err != nil {
		return bad("unknown", "", err.Error(), "")
	}
	var have, need, causes []string
	for _, d := range demands {
		have = append(have, fmt.Sprintf("%s free at %s", size(d.Free), d.dir))
		need = append(need, fmt.Sprintf("%s at %s", size(d.need), d.dir))
		if d.Free < d.need {
			causes = append(causes, fmt.Sprintf("%s: %s free, need %s", strings.Join(d.whats, " and "), size(d.Free), size(d.need)))
		}
	}
	if causes != nil {
		return bad(strings.Join(have, ", "), strings.Join(need, ", "), strings.Join(causes, "; "),
			"free space there, or use a larger disk: --data-dir for the data, graphroot in storage.conf for the images")
	}
	return good(strings.Join(have, ", "), strings.Join(need, ", "))
}

func checkInodes(_ context.Context, h *Host, t *Target) finding {
	needed := fmt.Sprintf("%d free inodes on each file system", t.Space.Inodes)
	demands, err := byFilesystem(h, t)
	if err != nil {
		return bad("unknown", needed, err.Error(), "")
	}
	var have []string
	var short []error
	for _, d := range demands {
		if d.Files == 0 { // btrfs and others make them as they go
			have = append(have, "no limit at "+d.dir)
			continue
		}
		have = append(have, fmt.Sprintf("%d at %s", d.FilesFree, d.dir))
		if d.FilesFree < t.Space.Inodes {
			short = append(short, fmt.Errorf("the file system of %s has %d free inodes", d.dir, d.FilesFree))
		}
	}
	if short != nil {
		return bad(strings.Join(have, ", "), needed, errors.Join(short...).Error(), "remove small files there, or use a file system with more inodes")
	}
	return good(strings.Join(have, ", "), needed)
}
