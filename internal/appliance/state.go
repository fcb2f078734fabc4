package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// StateSchema is the version of state.json that this code writes and the newest that it reads.
const StateSchema = 1

// State is what is installed, in state.json. It is there once an installation is complete.
type State struct {
	Schema    int                   `json:"schema"`
	Version   string                `json:"version"`
	Profile   string                `json:"profile"`
	Installed time.Time             `json:"installed"`
	Updated   time.Time             `json:"updated"`
	Hostname  string                `json:"hostname"`
	Port      int                   `json:"port"`
	User      string                `json:"user"` // the first user
	Images    map[string]ImageState `json:"images"`
	// Slot is the edge that runs.
	Slot       string            `json:"slot"`
	Components []ComponentState  `json:"components"`
	Units      map[string]string `json:"units"` // SHA-256 of each unit file as rendered
	OwnCA      bool              `json:"own_ca"`
	Inventory  []Resource        `json:"inventory"`
}

// ImageState is an image that the installation runs.
type ImageState struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Digest string `json:"digest"`
}

// ComponentState is a component of the installation.
type ComponentState struct {
	Name    string   `json:"name"`
	Image   string   `json:"image"` // component whose image it runs
	Slots   []string `json:"slots,omitempty"`
	Oneshot bool     `json:"oneshot,omitempty"`
}

// URL is where clients reach the registry.
func (s *State) URL() string { return "https://" + ServerHostname(s.Hostname, s.Port) }

// ReadState reads state.json; the error is fs.ErrNotExist if there is none.
func ReadState(l Layout) (*State, error) {
	b, err := os.ReadFile(l.StateFile())
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("read state %s: %w", l.StateFile(), err)
	}
	if head.Schema < 1 || head.Schema > StateSchema {
		return nil, fmt.Errorf("read state %s: schema version %d is newer than this quayctl knows (%d); use the quayctl of the installation, %s", l.StateFile(), head.Schema, StateSchema, l.Binary)
	}
	s := &State{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read state %s: %w", l.StateFile(), err)
	}
	return s, nil
}

// Write replaces state.json durably.
func (s *State) Write(l Layout) error {
	s.Schema = StateSchema
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return writeFile(l.StateFile(), append(b, '\n'), 0o600)
}

// Installed tells whether a complete installation is at l.
func Installed(l Layout) (bool, error) {
	_, err := os.Lstat(l.StateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
