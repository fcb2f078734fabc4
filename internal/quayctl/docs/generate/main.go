// Command generate writes the generated files into the directory docs/ that is its argument, and removes pages of commands
// that are no more.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/quayctl/quayctl/internal/quayctl/docs"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate docs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("give the directory to write to, not %d arguments", len(args))
	}
	pages := filepath.Join(args[0], "quayctl")
	if err := os.RemoveAll(pages); err != nil { //nolint:gosec // the argument says where to write
		return err
	}
	if err := os.MkdirAll(pages, 0o755); err != nil { //nolint:gosec // documentation is for everyone
		return err
	}
	for name, text := range docs.Files() {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil { //nolint:gosec // likewise
			return err
		}
	}
	return nil
}
