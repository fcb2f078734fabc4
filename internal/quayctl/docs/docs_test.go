package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const root = "../../.."

// TestFresh fails when docs/ is not what the program says today.
func TestFresh(t *testing.T) {
	want := Files()
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil || string(got) != text {
			t.Errorf("docs/%s is stale: run make generate (%v)", name, err)
		}
	}
	pages, err := os.ReadDir(filepath.Join(root, "docs", "quayctl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if _, ok := want["quayctl/"+p.Name()]; !ok {
			t.Errorf("docs/quayctl/%s is about a command that is no more: run make generate", p.Name())
		}
	}
}

// TestLinks follows every link from a page of docs/ to a file.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	pages := 0
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pages++
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
		return nil
	})
	if err != nil || pages == 0 {
		t.Fatalf("%d pages, %v", pages, err)
	}
}

// streams are the commands that pass on text of other origin, or write scripts and help texts: --output has no meaning there.
var streams = []string{"quayctl logs", "quayctl completion", "quayctl help"}

// TestCommands holds every command to what users may expect of all of them.
func TestCommands(t *testing.T) {
	scripts := script(t)
	Walk(Tree(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q; write a phrase without a full stop", path, cmd.Short)
		}
		if cmd.Long == "" && cmd.Example == "" {
			t.Errorf("%s has neither a longer text nor an example", path)
		}
		for line := range strings.Lines(cmd.Example) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.Contains(line, path) && !strings.HasPrefix(line, "openssl ") {
				t.Errorf("%s: the example %q is not about it", path, line)
			}
		}
		cmd.Flags().VisitAll(func(fl *pflag.Flag) {
			if fl.Usage == "" {
				t.Errorf("%s: --%s has no text", path, fl.Name)
			}
			if fl.Value.Type() != "bool" && !strings.Contains(fl.Usage, "`") {
				t.Errorf("%s: the text of --%s does not name its value in backquotes", path, fl.Name)
			}
		})
		if cmd.HasSubCommands() {
			return
		}
		if fl := cmd.Flags().Lookup("output"); fl == nil != slices.Contains(streams, path) {
			t.Errorf("%s: --output is there: %t", path, fl != nil)
		} else if fl != nil && (fl.Shorthand != "o" || fl.Value.Type() != "table|json") {
			t.Errorf("%s: --output is not the flag of all other commands", path)
		}
		for _, form := range []string{"exec " + path, "exits 2 " + path} {
			if !regexp.MustCompile(`(?m)^`+form+`\b`).MatchString(scripts) && !strings.Contains(scripts, "exec quayctl help "+strings.TrimPrefix(path, "quayctl ")) {
				t.Errorf("no script in testdata/scripts has %q", form)
			}
		}
	})
}

func script(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "testdata", "scripts", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// TestJSONKeys looks at every structure that quayctl writes as JSON, on standard output or into its files: keys are in
// snake_case, and documents are written by cli.WriteJSON, which puts the schema first.
func TestJSONKeys(t *testing.T) {
	// Documents of other people's making: SPDX.
	foreign := []string{"internal/bundle/sbom.go"}
	snake := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	keys := 0
	for _, room := range []string{"internal/quayctl", "internal/appliance", "internal/preflight", "internal/bundle"} {
		err := filepath.WalkDir(filepath.Join(root, room), func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(root, path)
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || slices.Contains(foreign, name) {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Field:
					if n.Tag == nil {
						break
					}
					text, err := strconv.Unquote(n.Tag.Value)
					if err != nil {
						t.Fatal(err)
					}
					tag, ok := reflect.StructTag(text).Lookup("json")
					key, _, _ := strings.Cut(tag, ",")
					if ok && key != "" && key != "-" {
						keys++
						if !snake.MatchString(key) {
							t.Errorf("%s: the JSON key %q is not in snake_case", name, key)
						}
					}
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "json" && (n.Sel.Name == "Marshal" || n.Sel.Name == "MarshalIndent" || n.Sel.Name == "NewEncoder") &&
						strings.HasPrefix(name, "internal/quayctl/") && !strings.HasPrefix(name, "internal/quayctl/cli/") {
						t.Errorf("%s uses json.%s: write documents by cli.WriteJSON", name, n.Sel.Name)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if keys < 50 {
		t.Errorf("only %d keys were found: the test would pass on nothing", keys)
	}
}
