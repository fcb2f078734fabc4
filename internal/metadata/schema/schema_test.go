package schema_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const recorded = "../../../test/contract/schema/"

// catalogue is what the recorded query says of a database, in canonical form.
func catalogue(t *testing.T, db *pgtest.DB) any {
	t.Helper()
	query, err := os.ReadFile(recorded + "catalog.sql")
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	if err := db.Super().QueryRow(context.Background(), string(query)).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAnEmptyDatabaseBecomesTheRecordedSchema(t *testing.T) {
	want, err := os.ReadFile(recorded + "catalog.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decode(t, want), catalogue(t, pgtest.New(t))); diff != "" {
		t.Error(diff)
	}
}
