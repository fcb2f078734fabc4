package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Report is the outcome of all checks, in their order.
type Report struct{ Results []Result }

// OK tells whether no check of class block failed.
func (r *Report) OK() bool { return len(r.with(Failed)) == 0 }

// Failures are the findings that stand in the way.
func (r *Report) Failures() []Result { return r.with(Failed) }

// Warnings are the findings that do not.
func (r *Report) Warnings() []Result { return r.with(Warning) }

// Result returns the result of the check with that name, and false if there is none.
func (r *Report) Result(name string) (Result, bool) {
	for _, res := range r.Results {
		if res.Name == name {
			return res, true
		}
	}
	return Result{}, false
}

func (r *Report) with(s Status) []Result {
	var found []Result
	for _, res := range r.Results {
		if res.Status == s {
			found = append(found, res)
		}
	}
	return found
}

// MarshalJSON gives {"ok": bool, "checks": [...]}.
func (r *Report) MarshalJSON() ([]byte, error) {
	results := r.Results
	if results == nil {
		results = []Result{}
	}
	return json.Marshal(struct {
		OK     bool     `json:"ok"`
		Checks []Result `json:"checks"`
	}{r.OK(), results})
}

// Style colours parts of the human report; the zero value colours nothing.
type Style struct{ Good, Bad, Doubt, Name func(string) string }

func apply(f func(string) string, s string) string {
	if f == nil {
		return s
	}
	return f(s)
}

// Write writes the report for people: every finding with measured, needed, cause and remedy, and,
// if all is true, also what was found in order.
func (r *Report) Write(w io.Writer, style Style, all bool) error {
	var b strings.Builder
	for _, res := range r.Results {
		var mark string
		switch res.Status {
		case Failed:
			mark = apply(style.Bad, "fail")
		case Warning:
			mark = apply(style.Doubt, "warn")
		case Waived:
			mark = apply(style.Doubt, "waived")
		default:
			if all {
				mark := apply(style.Good, "ok")
				if res.Status == Skipped {
					mark = "skipped"
				}
				fmt.Fprintf(&b, "%s  %s: %s\n", mark, apply(style.Name, res.Name), res.Measured)
			}
			continue
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", mark, apply(style.Name, res.Name), res.Cause)
		fmt.Fprintf(&b, "      found:  %s\n      needed: %s\n", res.Measured, res.Needed)
		if res.Remedy != "" {
			fmt.Fprintf(&b, "      remedy: %s\n", strings.ReplaceAll(res.Remedy, "\n", "\n              "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
