package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// FileName is the file inside a configuration directory.
const FileName = "config.yaml"

// Load reads config.yaml in dir and lays the environment over it. Values of a wrong type are errors here;
// everything else that may be wrong with the settings is told by Validate.
func Load(dir string) (*Config, error) { return LoadEnv(dir, os.Getenv) }

// LoadEnv is Load with another environment.
func LoadEnv(dir string, getenv func(string) string) (*Config, error) {
	path := filepath.Join(dir, FileName)
	c, err := LoadFile(path)
	if err != nil {
		return nil, err
	}
	if err := c.override(getenv); err != nil {
		return nil, err
	}
	if len(c.mistyped) > 0 {
		return nil, fmt.Errorf("read %s: %w", path, Problems(c.mistyped))
	}
	return c, nil
}

// LoadFile reads one file, without the environment. A key of a wrong type keeps its default and is told
// by Validate. Errors: the file cannot be read, is no YAML, or no mapping.
func LoadFile(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads the text of a config.yaml.
func Parse(data []byte) (*Config, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	c := Default()
	if doc.Kind == 0 { // nothing but comments
		return c, nil
	}
	top := resolve(doc.Content[0])
	if top.Kind != yaml.MappingNode {
		return nil, errors.New("must be a mapping of keys to values")
	}
	values := map[string]*yaml.Node{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		values[top.Content[i].Value] = resolve(top.Content[i+1]) // the last of equal keys wins, as in PyYAML
	}
	if err := c.set(values); err != nil {
		return nil, err
	}
	return c, nil
}

// Default returns the configuration of an empty file.
func Default() *Config {
	c := &Config{Other: map[string]Opaque{}, given: map[string]bool{}}
	for f := range c.fields() {
		if err := yaml.Unmarshal([]byte(f.def), f.value.Addr().Interface()); err != nil {
			panic(fmt.Sprintf("config: default of %s: %v", f.key, err)) // a test reads them all
		}
	}
	return c
}

// Given tells whether the file or the environment sets key.
func (c *Config) Given(key string) bool { return c.given[key] }

// LogWarnings writes one line for all keys that neither this program nor the legacy server knows.
func (c *Config) LogWarnings(log *slog.Logger) {
	if len(c.unknown) > 0 {
		log.Warn("config.yaml has unknown keys, they are kept and ignored; check their spelling", "keys", c.unknown)
	}
}

// Unknown are the keys that neither this program nor the legacy server knows, sorted.
func (c *Config) Unknown() []string { return slices.Clone(c.unknown) }

// field is one key of Config, found by reflection.
type field struct {
	key, def, doc string
	value         reflect.Value
}

// fields yields every key of the structure in its order.
func (c *Config) fields() iter.Seq[field] {
	return func(yield func(field) bool) {
		for _, v := range []reflect.Value{reflect.ValueOf(c).Elem(), reflect.ValueOf(&c.Features).Elem()} {
			for i := range v.NumField() {
				f := v.Type().Field(i)
				key, ok := f.Tag.Lookup("key")
				if ok && !yield(field{key, f.Tag.Get("default"), f.Tag.Get("doc"), v.Field(i)}) {
					return
				}
			}
		}
	}
}

// set lays values over c. Only keys in upper case count.
func (c *Config) set(values map[string]*yaml.Node) error {
	for key := range values {
		if key != strings.ToUpper(key) || key == "" {
			delete(values, key)
			continue
		}
		c.given[key] = true
	}
	for f := range c.fields() {
		n, ok := values[f.key]
		if !ok {
			continue
		}
		delete(values, f.key)
		if err := decode(n, f.value); err != nil {
			c.mistyped = append(c.mistyped, Problem{
				Key: f.key, Value: shownNode(n, f.value), Cause: cause(err, f.value.Type()),
				Remedy: "correct the value; " + lowerFirst(f.doc),
			})
		}
	}
	if len(values) == 0 {
		return nil
	}
	known, err := catalogue()
	if err != nil {
		return err
	}
	for key, n := range values {
		c.Other[key] = Opaque{n}
		if _, ok := known[key]; !ok && !dynamicKey(key) && !slices.Contains(c.unknown, key) {
			c.unknown = append(c.unknown, key)
		}
	}
	slices.Sort(c.unknown)
	return nil
}

// dynamicKey tells whether the administrator chooses the key: <NAME>_LOGIN_CONFIG.
func dynamicKey(key string) bool { return strings.HasSuffix(key, "_LOGIN_CONFIG") }

// decode reads n into a fresh value and then stores it, so that a failure leaves the default; null keeps
// the zero value of the type, as None in the legacy server.
func decode(n *yaml.Node, into reflect.Value) error {
	fresh := reflect.New(into.Type())
	if into.Kind() == reflect.String && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		fresh.Elem().SetString(n.Value) // a number or a date where text belongs is text
	} else if err := n.Decode(fresh.Interface()); err != nil {
		return err
	}
	into.Set(fresh.Elem())
	return nil
}

// cause is what is wrong with a value, without YAML's line prefix and without the value itself.
func cause(err error, t reflect.Type) string {
	var typeError *yaml.TypeError
	if !errors.As(err, &typeError) {
		return err.Error()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "must be true or false"
	case reflect.Int64, reflect.Int:
		return "must be a whole number"
	case reflect.Slice:
		return "must be a list"
	case reflect.String:
		return "must be text"
	default:
		return "must be a mapping"
	}
}

// shownNode is a value as a message may show it: only scalars of fields that hold no secret.
func shownNode(n *yaml.Node, into reflect.Value) string {
	switch into.Interface().(type) {
	case bool, int64, string, Duration, Size:
		if n.Kind == yaml.ScalarNode {
			return n.Value
		}
		return ""
	default:
		return Redacted
	}
}

func lowerFirst(s string) string {
	if s == "" || len(s) > 1 && s[1] >= 'A' && s[1] <= 'Z' {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// override lays the environment over the file.
func (c *Config) override(getenv func(string) string) error {
	if text := getenv("QUAY_OVERRIDE_CONFIG"); text != "" {
		var raw map[string]any
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&raw); err != nil {
			return errors.New("environment variable QUAY_OVERRIDE_CONFIG is not a JSON object; correct or unset it")
		}
		values := map[string]*yaml.Node{}
		for key, value := range raw {
			// Written anew, JSON is YAML: the escapes that only JSON knows are gone.
			text, err := json.Marshal(value)
			if err != nil {
				return fmt.Errorf("environment variable QUAY_OVERRIDE_CONFIG: value of %s: %w", key, err)
			}
			var doc yaml.Node
			if err := yaml.Unmarshal(text, &doc); err != nil {
				return fmt.Errorf("environment variable QUAY_OVERRIDE_CONFIG: value of %s cannot be read", key)
			}
			values[key] = doc.Content[0]
		}
		if err := c.set(values); err != nil {
			return err
		}
	}
	if text := getenv("QUAY_DISTRIBUTED_STORAGE_PREFERENCE"); text != "" {
		c.StoragePreference = strings.Fields(text)
		c.given["DISTRIBUTED_STORAGE_PREFERENCE"] = true
	}
	return nil
}
