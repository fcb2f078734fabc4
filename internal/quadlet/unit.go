// Package quadlet holds systemd unit files, Podman's quadlets among them, as typed values: read and written without
// losing order or comments, compared, rendered from the data in quadlets/ and a profile, and validated by the generators
// of Podman and systemd.
package quadlet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Entry is one assignment of a unit file.
type Entry struct {
	// Comments are the lines before the entry, as written, with their # or ;, and blank lines as "".
	Comments []string
	Key      string
	Value    string // without surrounding blanks; continuation lines are joined by a single blank, as systemd does
}

// Section is a [Name] with what follows it. A unit file may hold a section several times; they add up.
type Section struct {
	Comments []string // before the heading
	Name     string
	Entries  []Entry
	Trailing []string // comments after the last entry
}

// Unit is one unit file.
type Unit struct {
	Name     string // file name, such as quay-edge-a.container
	Sections []*Section
}

// Parse reads a unit file as systemd.syntax(7) describes it. It fails on lines that systemd would warn about and skip.
func Parse(name, text string) (*Unit, error) {
	u := &Unit{Name: name}
	var section *Section
	var comments []string
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		at, line := i+1, strings.TrimSpace(lines[i])
		switch {
		case line == "" || isComment(line):
			comments = append(comments, line)
		case strings.HasPrefix(line, "["):
			if !strings.HasSuffix(line, "]") || len(line) < 3 {
				return nil, fmt.Errorf("parse unit %s: line %d: section heading %q does not end with ]", name, at, line)
			}
			section = &Section{Comments: comments, Name: line[1 : len(line)-1]}
			comments = nil
			u.Sections = append(u.Sections, section)
		default:
			// A comment within a continued value is dropped by systemd; keeping it before the entry loses nothing.
			parts := []string{}
			for {
				more := strings.HasSuffix(line, `\`)
				parts = append(parts, strings.TrimSpace(strings.TrimSuffix(line, `\`)))
				if !more || i+1 == len(lines) {
					break
				}
				i++
				for line = strings.TrimSpace(lines[i]); isComment(line) && i+1 < len(lines); line = strings.TrimSpace(lines[i]) {
					comments = append(comments, line)
					i++
				}
			}
			key, value, found := strings.Cut(strings.Join(parts, " "), "=")
			if !found {
				return nil, fmt.Errorf("parse unit %s: line %d: %q is no assignment", name, at, lines[at-1])
			}
			if section == nil {
				return nil, fmt.Errorf("parse unit %s: line %d: %q stands before any section", name, at, lines[at-1])
			}
			section.Entries = append(section.Entries, Entry{Comments: comments, Key: strings.TrimSpace(key), Value: strings.TrimSpace(value)})
			comments = nil
		}
	}
	if len(comments) > 0 && len(u.Sections) > 0 && strings.Join(comments, "") != "" {
		section.Trailing = comments
	}
	return u, nil
}

func isComment(line string) bool { return strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") }

// String writes the unit file. Parsing it again gives an equal unit.
func (u *Unit) String() string {
	var b strings.Builder
	write := func(lines []string) {
		for _, l := range lines {
			b.WriteString(l + "\n")
		}
	}
	for _, s := range u.Sections {
		write(s.Comments)
		b.WriteString("[" + s.Name + "]\n")
		for _, e := range s.Entries {
			write(e.Comments)
			b.WriteString(e.Key + "=" + e.Value + "\n")
		}
		write(s.Trailing)
	}
	return b.String()
}

// Validate refuses what cannot be written so that it is read back as the same: line breaks, an
// empty key, a value that would continue on the next line.
func (u *Unit) Validate() error {
	var errs []error
	for _, s := range u.Sections {
		if s.Name == "" || strings.ContainsAny(s.Name, "[]\n") {
			errs = append(errs, fmt.Errorf("unit %s: section name %q", u.Name, s.Name))
		}
		for _, e := range s.Entries {
			if e.Key == "" || strings.ContainsAny(e.Key, "=\n[ #;") {
				errs = append(errs, fmt.Errorf("unit %s: key %q in [%s]", u.Name, e.Key, s.Name))
			}
			if strings.ContainsAny(e.Value, "\n\r\x00") || strings.HasSuffix(e.Value, `\`) {
				errs = append(errs, fmt.Errorf("unit %s: value %q of %s in [%s] does not fit on a line", u.Name, e.Value, e.Key, s.Name))
			}
		}
	}
	return errors.Join(errs...)
}

// Section gives the first section of that name, adding it at the end if there is none.
func (u *Unit) Section(name string) *Section {
	for _, s := range u.Sections {
		if s.Name == name {
			return s
		}
	}
	s := &Section{Name: name}
	if len(u.Sections) > 0 {
		s.Comments = []string{""}
	}
	u.Sections = append(u.Sections, s)
	return s
}

// Get gives the last value of a key over all sections of that name, which is the one that counts for
// keys that take one value.
func (u *Unit) Get(section, key string) (string, bool) {
	all := u.GetAll(section, key)
	if len(all) == 0 {
		return "", false
	}
	return all[len(all)-1], true
}

// GetAll gives the values of a key in order. An empty assignment resets what came before it, as in systemd.
func (u *Unit) GetAll(section, key string) []string {
	var all []string
	for _, s := range u.Sections {
		if s.Name != section {
			continue
		}
		for _, e := range s.Entries {
			switch {
			case e.Key != key:
			case e.Value == "":
				all = nil
			default:
				all = append(all, e.Value)
			}
		}
	}
	return all
}

// Add appends an assignment.
func (s *Section) Add(key, value string) {
	s.Entries = append(s.Entries, Entry{Key: key, Value: value})
}

// AddCommented appends an assignment with a comment line, given without its #, before it.
func (s *Section) AddCommented(comment, key, value string) {
	s.Entries = append(s.Entries, Entry{Comments: []string{"# " + comment}, Key: key, Value: value})
}

// Set makes value the only value of key, at the place of its first assignment, or at the end.
func (s *Section) Set(key, value string) {
	i := slices.IndexFunc(s.Entries, func(e Entry) bool { return e.Key == key })
	if i < 0 {
		s.Add(key, value)
		return
	}
	s.Entries[i].Value = value
	rest := slices.DeleteFunc(s.Entries[i+1:], func(e Entry) bool { return e.Key == key })
	s.Entries = s.Entries[:i+1+len(rest)]
}

// Remove deletes every assignment of key.
func (s *Section) Remove(key string) {
	s.Entries = slices.DeleteFunc(s.Entries, func(e Entry) bool { return e.Key == key })
}

// Service is the name of the systemd unit that a unit file becomes: x.container becomes x.service, other names stay.
func (u *Unit) Service() string {
	if base, ok := strings.CutSuffix(u.Name, ".container"); ok {
		return base + ".service"
	}
	return u.Name
}

// IsQuadlet tells whether Podman's generator makes the systemd unit from this file.
func (u *Unit) IsQuadlet() bool { return strings.HasSuffix(u.Name, ".container") }
