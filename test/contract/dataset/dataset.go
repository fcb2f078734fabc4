// Package dataset holds the recorded rows of a populated legacy database, for tests.
package dataset

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
)

//go:embed populated.sql.gz
var populated []byte

// SQL is one script, without psql commands, that empties every table of a database at the legacy head, loads the
// recorded rows and sets the sequences, in one transaction. It needs a superuser, and the simple protocol.
func SQL() (string, error) {
	r, err := gzip.NewReader(bytes.NewReader(populated))
	if err != nil {
		return "", fmt.Errorf("read recorded dataset: %w", err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("read recorded dataset: %w", err)
	}
	return string(text), nil
}
