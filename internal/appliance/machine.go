package appliance

import (
	"context"
	"io"
	"io/fs"
	"time"

	"github.com/quayctl/quayctl/internal/quadlet"
)

// Podman keeps the images and makes containers of units.
type Podman interface {
	// Info asks Podman about itself and the machine.
	Info(ctx context.Context) (PodmanInfo, error)
	// Image gives the image with that ID, nil if there is none.
	Image(ctx context.Context, id string) (*PodmanImage, error)
	// Load reads an OCI archive of one image.
	Load(ctx context.Context, archive io.Reader) error
	// RemoveImage removes an image with all its names. It is no error if there is none.
	RemoveImage(ctx context.Context, id string) error
}

// PodmanInfo is what rendering and loading depend on.
type PodmanInfo struct {
	Version     string
	GraphRoot   string   // where images lie
	Controllers []string // cgroup controllers that containers can use
	SELinux     bool     // enabled
}

// PodmanImage is an image in Podman's store.
type PodmanImage struct {
	ID      string // without sha256:
	Digests []string
	Names   []string
}

// Systemd is the manager of the machine, or of a user.
type Systemd interface {
	Reload(ctx context.Context) error
	// Start, Stop and Restart wait for the job's end. The error of a unit that failed ends with its last lines of
	// the journal. Stop of a unit that does not exist is no error.
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	// Units gives the state of units, in the order of the names.
	Units(ctx context.Context, names ...string) ([]UnitState, error)
	// ResetFailed forgets that a unit failed.
	ResetFailed(ctx context.Context, unit string) error
}

// UnitState is how systemd sees a unit.
type UnitState struct {
	Name   string    `json:"name"`
	Load   string    `json:"load"`   // loaded, not-found …
	Active string    `json:"active"` // active, inactive, failed, activating …
	Sub    string    `json:"sub"`    // running, exited, listening, auto-restart …
	Since  time.Time `json:"since,omitzero"`
}

// Running tells whether the unit does what it is there for.
func (u UnitState) Running() bool { return u.Active == "active" }

// Ownership gives a path its owner and mode. Numbers are those inside containers.
type Ownership struct {
	Path string
	ID   int // user and group
	Mode fs.FileMode
}

// CopyFile puts a copy of a file in place for a container's user.
type CopyFile struct {
	From string
	Ownership
}

// Host is what else an installation changes on the machine.
type Host interface {
	// Own sets owners and modes of existing directories.
	Own(ctx context.Context, all []Ownership) error
	// Copy makes or replaces files; directories must exist.
	Copy(ctx context.Context, all []CopyFile) error
	// Remove deletes trees, whoever in containers owns what is in them. It is no error if one does not exist.
	Remove(ctx context.Context, paths ...string) error
	// Sync makes everything durable that was written to the file system of path.
	Sync(path string) error
	// Label lets containers use the directories where SELinux is enabled.
	Label(ctx context.Context, paths ...string) error
	// Lingering tells whether the user's units run without a session, and SetLinger changes that. Root always lingers.
	Lingering(ctx context.Context) (bool, error)
	SetLinger(ctx context.Context, on bool) error
	// Names are the names and addresses of this machine, for a certificate.
	Names() []string
	// ValidateUnits has the machine's own generators judge the units in dir.
	ValidateUnits(ctx context.Context, dir string, units []*quadlet.Unit) error
	// Ready waits until the daemon at the socket says that it is ready. The error tells which of its checks failed last.
	Ready(ctx context.Context, socket string) error
}

// Database is the registry's database as the installer needs it.
type Database interface {
	// EnsureUser makes the user unless there is one of that name. When it is there with another password, reset
	// decides whether it gets this one. It tells whether the password is the user's.
	EnsureUser(ctx context.Context, dsn, name, email, password string, reset bool) (valid bool, err error)
	// Forget removes every trace of a repository that was made to prove the front door.
	Forget(ctx context.Context, dsn, namespace, repository string) error
}

// FrontDoor is the registry as clients see it.
type FrontDoor interface {
	// Prove pushes a small image as the user and pulls it again over TLS verified with the certificates in roots.
	Prove(ctx context.Context, p Proof) error
}

// Proof says what to prove.
type Proof struct {
	Hostname   string
	Port       int
	Roots      []byte // PEM
	User       string
	Password   string // empty: only that it answers over verified TLS
	Repository string // "namespace/name"
}
