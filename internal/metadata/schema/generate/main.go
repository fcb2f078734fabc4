// Command generate writes the baseline migration from the recorded catalogue and seed rows of the
// legacy schema (test/contract/schema/catalog.json and seed.json).
//
// The result is committed; it never changes unless the recorded head changes. Order within the file:
// extension, tables, seed rows, sequences, indexes, foreign keys, each by name, so that rows are loaded
// before they are indexed and no foreign key names a table that is not there yet.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

type catalogue struct {
	Head       string              `json:"alembic_head"`
	Extensions []string            `json:"extensions"`
	Tables     map[string]table    `json:"tables"`
	Sequences  map[string]sequence `json:"sequences"`
	Views      []string            `json:"views"`
	Types      []string            `json:"types"`
	Functions  []string            `json:"functions_outside_extensions"`
}

type table struct {
	Columns     []column     `json:"columns"`
	PrimaryKey  *index       `json:"primary_key"`
	Indexes     []index      `json:"indexes"`
	ForeignKeys []foreignKey `json:"foreign_keys"`
	Checks      []any        `json:"checks"`
	Triggers    []string     `json:"triggers"`
}

type column struct {
	Name     string  `json:"name"`
	Type     string  `json:"type"`
	Nullable bool    `json:"nullable"`
	Default  *string `json:"default"`
	Sequence *string `json:"sequence"`
}

type index struct {
	Name       string     `json:"name"`
	Method     string     `json:"method"`
	Unique     bool       `json:"unique"`
	Constraint string     `json:"constraint"`
	Columns    []indexKey `json:"columns"`
	Predicate  string     `json:"predicate"`
}

type indexKey struct {
	Expr    string `json:"expr"`
	Opclass string `json:"opclass"`
	Order   string `json:"order"`
	Nulls   string `json:"nulls"`
}

type foreignKey struct {
	Name          string   `json:"name"`
	Columns       []string `json:"columns"`
	Target        string   `json:"target"`
	TargetColumns []string `json:"target_columns"`
	OnDelete      string   `json:"on_delete"`
	OnUpdate      string   `json:"on_update"`
	Deferrable    bool     `json:"deferrable"`
	Validated     bool     `json:"validated"`
}

type sequence struct {
	Type      string      `json:"type"`
	OwnedBy   string      `json:"owned_by"`
	Start     json.Number `json:"start"`
	Increment json.Number `json:"increment"`
	Cycle     bool        `json:"cycle"`
	Cache     json.Number `json:"cache"`
}

type seed struct {
	Head string                       `json:"alembic_head"`
	Rows map[string][]json.RawMessage `json:"rows"`
}

// serials are the column types that make a sequence named <table>_<column>_seq, owned by the column.
var serials = map[string]string{"integer": "serial", "bigint": "bigserial"}

// defaultOpclasses are PostgreSQL's own choices, which need no mention in CREATE INDEX.
var defaultOpclasses = map[string]bool{
	"bool_ops": true, "date_ops": true, "int4_ops": true, "int8_ops": true, "text_ops": true, "timestamp_ops": true,
}

func main() {
	from := flag.String("contract", "../../../test/contract/schema", "directory of catalog.json and seed.json")
	to := flag.String("out", "migrations/00001_legacy.sql", "file to write")
	flag.Parse()
	if err := run(*from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	var c catalogue
	if err := load(filepath.Join(from, "catalog.json"), &c); err != nil {
		return err
	}
	var s seed
	if err := load(filepath.Join(from, "seed.json"), &s); err != nil {
		return err
	}
	if c.Head != s.Head {
		return fmt.Errorf("catalog.json is of revision %s, seed.json of %s", c.Head, s.Head)
	}
	sql, err := render(c, s)
	if err != nil {
		return err
	}
	return os.WriteFile(to, sql, 0o644)
}

func load(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func render(c catalogue, s seed) ([]byte, error) {
	if len(c.Views)+len(c.Types)+len(c.Functions) > 0 {
		return nil, fmt.Errorf("catalogue has views, types or functions, which this generator does not write")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "-- The complete legacy schema at alembic revision %s. Written by schema/generate from the recorded\n", c.Head)
	b.WriteString("-- catalogue: do not edit, a database in the field equals it to the letter.\n\n")
	b.WriteString("-- +goose Up\n\n")
	for _, name := range c.Extensions {
		fmt.Fprintf(&b, "CREATE EXTENSION IF NOT EXISTS %s WITH SCHEMA public;\n", quote(name))
	}
	names := slices.Sorted(maps.Keys(c.Tables))
	serial := map[string]bool{}
	for _, name := range names {
		if err := renderTable(&b, name, c.Tables[name], c.Sequences, serial); err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
	}
	for name := range c.Sequences {
		if !serial[name] {
			return nil, fmt.Errorf("sequence %s belongs to no serial column", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Rows)) {
		if err := renderSeed(&b, name, c.Tables[name], s.Rows[name]); err != nil {
			return nil, fmt.Errorf("seed of %s: %w", name, err)
		}
	}
	b.WriteString("\n")
	for _, name := range names {
		for _, x := range c.Tables[name].Indexes {
			if err := renderIndex(&b, name, x); err != nil {
				return nil, fmt.Errorf("index %s: %w", x.Name, err)
			}
		}
	}
	b.WriteString("\n")
	for _, name := range names {
		for _, k := range c.Tables[name].ForeignKeys {
			if k.OnDelete != "a" || k.OnUpdate != "a" || k.Deferrable || !k.Validated {
				return nil, fmt.Errorf("foreign key %s has actions or is deferrable, which this generator does not write", k.Name)
			}
			fmt.Fprintf(&b, "ALTER TABLE %s ADD CONSTRAINT %s FOREIGN KEY (%s) REFERENCES %s (%s);\n",
				quote(name), quote(k.Name), list(k.Columns), quote(k.Target), list(k.TargetColumns))
		}
	}
	return b.Bytes(), nil
}

func renderTable(b *bytes.Buffer, name string, t table, sequences map[string]sequence, serial map[string]bool) error {
	if len(t.Checks)+len(t.Triggers) > 0 {
		return fmt.Errorf("has checks or triggers, which this generator does not write")
	}
	// A column that was widened later keeps the sequence of its narrower days: such a pair is written out,
	// as the serial types would make both equal.
	var owned []string
	b.WriteString("\n")
	for _, col := range t.Columns {
		if col.Sequence == nil {
			continue
		}
		sequenceName := name + "_" + col.Name + "_seq"
		have, ok := sequences[sequenceName]
		plain := sequence{Type: have.Type, OwnedBy: name + "." + col.Name, Start: "1", Increment: "1", Cache: "1"}
		if !ok || have != plain {
			return fmt.Errorf("column %s: its sequence is unlike any this generator writes: %+v", col.Name, have)
		}
		serial[sequenceName] = true
		if have.Type != col.Type {
			fmt.Fprintf(b, "CREATE SEQUENCE %s AS %s;\n", sequenceName, have.Type)
			owned = append(owned, fmt.Sprintf("ALTER SEQUENCE %s OWNED BY %s.%s;\n", sequenceName, quote(name), quote(col.Name)))
		}
	}
	fmt.Fprintf(b, "CREATE TABLE %s (\n", quote(name))
	for i, col := range t.Columns {
		if i > 0 {
			b.WriteString(",\n")
		}
		sequenceName := name + "_" + col.Name + "_seq"
		isSerial := col.Sequence != nil && sequences[sequenceName].Type == col.Type
		typ := col.Type
		if isSerial {
			typ = serials[col.Type]
		}
		fmt.Fprintf(b, "    %s %s", quote(col.Name), typ)
		if !col.Nullable {
			b.WriteString(" NOT NULL")
		}
		if col.Default != nil && !isSerial {
			fmt.Fprintf(b, " DEFAULT %s", *col.Default)
		}
	}
	if t.PrimaryKey != nil {
		keys := make([]string, len(t.PrimaryKey.Columns))
		for i, k := range t.PrimaryKey.Columns {
			keys[i] = k.Expr
		}
		fmt.Fprintf(b, ",\n    CONSTRAINT %s PRIMARY KEY (%s)", quote(t.PrimaryKey.Name), strings.Join(keys, ", "))
	}
	b.WriteString("\n);\n")
	b.WriteString(strings.Join(owned, ""))
	return nil
}

func renderSeed(b *bytes.Buffer, name string, t table, rows []json.RawMessage) error {
	columns := make([]string, len(t.Columns))
	hasID := false
	for i, col := range t.Columns {
		columns[i] = col.Name
		hasID = hasID || col.Sequence != nil && col.Name == "id"
	}
	fmt.Fprintf(b, "\nINSERT INTO %s (%s) VALUES\n", quote(name), list(columns))
	for i, row := range rows {
		if i > 0 {
			b.WriteString(",\n")
		}
		values := map[string]any{}
		decoder := json.NewDecoder(bytes.NewReader(row))
		decoder.UseNumber()
		if err := decoder.Decode(&values); err != nil {
			return err
		}
		if len(values) != len(columns) {
			return fmt.Errorf("row %s has not the table's %d columns", row, len(columns))
		}
		literals := make([]string, len(columns))
		for j, col := range columns {
			switch v := values[col].(type) {
			case nil:
				literals[j] = "NULL"
			case string:
				literals[j] = "'" + strings.ReplaceAll(v, "'", "''") + "'"
			case bool, json.Number:
				literals[j] = fmt.Sprint(v)
			default:
				return fmt.Errorf("column %s: value %v of type %T", col, v, v)
			}
		}
		fmt.Fprintf(b, "    (%s)", strings.Join(literals, ", "))
	}
	b.WriteString(";\n")
	if hasID {
		fmt.Fprintf(b, "SELECT setval('%s_id_seq', (SELECT max(id) FROM %s));\n", name, quote(name))
	}
	return nil
}

func renderIndex(b *bytes.Buffer, tableName string, x index) error {
	if x.Constraint != "" {
		return fmt.Errorf("belongs to a constraint of kind %s, which this generator does not write", x.Constraint)
	}
	keys := make([]string, len(x.Columns))
	for i, k := range x.Columns {
		keys[i] = k.Expr
		if !defaultOpclasses[k.Opclass] {
			keys[i] += " " + k.Opclass
		}
		if k.Order == "desc" {
			keys[i] += " DESC"
		}
		if k.Nulls != "" {
			keys[i] += " NULLS " + strings.ToUpper(k.Nulls)
		}
	}
	unique, using, where := "", "", ""
	if x.Unique {
		unique = "UNIQUE "
	}
	if x.Method != "btree" {
		using = "USING " + x.Method + " "
	}
	if x.Predicate != "" {
		where = " WHERE " + x.Predicate
	}
	fmt.Fprintf(b, "CREATE %sINDEX %s ON %s %s(%s)%s;\n", unique, quote(x.Name), quote(tableName), using, strings.Join(keys, ", "), where)
	return nil
}

func list(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ", ")
}

// reserved are the words among the schema's names that PostgreSQL does not take bare.
var reserved = map[string]bool{"user": true, "default": true, "order": true, "end": true}

func quote(name string) string {
	plain := !reserved[name] && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
