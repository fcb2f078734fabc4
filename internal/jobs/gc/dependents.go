package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// chunk is how many rows go in one transaction.
const chunk = 500

// reference is a foreign key of one column.
type reference struct {
	table, column string // the row that refers; names quoted where SQL needs it
}

// emptied are the references whose rows say something without what they refer to: the column becomes null. With any
// other reference the row goes, as in the legacy server.
var emptied = []reference{
	{"servicekeyapproval", "approver_id"},
	{"repositorybuild", "pull_robot_id"},
	{"repositorybuild", "trigger_id"},
	{"repositorybuildtrigger", "pull_robot_id"},
}

// removeWithDependents removes a row with all rows that refer to it, and those that refer to these, as the catalogue
// says. They go in chunks; the row itself goes last, together with its marker, so that an interrupted removal is found
// again.
func (c *Collector) removeWithDependents(ctx context.Context, table string, id int64, marker string) error {
	graph, err := c.references(ctx)
	if err != nil {
		return err
	}
	for _, r := range graph[table] {
		if r.table == marker {
			continue
		}
		for {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := 0
			err := c.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
				n, err = graph.remove(ctx, tx, r, []int64{id})
				return err
			})
			if err != nil {
				return err
			}
			if n < chunk {
				break
			}
		}
	}
	return c.removeRow(ctx, graph, table, id)
}

func (c *Collector) removeRow(ctx context.Context, graph references, table string, id int64) error {
	return c.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error { return graph.removeRows(ctx, tx, table, []int64{id}) })
}

// references are the foreign keys by the table they refer to.
type references map[string][]reference

func (c *Collector) references(ctx context.Context) (references, error) {
	rows, err := c.DB.Writer().Query(ctx, `
SELECT f.confrelid::regclass::text, f.conrelid::regclass::text, quote_ident(a.attname)
FROM pg_constraint f
JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
WHERE f.contype = 'f' AND f.connamespace = current_schema()::regnamespace AND cardinality(f.conkey) = 1
ORDER BY 2, 3`)
	if err != nil {
		return nil, fmt.Errorf("read foreign keys: %w", err)
	}
	graph := references{}
	var to string
	var from reference
	_, err = pgx.ForEachRow(rows, []any{&to, &from.table, &from.column}, func() error {
		graph[to] = append(graph[to], from)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read foreign keys: %w", err)
	}
	return graph, nil
}

// remove removes up to a chunk of the rows that refer to ids, and tells how many there were.
func (g references) remove(ctx context.Context, tx pgx.Tx, r reference, ids []int64) (int, error) {
	if slices.Contains(emptied, r) {
		_, err := tx.Exec(ctx, fmt.Sprintf("UPDATE %s SET %s = NULL WHERE %[2]s = ANY($1)", r.table, r.column), ids)
		if err != nil {
			return 0, fmt.Errorf("empty %s.%s: %w", r.table, r.column, err)
		}
		return 0, nil
	}
	rows, err := tx.Query(ctx, fmt.Sprintf("SELECT id::bigint FROM %s WHERE %s = ANY($1) ORDER BY id LIMIT %d", r.table, r.column, chunk), ids)
	if err != nil {
		return 0, fmt.Errorf("look up %s.%s: %w", r.table, r.column, err)
	}
	children, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("look up %s.%s: %w", r.table, r.column, err)
	}
	if len(children) == 0 {
		return 0, nil
	}
	if r.table == "repository" {
		return 0, errors.New("a repository was made in it meanwhile")
	}
	return len(children), g.removeRows(ctx, tx, r.table, children)
}

// removeRows removes rows and what refers to them.
func (g references) removeRows(ctx context.Context, tx pgx.Tx, table string, ids []int64) error {
	for _, r := range g[table] {
		for {
			n, err := g.remove(ctx, tx, r, ids)
			if err != nil {
				return err
			}
			if n < chunk {
				break
			}
		}
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE id = ANY($1)", table), ids); err != nil {
		return fmt.Errorf("delete from %s: %w", table, err)
	}
	return nil
}
