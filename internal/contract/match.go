package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tolerances of recorded times, from the recordings' README: a time is that of its step give or take tolerance; offsets were rounded.
const (
	tolerance       = 12 * time.Second
	offsetTolerance = 45 * time.Second
)

// placeholder is <kind>, <kind:…:n>; every other pair of angle brackets is text.
var placeholder = regexp.MustCompile(`<(?:(?:uuid|token|secret|jwt|session|etag|bcrypt|imageid|id:[a-z0-9]+):\d+|time:(?:iso|epoch|ms|rfc\w+|rfc1123)(?::\d+)?(?:[+-]\d+s)?|time:date(?:[+-]\d+d)?|seconds|signatures|jsonschema dump)>`)

// shapes are the regular expressions of what a placeholder may stand for.
var shapes = map[string]string{
	"uuid":            `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
	"token":           `[^\s"<>]+`,
	"secret":          `[^\s"<>]+`,
	"jwt":             `[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`,
	"session":         `[^;\s]+`,
	"etag":            `[^\s]+`,
	"bcrypt":          `\$2b\$\d\d\$[./A-Za-z0-9]{53}`,
	"imageid":         `[0-9a-f]{64}`,
	"id":              `\d+`,
	"iso":             `\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:?00)?`,
	"epoch":           `\d+(?:\.\d+)?`,
	"ms":              `\d+`,
	"rfc":             `\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d (?:GMT|-0000)`,
	"date":            `\d{4}-\d\d-\d\d(?:[T ]00:00:00)?`,
	"seconds":         `\d+`,
	"signatures":      `.*`,
	"jsonschema dump": `(?s:.*)`,
}

// bindings are what the numbered placeholders of a scenario stand for, and when its steps ran.
type bindings struct {
	value map[string]string    // "<uuid:1>" → value
	taken map[string]string    // kind + value → "<uuid:1>": two numbers never stand for one value
	steps map[int][2]time.Time // start and end of each step; 0 is the setup
	now   time.Time
}

func newBindings() *bindings {
	return &bindings{value: map[string]string{}, taken: map[string]string{}, steps: map[int][2]time.Time{}}
}

func (b *bindings) clone() *bindings {
	return &bindings{maps.Clone(b.value), maps.Clone(b.taken), b.steps, b.now}
}

// signedContent is a signed text (content.time.signature) without time and signature; any other text as it is.
func signedContent(text string) string {
	if parts := strings.Split(text, "."); len(parts) >= 3 {
		return strings.Join(parts[:len(parts)-2], ".")
	}
	return text
}

// bind lets a placeholder stand for a value or says why it cannot.
func (b *bindings) bind(ph, value string) error {
	body := strings.Trim(ph, "<>")
	kind, rest, _ := strings.Cut(body, ":")
	switch kind {
	case "seconds", "signatures", "jsonschema dump":
		return nil
	case "time":
		return b.time(rest, value)
	case "id":
		kind = body[:strings.LastIndexByte(body, ':')]
	}
	if have, ok := b.value[ph]; ok {
		// A grant of version 1 that is made again says the same a second later, under another signature.
		if have != value && (kind != "token" || signedContent(have) != signedContent(value)) {
			return fmt.Errorf("%s is %q, was %q", ph, value, have)
		}
		return nil
	}
	// Two tokens or session cookies made in one second of the same content are equal: the recorder was slower than that.
	if other, ok := b.taken[kind+" "+value]; ok && kind != "jwt" && kind != "session" {
		return fmt.Errorf("%s and %s are both %q", other, ph, value)
	}
	b.value[ph], b.taken[kind+" "+value] = value, ph
	return nil
}

var timeBody = regexp.MustCompile(`^(iso|epoch|ms|rfc\w*|date)(?::(\d+))?(?:([+-]\d+)([sd]))?$`)

func (b *bindings) time(body, value string) error {
	m := timeBody.FindStringSubmatch(body)
	if m == nil {
		return fmt.Errorf("no such time placeholder: %s", body)
	}
	var got time.Time
	switch f := m[1]; {
	case f == "iso" || f == "date":
		t, ok := parseTime(value)
		if !ok {
			return fmt.Errorf("%q is no time", value)
		}
		got = t
	case f == "epoch" || f == "ms":
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("%q is no time", value)
		}
		if f == "ms" {
			n /= 1000
		}
		got = time.UnixMicro(int64(n * 1e6)).UTC()
	default:
		t, err := time.Parse(time.RFC1123, strings.Replace(value, "-0000", "GMT", 1))
		if err != nil {
			return fmt.Errorf("%q is no time", value)
		}
		got = t.UTC()
	}
	var offset time.Duration
	near := tolerance
	if m[3] != "" {
		n, err := strconv.Atoi(m[3])
		if err != nil {
			return err
		}
		near, offset = offsetTolerance, time.Duration(n)*time.Second
		if m[4] == "d" {
			offset *= 24 * 3600
		}
	}
	if m[1] == "date" {
		if want := b.now.Add(offset).UTC().Format(time.DateOnly); got.Format(time.DateOnly) != want {
			return fmt.Errorf("date %s, want %s", value, want)
		}
		return nil
	}
	if m[2] == "" {
		return nil
	}
	k, err := strconv.Atoi(m[2])
	if err != nil {
		return err
	}
	span, ok := b.steps[k]
	if !ok {
		return fmt.Errorf("step %d has not run", k)
	}
	if got.Before(span[0].Add(offset-near)) || got.After(span[1].Add(offset+near)) {
		return fmt.Errorf("%s is not within %v of step %d%s", value, near, k, m[3]+m[4])
	}
	return nil
}

func parseTime(s string) (time.Time, bool) {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// text compares a text with a template. The template's ${…} is expanded already.
func (b *bindings) text(template, got string) error {
	at := placeholder.FindAllStringIndex(template, -1)
	if at == nil {
		if template != got {
			return fmt.Errorf("%q, want %q", got, template)
		}
		return nil
	}
	var rx strings.Builder
	rx.WriteString(`\A`)
	var phs []string
	last := 0
	for _, p := range at {
		rx.WriteString(regexp.QuoteMeta(template[last:p[0]]))
		ph := template[p[0]:p[1]]
		phs = append(phs, ph)
		rx.WriteString("(" + shapeOf(ph) + ")")
		last = p[1]
	}
	rx.WriteString(regexp.QuoteMeta(template[last:]) + `\z`)
	r, err := regexp.Compile(rx.String())
	if err != nil {
		return err
	}
	m := r.FindStringSubmatch(got)
	if m == nil {
		return fmt.Errorf("%q, want %q", got, template)
	}
	for i, ph := range phs {
		if err := b.bind(ph, m[i+1]); err != nil {
			return fmt.Errorf("%q, want %q: %w", got, template, err)
		}
	}
	return nil
}

func shapeOf(ph string) string {
	body := strings.Trim(ph, "<>")
	kind, rest, _ := strings.Cut(body, ":")
	if kind == "time" {
		f, _, _ := strings.Cut(rest, ":")
		f = strings.TrimRight(strings.FieldsFunc(f, func(r rune) bool { return r == '+' || r == '-' })[0], "0123456789")
		if strings.HasPrefix(f, "rfc") {
			f = "rfc"
		}
		return shapes[f]
	}
	return shapes[kind]
}

// value compares a value decoded from JSON with a value of a recording, at path.
func (b *bindings) json(path string, want, got any) error {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: %s, want an object", path, show(got))
		}
		for _, k := range slices.Sorted(maps.Keys(w)) {
			gv, ok := g[k]
			if !ok {
				return fmt.Errorf("%s.%s: missing, want %s", path, k, show(w[k]))
			}
			if err := b.json(path+"."+k, w[k], gv); err != nil {
				return err
			}
		}
		for _, k := range slices.Sorted(maps.Keys(g)) {
			if _, ok := w[k]; !ok {
				return fmt.Errorf("%s.%s: %s, want no such member", path, k, show(g[k]))
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Errorf("%s: %s, want %s", path, show(got), show(want))
		}
		for i := range w {
			if err := b.json(fmt.Sprintf("%s[%d]", path, i), w[i], g[i]); err != nil {
				return err
			}
		}
		return nil
	case string:
		if w == "<signatures>" {
			return nil
		}
		var g string
		switch v := got.(type) {
		case string:
			g = v
		case json.Number:
			if placeholder.FindString(w) != w || w == "" {
				return fmt.Errorf("%s: the number %s, want the text %q", path, v, w)
			}
			g = v.String()
		default:
			return fmt.Errorf("%s: %s, want %q", path, show(got), w)
		}
		if err := b.text(w, g); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	case time.Time: // YAML's own timestamps
		if g, ok := got.(string); ok {
			if t, ok := parseTime(g); ok && t.Equal(w) {
				return nil
			}
		}
		return fmt.Errorf("%s: %s, want %s", path, show(got), w)
	case nil:
		if got != nil {
			return fmt.Errorf("%s: %s, want null", path, show(got))
		}
		return nil
	default:
		if n, ok := got.(json.Number); ok && sameNumber(n, want) {
			return nil
		}
		if !reflect.DeepEqual(want, got) {
			return fmt.Errorf("%s: %s, want %s", path, show(got), show(want))
		}
		return nil
	}
}

func sameNumber(got json.Number, want any) bool {
	switch w := want.(type) {
	case int:
		return got.String() == strconv.Itoa(w)
	case int64:
		return got.String() == strconv.FormatInt(w, 10)
	case uint64:
		return got.String() == strconv.FormatUint(w, 10)
	case float64:
		f, err := got.Float64()
		return err == nil && f == w
	}
	return false
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(b) > 400 {
		return string(b[:400]) + "…"
	}
	return string(b)
}

// column compares a column of a row: texts that hold JSON compare as JSON, times as times.
func (b *bindings) column(path string, want, got any) error {
	w, ok := want.(string)
	g, ok2 := got.(string)
	if ok && ok2 {
		if wj, err := decodeObject(w); err == nil {
			if gj, err := decodeObject(g); err == nil {
				return b.json(path, wj, gj)
			}
		}
		if wt, ok := parseTime(w); ok {
			if gt, ok := parseTime(g); ok && wt.Equal(gt) {
				return nil
			}
		}
	}
	return b.json(path, want, got)
}

// decodeObject decodes a JSON object or array, keeping numbers as they are written.
func decodeObject(s string) (any, error) {
	t := strings.TrimSpace(s)
	if t == "" || (t[0] != '{' && t[0] != '[') {
		return nil, fmt.Errorf("no JSON object")
	}
	d := json.NewDecoder(strings.NewReader(t))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return v, nil
}

// rows finds for every recorded row a changed row, each used once; it binds the numbers it needs on the way.
// It returns nil when all match and none is left over.
func (b *bindings) rows(want, got []Row) error {
	want, got = fold(want), fold(got)
	used := make([]bool, len(got))
	budget := 200000
	var deepest error
	depth := -1
	var search func(i int, b *bindings) *bindings
	search = func(i int, b *bindings) *bindings {
		if i == len(want) {
			return b
		}
		w := want[i]
		var first error
		for j, g := range got {
			if used[j] || g.Table != w.Table || g.Op != w.Op {
				continue
			}
			if budget--; budget < 0 {
				return nil
			}
			next := b.clone()
			if err := next.row(w, g); err != nil {
				first = err
				continue
			}
			used[j] = true
			if found := search(i+1, next); found != nil {
				return found
			}
			used[j] = false
		}
		if i > depth {
			depth = i
			deepest = fmt.Errorf("%s %s: no such row was written, want %s", w.Op, w.Table, show(w.Row))
			if first != nil {
				deepest = fmt.Errorf("%s %s: %w", w.Op, w.Table, first)
			}
		}
		return nil
	}
	found := search(0, b)
	if found == nil {
		return deepest
	}
	for j, g := range got {
		if !used[j] {
			return fmt.Errorf("%s %s: a row that the recording does not have: %s", g.Op, g.Table, show(g.Row))
		}
	}
	b.value, b.taken = found.value, found.taken
	return nil
}

func (b *bindings) row(want, got Row) error {
	for _, part := range []struct {
		name      string
		want, got map[string]any
	}{{"", want.Row, got.Row}, {"was ", want.Was, got.Was}} {
		for _, k := range slices.Sorted(maps.Keys(part.want)) {
			if err := b.column(part.name+k, part.want[k], part.got[k]); err != nil {
				return err
			}
		}
		for _, k := range slices.Sorted(maps.Keys(part.got)) {
			if _, ok := part.want[k]; !ok && part.got[k] != nil {
				return fmt.Errorf("%s%s: %s, want null", part.name, k, show(part.got[k]))
			}
		}
	}
	return nil
}

// fold folds several changes of one row in a step into one: what counts is what the step left behind.
func fold(rows []Row) []Row {
	var out []Row
	at := map[string]int{}
	for _, r := range rows {
		key := r.Table + " " + show(r.Row["id"])
		i, seen := at[key]
		if !seen || r.Row["id"] == nil {
			at[key] = len(out)
			out = append(out, Row{r.Table, r.Op, maps.Clone(r.Row), maps.Clone(r.Was)})
			continue
		}
		prev := &out[i]
		switch {
		case prev.Op == "insert" && r.Op == "delete":
			prev.Op = "none"
		case prev.Op == "insert":
			prev.Row = r.Row
		case r.Op == "delete":
			for k, v := range prev.Was {
				r.Row[k] = v
			}
			prev.Op, prev.Row, prev.Was = "delete", r.Row, nil
		default:
			for k, v := range r.Was {
				if _, ok := prev.Was[k]; !ok {
					prev.Was[k] = v
				}
			}
			prev.Row = r.Row
			for k, v := range prev.Was {
				if reflect.DeepEqual(prev.Row[k], v) {
					delete(prev.Was, k)
				}
			}
			if len(prev.Was) == 0 {
				prev.Op = "none"
			}
		}
		if prev.Op == "none" {
			delete(at, key)
		}
	}
	return slices.DeleteFunc(out, func(r Row) bool { return r.Op == "none" })
}
