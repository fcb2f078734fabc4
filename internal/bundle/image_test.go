package bundle

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	recipes "github.com/quayctl/quayctl/bundle"
)

// cacheDir is where everything downloaded is kept; the build uses the same.
func cacheDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("QUAY_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "quay-appliance")
}

func postgresqlRecipe(t *testing.T) (*recipes.Recipe, recipes.Image) {
	t.Helper()
	r, err := recipes.Load()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(r.Images, func(i recipes.Image) bool { return i.Component == "postgresql" })
	if i < 0 {
		t.Fatal("no image postgresql")
	}
	return r, r.Images[i]
}

func debianFor(t *testing.T, arch string) *debianFiles {
	t.Helper()
	_, r := postgresqlRecipe(t)
	file, err := fetchDebian(t.Context(), r.Debian, arch, filepath.Join(cacheDir(t), "debian"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	files, err := selectDebian(r.Debian, file)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDebianFiles selects the files for both architectures, of which only one can be run here, and expects the same of both.
func TestDebianFiles(t *testing.T) {
	names := map[string][]string{}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	loaders := map[string]string{"amd64": "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "arm64": "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"}
	for arch, machine := range machines {
		files := debianFor(t, arch)
		for name, e := range files.tree {
			if e.mode&fs.ModeSymlink != 0 && !path.IsAbs(e.link) {
				if to := files.tree[path.Join(path.Dir(name), e.link)]; to == nil {
					t.Errorf("%s: %s leads to %s, which is not there", arch, name, e.link)
				}
			}
			if !bytes.HasPrefix(e.data, []byte(elf.ELFMAG)) {
				continue
			}
			f, err := elf.NewFile(bytes.NewReader(e.data))
			if err != nil || f.Machine != machine {
				t.Errorf("%s: %s: %v, %v", arch, name, f, err)
			}
			n := strings.ReplaceAll(path.Base(name), "aarch64-linux-gnu", "TRIPLET")
			if !strings.HasPrefix(n, "ld-linux") {
				names[arch] = append(names[arch], n)
			}
		}
		if files.tree[loaders[arch]] == nil {
			t.Errorf("%s: no %s", arch, loaders[arch])
		}
		if size := files.tree.size(); size > 60<<20 {
			t.Errorf("%s: %d MB of files, expected at most 60", arch, size>>20)
		}
		for _, p := range files.packages {
			if len(p.copyright) == 0 || p.version == "" || len(p.sha256) != 64 {
				t.Errorf("%s: package %s: version %q, sha256 %q, %d bytes of copyright", arch, p.name, p.version, p.sha256, len(p.copyright))
			}
		}
		slices.Sort(names[arch])
	}
	// The C library of arm64 needs nothing else, so programs and libraries are the same.
	if !slices.Equal(names["amd64"], names["arm64"]) {
		t.Errorf("amd64 has %v\narm64 has %v", names["amd64"], names["arm64"])
	}
}

// imageRoot unpacks the PostgreSQL image for this machine, entrypoint included, into a directory.
func imageRoot(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test enters the image's root directory, so it needs root")
	}
	common, r := postgresqlRecipe(t)
	program := filepath.Join(t.TempDir(), "program")
	if err := goBuild(t.Context(), "../..", r.Package, "amd64", "1.2.3", "", "", program); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	img, err := assemble(imageInput{recipe: r, common: common, version: "1.2.3", arch: "amd64", created: time.Unix(1700000000, 0), program: b,
		debian: debianFor(t, "amd64"), cache: layerCache(filepath.Join(cacheDir(t), "layers"))})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "tar", "-x", "--numeric-owner", "--same-owner", "-p", "-C", root)
		cmd.Stdin = rc
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		rc.Close()
	}
	// What the runtime provides, and the mounts.
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]int{"null": 3, "urandom": 9} {
		if err := syscall.Mknod(filepath.Join(root, "dev", name), syscall.S_IFCHR|0o666, 1<<8|minor); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, "dev", name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	sockets := filepath.Join(root, "run/quay/pg")
	if err := os.MkdirAll(sockets, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(sockets, r.User, r.User); err != nil {
		t.Fatal(err)
	}
	return root
}

// run starts a program of the image, its root directory being root, as the image's user and in a process group of its own.
func run(ctx context.Context, root string, user uint32, output io.Writer, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Setpgid: true, Credential: &syscall.Credential{Uid: user, Gid: user}}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/lib/postgresql/17/bin:/usr/bin"}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// TestLibraries asks the image's own dynamic linker whether each program and extension finds its libraries.
func TestLibraries(t *testing.T) {
	root := imageRoot(t)
	checked := 0
	for _, dir := range []string{"usr/lib/postgresql/17/bin", "usr/lib/postgresql/17/lib"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			var out bytes.Buffer
			err := run(t.Context(), root, 70, &out, "/lib64/ld-linux-x86-64.so.2", "--list", path.Join("/", dir, e.Name())).Run()
			if err != nil || strings.Contains(out.String(), "not found") {
				t.Errorf("%s: %v\n%s", e.Name(), err, out.String())
			}
			checked++
		}
	}
	if checked < 15 {
		t.Errorf("checked %d files only", checked)
	}
}

// server is a PostgreSQL of the image that runs.
type server struct {
	cmd  *exec.Cmd
	log  *lineWatcher
	root string
}

// lineWatcher keeps what is written and tells when a text has appeared.
type lineWatcher struct {
	text  bytes.Buffer
	want  string
	found chan struct{}
}

func (w *lineWatcher) Write(p []byte) (int, error) {
	w.text.Write(p)
	if w.want != "" && strings.Contains(w.text.String(), w.want) {
		w.want = ""
		close(w.found)
	}
	return len(p), nil
}

func startServer(t *testing.T, root string, args ...string) *server {
	t.Helper()
	s := &server{log: &lineWatcher{want: "ready to accept connections", found: make(chan struct{})}, root: root}
	// The test's own context ends before its cleanup, which stops the server as podman would.
	s.cmd = run(context.WithoutCancel(t.Context()), root, 70, s.log, "/usr/bin/quay-postgresql", args...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	t.Cleanup(func() {
		err := s.cmd.Process.Signal(syscall.SIGINT)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v\n%s", err, s.log.text.String())
		}
	})
	select {
	case <-s.log.found:
	case err := <-ended:
		ended <- err
		t.Fatalf("the server ended before it was ready: %v\n%s", err, s.log.text.String())
	}
	return s
}

func (s *server) query(t *testing.T, user, sql string) (string, error) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), "user="+user+" dbname=quay host="+filepath.Join(s.root, "run/quay/pg"))
	if err != nil {
		return "", err
	}
	defer c.Close(t.Context())
	var out string
	err = c.QueryRow(t.Context(), sql).Scan(&out)
	return out, err
}

// TestServer makes a cluster with the image's own programs and looks at what it became.
func TestServer(t *testing.T) {
	root := imageRoot(t)
	t.Run("new cluster", func(t *testing.T) {
		s := startServer(t, root)
		// Whoever is uid 0 beside the server's container is the role quay, and nobody else.
		for sql, want := range map[string]string{
			"SELECT current_user":             "quay",
			"SHOW data_checksums":             "on",
			"SHOW server_encoding":            "UTF8",
			"SHOW listen_addresses":           "",
			"SHOW fsync":                      "on",
			"SHOW max_connections":            "60",
			"SHOW shared_buffers":             "32MB",
			"SHOW jit":                        "off",
			"SHOW password_encryption":        "scram-sha-256",
			"SHOW TimeZone":                   "UTC",
			"SHOW dynamic_shared_memory_type": "sysv",
			"SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'quay'":                       "bC.UTF-8",
			"SELECT rolsuper::text || rolcreaterole::text || rolcreatedb::text FROM pg_roles WHERE rolname = 'quay'": "falsefalsefalse",
			"SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'quay'":                           "quay",
			"SELECT string_agg(collname, ' ' ORDER BY collname) FROM pg_collation WHERE collprovider = 'i'":          "und-x-icu unicode",
			"SELECT ('Ä' < 'b' COLLATE unicode)::text || ('Ä' < 'b' COLLATE \"C\")::text":                            "truefalse",
			"SELECT oid::text FROM pg_database WHERE datname = 'quay'":                                               "16384",
			"SELECT upper('äé')": "ÄÉ",
		} {
			if got, err := s.query(t, "quay", sql); err != nil || got != want {
				t.Errorf("%s: %q, %v, expected %q", sql, got, err, want)
			}
		}
		c, err := pgx.Connect(t.Context(), "user=quay dbname=quay host="+filepath.Join(root, "run/quay/pg"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "CREATE EXTENSION pg_trgm; CREATE TABLE kept (x text); INSERT INTO kept VALUES ('here')"); err != nil {
			t.Errorf("extension by the owner of the database: %v", err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.query(t, "postgres", "SELECT current_user"); err == nil {
			t.Error("uid 0 may be the superuser")
		}
		psql := func(uid uint32, role string) (string, error) {
			var out bytes.Buffer
			err := run(t.Context(), root, uid, &out, "/usr/lib/postgresql/17/bin/psql", "-h", "/run/quay/pg", "-U", role, "-Atc", "SELECT current_user", "quay").Run()
			return strings.TrimSpace(out.String()), err
		}
		for _, c := range []struct {
			uid  uint32
			role string
			ok   bool
		}{{65532, "quay", true}, {70, "postgres", true}, {0, "quay", true}, {65532, "postgres", false}, {70, "quay", false}, {1000, "quay", false}, {65534, "quay", false}} {
			got, err := psql(c.uid, c.role)
			if (err == nil && got == c.role) != c.ok {
				t.Errorf("uid %d as %s: %q, %v, expected success: %t", c.uid, c.role, got, err, c.ok)
			}
		}
		var dump bytes.Buffer
		if err := run(t.Context(), root, 65532, &dump, "/usr/lib/postgresql/17/bin/pg_dump", "-h", "/run/quay/pg", "-U", "quay", "quay").Run(); err != nil || !strings.Contains(dump.String(), "here") {
			t.Errorf("pg_dump: %v\n%s", err, dump.String())
		}
		var backup bytes.Buffer
		if err := run(t.Context(), root, 70, &backup, "/usr/lib/postgresql/17/bin/pg_basebackup", "-h", "/run/quay/pg", "-U", "postgres", "--checkpoint=fast", "-D", "/var/lib/postgresql/copy.new").Run(); err != nil {
			t.Errorf("pg_basebackup: %v\n%s", err, backup.String())
		}
		// A second server on the same files, though its own would have the same process number in a container.
		var out bytes.Buffer
		if err := run(t.Context(), root, 70, &out, "/usr/bin/quay-postgresql").Run(); err == nil || !strings.Contains(out.String(), "another server works on these files") {
			t.Errorf("a second server: %v: %s", err, out.String())
		}
	})
	t.Run("existing cluster", func(t *testing.T) {
		s := startServer(t, root, "-c", "max_connections=33")
		if got, err := s.query(t, "quay", "SELECT x FROM kept"); err != nil || got != "here" {
			t.Errorf("%q, %v, expected the row of before", got, err)
		}
		if got, err := s.query(t, "quay", "SHOW max_connections"); err != nil || got != "33" {
			t.Errorf("max_connections %q, %v, expected what the command line says", got, err)
		}
		if strings.Contains(s.log.text.String(), "cluster made") {
			t.Error("it made another cluster")
		}
	})
	data := filepath.Join(root, "var/lib/postgresql")
	refuses := func(t *testing.T, want string) {
		t.Helper()
		var out bytes.Buffer
		if err := run(t.Context(), root, 70, &out, "/usr/bin/quay-postgresql").Run(); err == nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v: %s, expected %q", err, out.String(), want)
		}
	}
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("cluster of another version", func(t *testing.T) {
		if err := os.Mkdir(filepath.Join(data, "16"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, "16/PG_VERSION"), []byte("16\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(data, "16"), 70, 70); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(data, "16/PG_VERSION"), 70, 70); err != nil {
			t.Fatal(err)
		}
		move(t, filepath.Join(data, "17"), filepath.Join(root, "away"))
		refuses(t, "there is /var/lib/postgresql/16 (PostgreSQL 16), but this is PostgreSQL 17")
		move(t, filepath.Join(data, "16"), filepath.Join(data, "17"))
		refuses(t, "/var/lib/postgresql/17 is of PostgreSQL 16, this is 17")
		if err := os.Remove(filepath.Join(data, "17/PG_VERSION")); err != nil {
			t.Fatal(err)
		}
		refuses(t, "has no PG_VERSION, so it is damaged")
		if err := os.Remove(filepath.Join(data, "17")); err != nil {
			t.Fatal(err)
		}
		move(t, filepath.Join(root, "away"), filepath.Join(data, "17"))
	})
	t.Run("no socket directory", func(t *testing.T) {
		dir := filepath.Join(root, "run/quay/pg")
		move(t, dir, dir+"-away")
		refuses(t, "socket directory /run/quay/pg")
		move(t, dir+"-away", dir)
	})
}

// TestInterruptedCreation kills everything while the cluster is being made, each time further on, and expects that a
// cluster by its proper name is never there, and that the next start makes a whole one.
func TestInterruptedCreation(t *testing.T) {
	root := imageRoot(t)
	data := filepath.Join(root, "var/lib/postgresql")
	// Signs of progress, in the order in which they appear.
	const last = "17.new/base/16384" // the database; after that a slow test may come too late
	for _, sign := range []string{"17.new", "17.new/PG_VERSION", "17.new/global/pg_control", "17.new/base/1/PG_VERSION", "17.new/base/5/PG_VERSION", last} {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
			t.Run(sign+" "+signal.String(), func(t *testing.T) {
				for _, name := range []string{"17", "17.new"} {
					if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
						t.Fatal(err)
					}
				}
				var out bytes.Buffer
				cmd := run(t.Context(), root, 70, &out, "/usr/bin/quay-postgresql")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
						t.Error(err)
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				awaitFile(ctx, t, filepath.Join(data, sign))
				target := cmd.Process.Pid
				if signal == syscall.SIGKILL {
					target = -target // as when the power goes
				}
				if err := syscall.Kill(target, signal); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err == nil && sign != last {
					t.Error("it ended well")
				}
				if _, err := os.Lstat(filepath.Join(data, "17")); err == nil && sign != last {
					t.Errorf("a cluster is there\n%s", out.String())
				}
			})
		}
	}
	s := startServer(t, root)
	if got, err := s.query(t, "quay", "SELECT current_user"); err != nil || got != "quay" {
		t.Errorf("after all that: %q, %v", got, err)
	}
	left, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{".lock", "17"}) {
		t.Errorf("left in the data directory: %v", names)
	}
}

// awaitFile returns as soon as the file exists.
func awaitFile(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(name); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not appear", name)
		case <-tick.C:
		}
	}
}

// TestWholeBundleArm64 builds every program and image for the other architecture, without running anything of it.
func TestWholeBundleArm64(t *testing.T) {
	f := newFixture(t)
	_, pg := postgresqlRecipe(t)
	recipe := *f.recipe
	recipe.Images = []recipes.Image{pg}
	program := filepath.Join(t.TempDir(), "quayctl")
	if err := goBuild(t.Context(), "../..", "./cmd/postgresql", "arm64", "1.2.3", "", "", program); err != nil {
		t.Fatal(err)
	}
	o := f.options
	o.Arch, o.Source, o.Output, o.CacheDir = "arm64", "../..", filepath.Join(t.TempDir(), "arm64.tar"), cacheDir(t)
	o.Binaries = map[string]string{BinaryName: program}
	o.Log = slog.New(slog.DiscardHandler)
	if _, err := create(t.Context(), o, &recipe); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), o.Output, OpenOptions{Keys: f.keys(), Arch: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	packages := map[string]bool{}
	for _, p := range b.Manifest().Packages {
		packages[p.Name] = true
		if p.Arch != "arm64" && p.Arch != "all" {
			t.Errorf("package %s is for %s", p.Name, p.Arch)
		}
	}
	for _, want := range []string{"postgresql-17", "postgresql-client-17", "libc6", "dash", "libicu76"} {
		if !packages[want] {
			t.Errorf("no package %s among %v", want, slices.Sorted(maps.Keys(packages)))
		}
	}
}
