package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
	"github.com/spf13/cobra"
)

// Format is the value of --output.
type Format string

// The formats.
const (
	FormatTable Format = "table"
	FormatJSON  Format = "json"
)

// Formats lists the values --output takes.
func Formats() []string { return []string{string(FormatTable), string(FormatJSON)} }

// String implements pflag.Value.
func (f *Format) String() string { return string(*f) }

// Set implements pflag.Value.
func (f *Format) Set(s string) error {
	for _, known := range Formats() {
		if s == known {
			*f = Format(s)
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(Formats(), ", "))
}

// Type implements pflag.Value.
func (f *Format) Type() string { return "table|json" }

// AddOutputFlag gives cmd the flag --output, with completion; *f is FormatTable unless told otherwise.
func AddOutputFlag(cmd *cobra.Command, f *Format) {
	*f = FormatTable
	cmd.Flags().VarP(f, "output", "o", "`format` of the result: table (for people) or json (for programs)")
	// The only error is that the flag does not exist or has a completion already: a programming error.
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(Formats(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

// Schema names the shape of a JSON document: "quayctl/status/v1". A field is never renamed,
// removed or given another meaning within a version; fields may be added.
func Schema(kind string, version int) string { return fmt.Sprintf("quayctl/%s/v%d", kind, version) }

// WriteJSON writes v, which must marshal to an object, as one indented document
// with "schema": "quayctl/<kind>/v<version>" as its first member.
func WriteJSON(w io.Writer, kind string, version int, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // json.Marshal would write & as \u0026
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	body := bytes.TrimSpace(b.Bytes())
	if len(body) < 2 || body[0] != '{' {
		return fmt.Errorf("encode %s: %T is no JSON object", kind, v)
	}
	schema, err := json.Marshal(Schema(kind, version))
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	doc := append([]byte(`{"schema":`), schema...)
	if string(body) != "{}" {
		doc = append(doc, ',')
	}
	doc = append(doc, body[1:]...)
	return writeJSON(w, json.RawMessage(doc))
}

// Table is a plain table: columns aligned with two spaces between, the head in bold on a terminal.
// Off a terminal columns are the same, so that output in a log reads as on a screen.
type Table struct {
	head []string
	rows [][]string
}

// NewTable returns a table with these column heads, written in capitals.
func NewTable(head ...string) *Table { return &Table{head: head} }

// Row adds a row; missing cells are empty.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Write writes the table to Out of io.
func (t *Table) Write(io *iostreams.IOStreams) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(t.head, "\t"))+"\t")
	for _, r := range t.rows {
		fmt.Fprintln(w, strings.Join(r, "\t")+"\t")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	p := io.OutPalette()
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		if i == 0 {
			line = p.Bold(line)
		}
		if _, err := fmt.Fprintln(io.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// Bytes writes a size for people, in powers of 1024: "512 B", "1.5 GiB".
func Bytes(n int64) string {
	const unit = 1024
	if n < unit && n > -unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n), -1
	for v >= unit || v <= -unit {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}
