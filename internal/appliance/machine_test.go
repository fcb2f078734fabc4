package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/bundle"
	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quadlet"
	"github.com/quayctl/quayctl/profiles"
	"github.com/quayctl/quayctl/quadlets"
)

// machine is a machine in memory, with files in a temporary directory. Like a real one it can lose what was not synced.
type machine struct {
	mu      sync.Mutex
	active  map[string]bool
	images  map[string]bool // ID to whether its content reached the disk
	users   map[string]string
	repos   map[string]bool
	linger  bool
	running []string // units started, in order
	loads   int
	proving error // power fails in the midst of a proof: nothing that follows is done
}

func newMachine() *machine {
	return &machine{active: map[string]bool{}, images: map[string]bool{}, users: map[string]string{}, repos: map[string]bool{}}
}

// cut is a power cut: nothing runs, and images that were not synced are listed but empty.
func (m *machine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = map[string]bool{}
}

func (m *machine) Info(context.Context) (PodmanInfo, error) {
	return PodmanInfo{Version: "5.4.2", GraphRoot: "/graph", Controllers: []string{"pids"}}, nil
}

func (m *machine) Image(_ context.Context, id string) (*PodmanImage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.images[id]; !ok {
		return nil, nil
	}
	return &PodmanImage{ID: id}, nil
}

func (m *machine) Load(_ context.Context, archive io.Reader) error {
	b, err := io.ReadAll(archive)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	if _, ok := m.images[string(b)]; !ok { // as Podman: what is there, even if empty, is not written again
		m.images[string(b)] = false
	}
	return nil
}

func (m *machine) RemoveImage(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.images, id)
	return nil
}

func (m *machine) Reload(context.Context) error { return nil }

func (m *machine) Start(_ context.Context, unit string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.active[unit] { // as systemd: what runs is not started again
		m.active[unit] = true
		m.running = append(m.running, unit)
	}
	return nil
}

func (m *machine) Stop(_ context.Context, unit string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.active, unit)
	return nil
}

func (m *machine) Restart(ctx context.Context, unit string) error {
	return errors.Join(m.Stop(ctx, unit), m.Start(ctx, unit))
}

func (m *machine) Units(_ context.Context, names ...string) ([]UnitState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []UnitState
	for _, n := range names {
		s := UnitState{Name: n, Active: "inactive"}
		if m.active[n] {
			s.Active = "active"
		}
		all = append(all, s)
	}
	return all, nil
}

func (m *machine) ResetFailed(context.Context, string) error { return nil }

func (m *machine) Own(_ context.Context, all []Ownership) error {
	for _, o := range all {
		if err := os.Chmod(o.Path, o.Mode|0o200); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) Copy(_ context.Context, all []CopyFile) error {
	for _, c := range all {
		b, err := os.ReadFile(c.From)
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(c.Path), os.WriteFile(c.Path, b, c.Mode)); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) Remove(_ context.Context, paths ...string) error {
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) Sync(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if path == "/graph" {
		for id := range m.images {
			m.images[id] = true
		}
	}
	return nil
}

func (m *machine) Label(context.Context, ...string) error       { return nil }
func (m *machine) Lingering(context.Context) (bool, error)      { return m.linger, nil }
func (m *machine) SetLinger(_ context.Context, on bool) error   { m.linger = on; return nil }
func (m *machine) Names() []string                              { return []string{"m1", "192.0.2.7"} }
func (m *machine) Ready(_ context.Context, socket string) error { return nil }
func (m *machine) ValidateUnits(context.Context, string, []*quadlet.Unit) error {
	return nil
}

func (m *machine) EnsureUser(_ context.Context, _, name, _, password string, reset bool) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.users[name]; !ok || reset {
		m.users[name] = password
	}
	return m.users[name] == password, nil
}

func (m *machine) Forget(_ context.Context, _, namespace, repository string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proving != nil {
		return m.proving
	}
	delete(m.repos, namespace+"/"+repository)
	return nil
}

func (m *machine) Prove(_ context.Context, p Proof) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, unit := range []string{"quay-edge-a.service", "quay-registryd.service", "quay-edge.socket"} {
		if !m.active[unit] {
			return fmt.Errorf("%s does not run", unit)
		}
	}
	for id, whole := range m.images {
		if !whole {
			return fmt.Errorf("image %s is empty", id)
		}
	}
	if p.Password != "" {
		if m.users[p.User] != p.Password {
			return errors.New("wrong password")
		}
		m.repos[p.Repository] = true
		if m.proving != nil {
			return m.proving
		}
	}
	return nil
}

// source is a bundle whose images are their own IDs.
type source struct{ manifest *bundle.Manifest }

func newSource() source {
	m := &bundle.Manifest{Version: "1.0.0"}
	for i, c := range []string{"registryd", "edge", "workers", "postgresql"} {
		m.Images = append(m.Images, bundle.Image{Component: c, Name: "localhost/quay/" + c + ":1.0.0", ID: "sha256:" + strings.Repeat(fmt.Sprint(i+1), 64), Digest: "sha256:d"})
	}
	return source{m}
}

func (s source) Manifest() *bundle.Manifest { return s.manifest }
func (s source) RawManifest() []byte        { return []byte("{}") }
func (s source) ImageTar(component string) (io.ReadCloser, error) {
	i, _ := s.manifest.Image(component)
	return io.NopCloser(strings.NewReader(i.ID)), nil
}
func (s source) ExtractBinary(w io.Writer) error { _, err := io.WriteString(w, "quayctl"); return err }

type silent struct{}

func (silent) StepBegins(string, string) {}
func (silent) StepEnds(string, error)    {}

func testLayout(root string) Layout {
	return Layout{
		Rootless: true, Config: filepath.Join(root, "etc/quay"), Data: filepath.Join(root, "var/lib/quay"), Quadlets: filepath.Join(root, "etc/containers/systemd/quay"),
		Units: filepath.Join(root, "etc/systemd/system"), Wants: filepath.Join(root, "etc/systemd/system/multi-user.target.wants"),
		Binary: filepath.Join(root, "usr/local/bin/quayctl"), Runtime: filepath.Join(root, "run"),
		Trust: filepath.Join(root, "etc/containers/certs.d"),
	}
}

func registryOnly(t *testing.T) (*quadlet.Profile, []*quadlet.Component) {
	t.Helper()
	b, err := fs.ReadFile(profiles.Files, "registry-only.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := quadlet.ParseProfile("registry-only", b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := quadlet.Components(quadlets.Files, p)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// install runs an installation; after stops it when it returns an error for a record that is on disk.
func install(t *testing.T, l Layout, m *machine, r Request, after func(Record) error) (*Result, error) {
	t.Helper()
	c := clock.Real{}
	j, err := OpenForInstall(l, c)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	if after != nil {
		j.After = func(r Record) {
			if err := after(r); err != nil {
				cancel(err)
			}
		}
	}
	profile, components := registryOnly(t)
	i := &Install{
		Layout: l, Request: r, Source: newSource(), Profile: profile, Components: components, Journal: j, Clock: c,
		Podman: m, Systemd: m, Host: m, Database: m, FrontDoor: m,
	}
	return i.Run(ctx, silent{})
}

func uninstall(t *testing.T, l Layout, m *machine, deleteData bool) error {
	t.Helper()
	j, err := OpenForInstall(l, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	_, err = (&Uninstall{Layout: l, DeleteData: deleteData, Journal: j, Podman: m, Systemd: m, Host: m}).Run(t.Context(), silent{})
	return err
}

var request = Request{Hostname: "registry.example.com", Port: 8443, User: "admin"}

// tree lists all files below root with their kind, without what differs from run to run.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		all = append(all, d.Type().String()+" "+name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func comparable(t *testing.T, l Layout) *State {
	t.Helper()
	s, err := ReadState(l)
	if err != nil {
		t.Fatal(err)
	}
	s.Installed, s.Updated = time.Time{}, time.Time{}
	for i := range s.Inventory {
		s.Inventory[i].Name = strings.TrimPrefix(s.Inventory[i].Name, filepath.Dir(filepath.Dir(l.Config)))
	}
	slices.SortFunc(s.Inventory, func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
	for name := range s.Units {
		s.Units[name] = ""
	}
	return s
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}
