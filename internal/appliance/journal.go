package appliance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
)

// Event says what a journal record tells.
type Event string

// The events. A record is on disk before what it announces is done, and "done", "image" and "end" only after it is.
const (
	Begin   Event = "operation" // an operation begins or is taken up again
	Enter   Event = "begin"     // a step begins
	Done    Event = "done"      // a step has ended well
	Create  Event = "create"    // a resource will be made that was not there
	Loaded  Event = "image"     // an image lies in Podman's store, synced
	Failed  Event = "failed"    // the operation ended with an error; it can be taken up
	End     Event = "end"       // the operation ended well
	Removed Event = "removed"   // a resource is gone
)

// Record is one line of journal.jsonl.
type Record struct {
	Time      time.Time `json:"time"`
	Event     Event     `json:"event"`
	Operation string    `json:"operation,omitempty"` // install, uninstall, restart; of begin
	Version   string    `json:"version,omitempty"`   // of the bundle; of begin
	Step      string    `json:"step,omitempty"`
	Resource  *Resource `json:"resource,omitempty"`
	Image     string    `json:"image,omitempty"` // ID
	Error     string    `json:"error,omitempty"`
}

// Kind is the kind of a resource.
type Kind string

// The kinds.
const (
	Dir          Kind = "dir"           // removed when it is empty
	Tree         Kind = "tree"          // a directory that is removed with all that is in it
	File         Kind = "file"          // a file or a symbolic link
	Image        Kind = "image"         // Name is its ID
	Linger       Kind = "linger"        // was off before
	PodmanSocket Kind = "podman-socket" // was inactive before
	Probe        Kind = "probe"         // a repository, Name is namespace/name; gone when the installation has ended
)

// Resource is something an installation has made on the machine, and an uninstallation removes.
type Resource struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`           // path, ID or user
	Keep bool   `json:"keep,omitempty"` // data or settings: removed only together with the data
}

// Journal is the durable record of what is being done to a machine. It is safe for concurrent use.
type Journal struct {
	mu      sync.Mutex
	clock   clock.Clock
	file    *os.File
	size    int64 // of the file, bytes
	records []Record
	// After is called when a record is on disk; tests stop there. It may be nil.
	After func(Record)
}

// ReadJournal gives the records of a journal file, none if there is no file. A last line that a power cut left
// incomplete is ignored: what it announced was not done.
func ReadJournal(path string) ([]Record, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	records, _, err := decodeJournal(b)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", path, err)
	}
	return records, nil
}

// decodeJournal gives the records and how many bytes they take.
func decodeJournal(b []byte) ([]Record, int64, error) {
	var records []Record
	var good int64
	for n := 1; len(b) > 0; n++ {
		line, rest, complete := bytes.Cut(b, []byte("\n"))
		var r Record
		err := json.Unmarshal(line, &r)
		if !complete || err != nil && len(bytes.Trim(rest, "\x00")) == 0 {
			return records, good, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		records = append(records, r)
		good += int64(len(line)) + 1
		b = rest
	}
	return records, good, nil
}

// OpenJournal opens the journal for writing, making it if need be.
func OpenJournal(path string, c clock.Clock) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{clock: c, file: f}
	err = func() error {
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		var good int64
		if j.records, good, err = decodeJournal(b); err != nil {
			return err
		}
		if err := f.Truncate(good); err != nil {
			return err
		}
		j.size = good
		return syncDir(filepath.Dir(path))
	}()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), f.Close())
	}
	return j, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.file.Close() }

// Append writes a record and syncs it.
func (j *Journal) Append(r Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(r)
}

func (j *Journal) append(r Record) error {
	r.Time = j.clock.Now().UTC().Round(time.Millisecond)
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	b = append(b, '\n')
	_, err = j.file.WriteAt(b, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// On a full disk a part of the line may be there: nothing may follow it.
		return errors.Join(fmt.Errorf("write journal: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(len(b))
	j.records = append(j.records, r)
	if j.After != nil {
		j.After(r)
	}
	return nil
}

// Creating records resources that are about to be made. Those recorded already are not repeated.
func (j *Journal) Creating(resources ...Resource) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range resources {
		if slices.Contains(Inventory(j.records), r) {
			continue
		}
		if err := j.append(Record{Event: Create, Resource: &r}); err != nil {
			return err
		}
	}
	return nil
}

// Records are all records so far.
func (j *Journal) Records() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.records)
}

// Inventory is what the records say has been made and not removed, in order of making.
func Inventory(records []Record) []Resource {
	var all []Resource
	for _, r := range records {
		switch {
		case r.Resource == nil:
		case r.Event == Create && !slices.Contains(all, *r.Resource):
			all = append(all, *r.Resource)
		case r.Event == Removed:
			all = slices.DeleteFunc(all, func(o Resource) bool { return o == *r.Resource })
		}
	}
	return all
}

// LoadedImages are the IDs of the images that are known to be whole in Podman's store.
func LoadedImages(records []Record) map[string]bool {
	loaded := map[string]bool{}
	for _, r := range records {
		switch {
		case r.Event == Loaded:
			loaded[r.Image] = true
		case r.Event == Removed && r.Resource != nil && r.Resource.Kind == Image:
			delete(loaded, r.Resource.Name)
		}
	}
	return loaded
}

// Operation is what the records say about the last operation.
type Operation struct {
	Name    string    `json:"name"`
	Version string    `json:"version,omitempty"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended,omitzero"` // zero if it was interrupted
	Step    string    `json:"step,omitempty"` // the last that was begun, unless it ended well
	Error   string    `json:"error,omitempty"`
}

// Complete tells whether the operation ended well.
func (o Operation) Complete() bool { return !o.Ended.IsZero() && o.Error == "" }

// LastOperation gives the last operation, and false if there was none.
func LastOperation(records []Record) (Operation, bool) {
	var o Operation
	found := false
	for _, r := range records {
		switch r.Event {
		case Begin:
			o, found = Operation{Name: r.Operation, Version: r.Version, Began: r.Time}, true
		case Enter:
			o.Step = r.Step
		case Failed:
			o.Ended, o.Error, o.Step = r.Time, r.Error, r.Step
		case End:
			o.Ended, o.Step = r.Time, ""
		}
	}
	return o, found
}
