package quadlet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Component is one part of the appliance, as quadlets/<component>.yaml describes it.
type Component struct {
	Name        string            `yaml:"component"`
	Image       string            `yaml:"image"` // component whose image it runs; its own when empty
	Description string            `yaml:"description"`
	Wants       []string          `yaml:"wants"`    // components that start before it; it does without them
	Requires    []string          `yaml:"requires"` // components that must have started before it
	Slots       []string          `yaml:"slots"`    // names of interchangeable units of which one runs; {slot} in exec is the name
	Socket      bool              `yaml:"socket"`   // inherits the public socket
	Exec        []string          `yaml:"exec"`     // arguments of the image's program
	Environment map[string]string `yaml:"environment"`
	Mounts      []Mount           `yaml:"mounts"`
	User        int               `yaml:"user"`         // user and group number; 65532 when absent
	Oneshot     bool              `yaml:"oneshot"`      // does its work once per start and ends
	Notify      bool              `yaml:"notify"`       // tells systemd when it is ready
	Start       string            `yaml:"startTimeout"` // TimeoutStartSec
	Stop        int               `yaml:"stopTimeout"`  // seconds it gets to stop before it is killed
	Watchdog    int               `yaml:"watchdog"`     // seconds without a sign of life after which it is restarted; 0 for none
	Tmp         string            `yaml:"tmp"`          // size of its /tmp; empty for none
	Limits      Limits            `yaml:"limits"`
}

// Mount is a directory of the installation in a container.
type Mount struct {
	From     string `yaml:"from"` // relative to the data directory
	To       string `yaml:"to"`
	ReadOnly bool   `yaml:"readOnly"`
}

// Limits are what a component may use. They need cgroup controllers and are left out where the machine has none.
type Limits struct {
	Pids   int    `yaml:"pids,omitempty"`   // processes and threads
	Memory string `yaml:"memory,omitempty"` // bytes, with b, k, m or g
}

// Profile says which components an installation has.
type Profile struct {
	Name        string            `yaml:"name"`
	Description string            `yaml:"description"`
	Components  []string          `yaml:"components"`
	Limits      map[string]Limits `yaml:"limits,omitempty"` // by component, instead of its own
}

// DefaultUser is the user and group number of our daemons in every image.
const DefaultUser = 65532

var (
	wordPattern   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	memoryPattern = regexp.MustCompile(`^[1-9][0-9]*[bkmg]?$`)
)

func decodeStrict(b []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(into); errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	} else if err != nil {
		return err
	}
	return nil
}

// ParseProfile reads a profile; file is what errors call it.
func ParseProfile(file string, b []byte) (*Profile, error) {
	p := &Profile{}
	if err := decodeStrict(b, p); err != nil {
		return nil, fmt.Errorf("read profile %s: %w", file, err)
	}
	var errs []error
	if !wordPattern.MatchString(p.Name) {
		errs = append(errs, fmt.Errorf("name %q: use small letters, digits and hyphens", p.Name))
	}
	if len(p.Components) == 0 {
		errs = append(errs, errors.New("components: none is named"))
	}
	for i, c := range p.Components {
		if !wordPattern.MatchString(c) || slices.Contains(p.Components[:i], c) {
			errs = append(errs, fmt.Errorf("components: %q is no name or stands twice", c))
		}
	}
	for c, l := range p.Limits {
		if !slices.Contains(p.Components, c) {
			errs = append(errs, fmt.Errorf("limits: %q is not among the components", c))
		}
		errs = append(errs, l.check("limits: "+c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read profile %s: %w", file, err)
	}
	return p, nil
}

func (l Limits) check(what string) error {
	if l.Pids < 0 {
		return fmt.Errorf("%s: pids %d is less than 0", what, l.Pids)
	}
	if l.Memory != "" && !memoryPattern.MatchString(l.Memory) {
		return fmt.Errorf("%s: memory %q: write a number with b, k, m or g, such as 512m", what, l.Memory)
	}
	return nil
}

// UnknownComponentError is returned for a component that this version of quayctl has no unit for.
type UnknownComponentError struct{ Component, Profile string }

// Error implements error.
func (e *UnknownComponentError) Error() string {
	return fmt.Sprintf("profile %s: this quayctl has no unit for component %s", e.Profile, e.Component)
}

// Components reads the component files of a profile, in its order. The error is an
// *UnknownComponentError when there is no file for one.
func Components(files fs.FS, p *Profile) ([]*Component, error) {
	var all []*Component
	for _, name := range p.Components {
		b, err := fs.ReadFile(files, name+".yaml")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &UnknownComponentError{Component: name, Profile: p.Name}
		}
		if err != nil {
			return nil, fmt.Errorf("read component %s: %w", name, err)
		}
		c := &Component{}
		if err := decodeStrict(b, c); err != nil {
			return nil, fmt.Errorf("read component %s: %w", name, err)
		}
		if c.Name != name {
			return nil, fmt.Errorf("read component %s: it calls itself %q", name, c.Name)
		}
		if l, ok := p.Limits[name]; ok {
			c.Limits = l
		}
		if c.Image == "" {
			c.Image = c.Name
		}
		if c.User == 0 {
			c.User = DefaultUser
		}
		all = append(all, c)
	}
	for _, c := range all {
		for _, other := range append(slices.Clone(c.Requires), c.Wants...) {
			if !slices.Contains(p.Components, other) {
				return nil, fmt.Errorf("profile %s: component %s needs %s, which is not among the components: %s", p.Name, c.Name, other, strings.Join(p.Components, ", "))
			}
		}
	}
	return all, nil
}

// Images are the components whose images a list of components runs, each once, in order.
func Images(components []*Component) []string {
	var all []string
	for _, c := range components {
		if !slices.Contains(all, c.Image) {
			all = append(all, c.Image)
		}
	}
	return all
}
