package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata/users"
)

// Database reaches the registry's database over its socket. It implements appliance.Database.
type Database struct {
	Clock clock.Clock
	Log   *slog.Logger
}

func (d *Database) connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read database address: %w", err)
	}
	cfg.RuntimeParams["application_name"] = "quayctl"
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("reach database: %w", err)
	}
	return c, nil
}

// EnsureUser makes the first user.
func (d *Database) EnsureUser(ctx context.Context, dsn, name, email, password string, reset bool) (bool, error) {
	conn, err := d.connect(ctx, dsn)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var hash *string
	err = conn.QueryRow(ctx, `SELECT password_hash FROM "user" WHERE username = $1`, name).Scan(&hash)
	switch {
	case err == nil && hash != nil && users.CheckPassword(*hash, password):
		return true, nil
	case err == nil && !reset:
		return false, nil
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return false, fmt.Errorf("look for user %s: %w", name, err)
	}
	found := err == nil
	made, err := users.HashPassword(password)
	if err != nil {
		return false, fmt.Errorf("password of user %s: %w", name, err)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("make user %s: %w", name, err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if found {
		err = users.ResetPassword(ctx, tx, name, made, d.Clock.Now())
	} else {
		_, err = users.Create(ctx, tx, users.New{Username: name, Email: email, PasswordHash: made, Verified: true, Now: d.Clock.Now()})
	}
	if err != nil {
		return false, fmt.Errorf("make user %s: %w", name, err)
	}
	if err := tx.Commit(ctx); err != nil {
		return false, fmt.Errorf("make user %s: %w", name, err)
	}
	return true, nil
}

// Facts are what status tells of the database.
type Facts struct {
	Revision string // alembic
	Size     int64  // bytes of the database
	Blobs    int64  // bytes of all blobs
	Users    int64
	Repos    int64
}

// Facts asks the database.
func (d *Database) Facts(ctx context.Context, dsn string) (Facts, error) {
	var f Facts
	conn, err := d.connect(ctx, dsn)
	if err != nil {
		return f, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT (SELECT version_num FROM alembic_version),
		pg_database_size(current_database()),
		(SELECT COALESCE(sum(image_size), 0)::bigint FROM imagestorage),
		(SELECT count(*) FROM "user" WHERE NOT organization AND NOT robot),
		(SELECT count(*) FROM repository WHERE state <> 3)`).Scan(&f.Revision, &f.Size, &f.Blobs, &f.Users, &f.Repos)
	if err != nil {
		return f, fmt.Errorf("ask database: %w", err)
	}
	return f, nil
}

// Forget gives a repository to the repository purge of the workers, with the rows of a deletion by a user
// (contract, behaviour.md: the name is free at once, the rest goes in the background), and removes what the action log says of it.
func (d *Database) Forget(ctx context.Context, dsn, namespace, repository string) error {
	conn, err := d.connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var id int64
		err := tx.QueryRow(ctx, `SELECT r.id FROM repository r JOIN "user" u ON u.id = r.namespace_user_id
			WHERE u.username = $1 AND r.name = $2 FOR UPDATE OF r`, namespace, repository).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM logentry3 WHERE repository_id = $1`, id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE repository SET name = $2, state = 3 WHERE id = $1`, id, uuid.NewString()); err != nil {
			return err
		}
		now := d.Clock.Now().UTC()
		var marker int64
		if err := tx.QueryRow(ctx, `INSERT INTO deletedrepository (repository_id, marked, original_name) VALUES ($1, $2, $3) RETURNING id`,
			id, now, repository).Scan(&marker); err != nil {
			return err
		}
		body, err := json.Marshal(map[string]any{"marker_id": marker, "original_name": repository})
		if err != nil {
			return err
		}
		var item int64
		if err := tx.QueryRow(ctx, `INSERT INTO queueitem (queue_name, body, available_after, available, retries_remaining, state_id)
			VALUES ($1, $2, $3, true, 5, $4) RETURNING id`,
			fmt.Sprintf("repositorygc/%s/%d/", namespace, id), string(body), now, uuid.NewString()).Scan(&item); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE deletedrepository SET queue_id = $2 WHERE id = $1`, marker, strconv.FormatInt(item, 10))
		return err
	})
	if err != nil {
		return fmt.Errorf("remove probe repository %s/%s: %w", namespace, repository, err)
	}
	return nil
}
