// Command importcatalogue makes ../catalogue.json from the contract's config/schema.json: of each key of
// the legacy server its types, default, pattern and allowed values.
//
//	go run ./internal/config/importcatalogue CONTRACT/config/schema.json > internal/config/catalogue.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// source is what is read of schema.json.
type source struct {
	Required []string `json:"required"`
	Keys     map[string]struct {
		Schema  *schema         `json:"schema"`
		Outside *schema         `json:"schema_outside_properties"`
		Default json.RawMessage `json:"default"`
		AtRead  json.RawMessage `json:"default_at_read"`
	} `json:"keys"`
}

type schema struct {
	Type    json.RawMessage   `json:"type"`
	Pattern string            `json:"pattern"`
	Enum    []json.RawMessage `json:"enum"`
}

// entry is what is written; config.Key reads it.
type entry struct {
	Types    []string          `json:"types,omitempty"`
	Default  json.RawMessage   `json:"default,omitempty"`
	Pattern  string            `json:"pattern,omitempty"`
	Enum     []json.RawMessage `json:"enum,omitempty"`
	Required bool              `json:"required,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "importcatalogue:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: importcatalogue SCHEMA.JSON")
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var src source
	if err := json.Unmarshal(data, &src); err != nil {
		return fmt.Errorf("read %s: %w", os.Args[1], err)
	}
	out := make(map[string]entry, len(src.Keys))
	for name, k := range src.Keys {
		e := entry{Default: k.Default}
		if e.Default == nil && string(k.AtRead) != `"computed"` {
			e.Default = k.AtRead
		}
		s := k.Schema
		if s == nil {
			s = k.Outside
		}
		if s != nil {
			e.Pattern, e.Enum = s.Pattern, s.Enum
			var one string
			if json.Unmarshal(s.Type, &one) == nil && one != "" {
				e.Types = []string{one}
			} else if len(s.Type) > 0 {
				if err := json.Unmarshal(s.Type, &e.Types); err != nil {
					return fmt.Errorf("type of %s: %w", name, err)
				}
			}
		}
		out[name] = e
	}
	for _, name := range src.Required {
		e := out[name]
		e.Required = true
		out[name] = e
	}
	text, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", text)
	return err
}
