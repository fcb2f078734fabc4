package quadlet

import (
	"fmt"
	"slices"
)

// Change is one difference between two sets of units.
type Change struct {
	Unit    string   `json:"unit"`              // file name
	Section string   `json:"section,omitempty"` // empty: the whole unit was added or removed
	Key     string   `json:"key,omitempty"`
	Old     []string `json:"old"` // values in order; nil when there were none
	New     []string `json:"new"`
}

// String is one line for people.
func (c Change) String() string {
	switch {
	case c.Section == "" && c.Old == nil:
		return fmt.Sprintf("%s: added", c.Unit)
	case c.Section == "":
		return fmt.Sprintf("%s: removed", c.Unit)
	}
	return fmt.Sprintf("%s: [%s] %s: %q -> %q", c.Unit, c.Section, c.Key, c.Old, c.New)
}

// Diff lists what turns the units old into the units new: by unit in order of name, then by section and key in order of
// appearance. Comments and the order of different keys do not count, as they mean nothing to systemd.
func Diff(old, new []*Unit) []Change {
	var changes []Change
	for _, name := range names(old, new) {
		o, n := find(old, name), find(new, name)
		switch {
		case o == nil:
			changes = append(changes, Change{Unit: name, New: []string{name}})
		case n == nil:
			changes = append(changes, Change{Unit: name, Old: []string{name}})
		default:
			type place struct{ section, key string }
			var places []place
			for _, u := range []*Unit{o, n} {
				for _, s := range u.Sections {
					for _, e := range s.Entries {
						if p := (place{s.Name, e.Key}); !slices.Contains(places, p) {
							places = append(places, p)
						}
					}
				}
			}
			for _, p := range places {
				a, b := o.GetAll(p.section, p.key), n.GetAll(p.section, p.key)
				if !slices.Equal(a, b) {
					changes = append(changes, Change{Unit: name, Section: p.section, Key: p.key, Old: a, New: b})
				}
			}
		}
	}
	return changes
}

func names(sets ...[]*Unit) []string {
	var all []string
	for _, set := range sets {
		for _, u := range set {
			all = append(all, u.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func find(units []*Unit, name string) *Unit {
	for _, u := range units {
		if u.Name == name {
			return u
		}
	}
	return nil
}
