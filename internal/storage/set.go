package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
)

// Location is one entry of DISTRIBUTED_STORAGE_CONFIG.
type Location struct {
	Name       string         // e.g. default or local_us
	Driver     string         // e.g. LocalStorage
	Parameters map[string]any // as decoded from YAML
}

// Config is where objects lie (contract, behaviour.md §1.2).
type Config struct {
	Locations []Location // DISTRIBUTED_STORAGE_CONFIG, in its order
	// Preference is DISTRIBUTED_STORAGE_PREFERENCE: reads take the first that holds the object, writes the
	// first. Empty means all names in the order of Locations.
	Preference []string
}

// Set is all locations of an installation.
type Set struct {
	drivers    map[string]Driver
	preference []string
}

// Open opens every location. Errors name the location and what to change.
func Open(c Config, log *slog.Logger) (*Set, error) {
	drivers := make(map[string]Driver, len(c.Locations))
	names := make([]string, 0, len(c.Locations))
	for _, l := range c.Locations {
		d, err := openDriver(l, log)
		if err != nil {
			for _, opened := range drivers {
				err = errors.Join(err, opened.Close())
			}
			return nil, fmt.Errorf("open storage location %q (DISTRIBUTED_STORAGE_CONFIG): %w", l.Name, err)
		}
		drivers[l.Name] = d
		names = append(names, l.Name)
	}
	preference := c.Preference
	if len(preference) == 0 {
		preference = names
	}
	return NewSet(drivers, preference)
}

func openDriver(l Location, log *slog.Logger) (Driver, error) {
	switch l.Driver {
	case "LocalStorage":
		path, _ := l.Parameters["storage_path"].(string)
		if path == "" {
			return nil, errors.New("LocalStorage needs the parameter storage_path, a directory")
		}
		return OpenLocal(path, log.With("location", l.Name))
	default:
		return nil, fmt.Errorf("driver %q is not known here: use LocalStorage", l.Driver)
	}
}

// NewSet makes a Set of drivers that are already open; it closes them with Close.
func NewSet(drivers map[string]Driver, preference []string) (*Set, error) {
	if len(preference) == 0 {
		return nil, errors.New("no storage location is configured: set DISTRIBUTED_STORAGE_CONFIG")
	}
	for _, name := range preference {
		if drivers[name] == nil {
			return nil, fmt.Errorf("storage location %q of DISTRIBUTED_STORAGE_PREFERENCE is not in DISTRIBUTED_STORAGE_CONFIG", name)
		}
	}
	return &Set{drivers: drivers, preference: preference}, nil
}

// Names are the names of all locations, sorted.
func (s *Set) Names() []string {
	names := make([]string, 0, len(s.drivers))
	for name := range s.drivers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Preferred is the location that new blobs are written to.
func (s *Set) Preferred() (name string, d Driver) {
	return s.preference[0], s.drivers[s.preference[0]]
}

// Driver is the driver of a location, or an error when no such location is configured.
func (s *Set) Driver(location string) (Driver, error) {
	d := s.drivers[location]
	if d == nil {
		return nil, fmt.Errorf("storage location %q is in the database, but not in DISTRIBUTED_STORAGE_CONFIG", location)
	}
	return d, nil
}

// Choose picks where to read an object from that lies in placements: the first preferred one, or, when
// none is preferred, any. Placements that are not configured are passed over.
func (s *Set) Choose(placements []string) (name string, d Driver, err error) {
	for _, name := range s.preference {
		if slices.Contains(placements, name) {
			return name, s.drivers[name], nil
		}
	}
	known := slices.DeleteFunc(slices.Clone(placements), func(name string) bool { return s.drivers[name] == nil })
	if len(known) == 0 {
		return "", nil, fmt.Errorf("no configured storage location holds the object (it lies in %q): %w", placements, ErrNotExist)
	}
	name = known[rand.IntN(len(known))] //nolint:gosec // spreads load, guards nothing
	return name, s.drivers[name], nil
}

// Validate proves that the preferred location works; with all, every location must.
func (s *Set) Validate(ctx context.Context, all bool) error {
	names := s.preference[:1]
	if all {
		names = s.Names()
	}
	var errs []error
	for _, name := range names {
		if err := s.drivers[name].Validate(ctx); err != nil {
			errs = append(errs, fmt.Errorf("validate storage location %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Close closes every location.
func (s *Set) Close() error {
	var errs []error
	for _, name := range s.Names() {
		errs = append(errs, s.drivers[name].Close())
	}
	return errors.Join(errs...)
}
