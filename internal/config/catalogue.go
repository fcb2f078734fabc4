package config

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"
)

// catalogueJSON names every key of the legacy server; importcatalogue makes it from the contract.
//
//go:embed catalogue.json
var catalogueJSON []byte

// key is what the catalogue knows of one key.
type key struct {
	Types    []string          `json:"types"`
	Default  json.RawMessage   `json:"default"`
	Pattern  string            `json:"pattern"`
	Enum     []json.RawMessage `json:"enum"`
	Required bool              `json:"required"`
}

// catalogue reads the embedded catalogue. It is read only when a file has keys that Config lacks.
func catalogue() (map[string]key, error) {
	var keys map[string]key
	if err := json.Unmarshal(catalogueJSON, &keys); err != nil {
		return nil, fmt.Errorf("read the catalogue of keys: %w", err)
	}
	return keys, nil
}

// Documented is the documentation of one key.
type Documented struct {
	Key string `json:"key"`
	// Type is text, true/false, whole number, list, mapping, time span, size, secret or address.
	Type string `json:"type"`
	// Default is in YAML; null is none.
	Default string `json:"default"`
	Text    string `json:"text"`
}

// Documentation tells about every key that the daemons use, in the order of Config.
func Documentation() []Documented {
	var out []Documented
	for f := range new(Config).fields() {
		out = append(out, Documented{f.key, typeName(f.value), f.def, f.doc})
	}
	return out
}

func typeName(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration:
		return "time span"
	case Size:
		return "size"
	case Secret:
		return "secret"
	case URI:
		return "address"
	case Storage:
		return "mapping"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true/false"
	case reflect.Int64:
		return "whole number"
	case reflect.Slice:
		return "list"
	case reflect.String:
		return "text"
	default:
		return "mapping"
	}
}
