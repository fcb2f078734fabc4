// Package contract replays what was recorded from a legacy Quay against a running server and tells every difference: status,
// headers, body, token claims, database rows and storage keys.
//
// The format of the recordings is described in test/contract/recordings/FORMAT.md; members that it lacks are described at the types below.
package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Scenario is one recording: from the pristine start state, setup, then steps whose effects are compared.
type Scenario struct {
	// File is the recording's file without .yaml, relative to the recordings' root, such as blob-upload.
	File string `yaml:"-"`
	// Name is unique in the file.
	Name string `yaml:"scenario"`
	// As is the identity that the recording is about; it is told in the requests' headers already.
	As string `yaml:"as"`
	// Config are keys laid over the recorded server's config.yaml.
	Config map[string]any `yaml:"config"`
	// Setup runs first and is not compared.
	Setup []Step `yaml:"setup"`
	// Steps are compared one by one.
	Steps []Step `yaml:"steps"`
	// Upstream is what the registry behind a proxy-cache organisation answers: "METHOD /path" to its answer.
	Upstream map[string]Response `yaml:"upstream"`
	// Redis says that the steps also list the keys of Redis.
	Redis bool `yaml:"redis"`
}

// ID names a scenario in reports and in the list of differences.
func (s *Scenario) ID() string { return s.File + "/" + s.Name }

// Step is one thing that is done; exactly one of Request, SQL, Worker, Sleep, DeleteObject, UpstreamSet and UpstreamDown is set.
type Step struct {
	Request      *Request            `yaml:"request"`
	SQL          string              `yaml:"sql"`
	Worker       string              `yaml:"worker"`
	Sleep        float64             `yaml:"sleep"`
	DeleteObject string              `yaml:"delete_object"`
	UpstreamSet  map[string]Response `yaml:"upstream_set"`
	UpstreamDown bool                `yaml:"upstream_down"`
	// Response is what was answered.
	Response *Response `yaml:"response"`
	// Capture takes values from the answer: name to "header NAME", "json a.b", "link", "cookie", "regex RX".
	Capture map[string]string `yaml:"capture"`
	// Database are the rows the step changed.
	Database []Row `yaml:"database"`
	// Storage are the objects the step changed.
	Storage []Object `yaml:"storage"`
	// UpstreamRequests are what the server asked of the upstream, in order.
	UpstreamRequests []map[string]any `yaml:"upstream_requests"`
}

// Request is one HTTP request, before ${…} is expanded.
type Request struct {
	Method     string         `yaml:"method"`
	Path       string         `yaml:"path"`
	Headers    map[string]any `yaml:"headers"` // string, or a list sent as several lines
	JSON       any            `yaml:"json"`
	Body       *string        `yaml:"body"`
	BodyBase64 string         `yaml:"body_base64"`
	BodyRepeat *struct {
		Text  string `yaml:"text"`
		Count int    `yaml:"count"`
	} `yaml:"body_repeat"`
	Chunked int `yaml:"chunked"` // bytes per chunk; 0 = Content-Length
}

// line is a header's value; one that was sent as several lines is joined with ", ".
type line string

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *line) UnmarshalYAML(n *yaml.Node) error {
	var text string
	var lines []string
	if n.Kind == yaml.SequenceNode {
		if err := n.Decode(&lines); err != nil {
			return err
		}
		text = strings.Join(lines, ", ")
	} else if err := n.Decode(&text); err != nil {
		return err
	}
	*l = line(text)
	return nil
}

// Response is one HTTP answer, with placeholders.
type Response struct {
	Status     int             `yaml:"status"`
	Headers    map[string]line `yaml:"headers"`
	JSON       any             `yaml:"json"`
	Body       *string         `yaml:"body"`
	BodyBase64 string          `yaml:"body_base64"`
	BodySHA256 string          `yaml:"body_sha256"`
	Size       *int64          `yaml:"size"`
	Claims     map[string]any  `yaml:"claims"`
	// RequireAuthorization and Otherwise are used by an upstream only: without that exact Authorization it answers Otherwise.
	RequireAuthorization string    `yaml:"require_authorization"`
	Otherwise            *Response `yaml:"otherwise"`
}

// Row is a changed row.
type Row struct {
	Table string         `yaml:"table"`
	Op    string         `yaml:"op"` // insert, update, delete
	Row   map[string]any `yaml:"row"`
	Was   map[string]any `yaml:"was"`
}

// Object is a changed object in storage. A key without prefix lies in the first location.
type Object struct {
	Op   string `yaml:"op"` // create, write, delete
	Key  string `yaml:"key"`
	Size *int64 `yaml:"size"`
}

// Load reads every scenario of the recordings below dir that has steps, in the order of files and of the scenarios in them.
// A file that does not parse, or a scenario without a name, is an error that names it.
func Load(dir string) ([]*Scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("load recordings: no *.yaml in %s", dir)
	}
	sort.Strings(files)
	var all []*Scenario
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("load recordings: %w", err)
		}
		var scenarios []*Scenario
		if err := yaml.Unmarshal(text, &scenarios); err != nil {
			return nil, fmt.Errorf("load recordings %s: %w", f, err)
		}
		for i, s := range scenarios {
			if s.Name == "" {
				return nil, fmt.Errorf("load recordings %s: scenario %d has no name", f, i+1)
			}
			s.File = strings.TrimSuffix(filepath.Base(f), ".yaml")
			if len(s.Steps) > 0 {
				all = append(all, s)
			}
		}
	}
	return all, nil
}
