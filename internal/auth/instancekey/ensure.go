package instancekey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
	"github.com/quayctl/quayctl/internal/pyjson"
)

// approvedAutomatically is the approval type of instance keys as the legacy server spells it in the column.
const approvedAutomatically = "ServiceKeyApprovalType.AUTOMATIC"

// Paths are the files of the key and its id: cfg INSTANCE_SERVICE_KEY_LOCATION and INSTANCE_SERVICE_KEY_KID_LOCATION, by
// default quay.pem and quay.kid beside the directory that holds config.yaml.
func Paths(c *config.Config, configDir string) (pemPath, kidPath string, err error) {
	pemPath = filepath.Join(filepath.Dir(filepath.Clean(configDir)), "quay.pem")
	kidPath = filepath.Join(filepath.Dir(filepath.Clean(configDir)), "quay.kid")
	for key, path := range map[string]*string{"INSTANCE_SERVICE_KEY_LOCATION": &pemPath, "INSTANCE_SERVICE_KEY_KID_LOCATION": &kidPath} {
		value, ok := c.Other[key]
		if !ok {
			continue
		}
		var text string
		if err := value.Decode(&text); err != nil {
			return "", "", fmt.Errorf("read %s: it is not a path", key)
		}
		if text != "" {
			*path = text
		}
	}
	return pemPath, kidPath, nil
}

// Store keeps the instance key's files and row.
type Store struct {
	DB               *metadata.DB
	Clock            clock.Clock
	Config           *config.Config
	Log              *slog.Logger
	PEMPath, KIDPath string
}

// Ensure returns the instance key, with files and a live row. A key whose row somebody removed is not used again: a new
// one is made, as for a first start. It is what runs before registryd starts; running it again changes nothing but the
// row's expiration. When the registry is read-only, key and row must exist.
func (s *Store) Ensure(ctx context.Context) (*Key, error) {
	key, err := Load(s.PEMPath, s.KIDPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	readOnly := s.Config.RegistryState == "readonly"
	if readOnly && err != nil {
		return nil, fmt.Errorf("%w; a registry in read-only state makes no new key: start it once with REGISTRY_STATE normal", err)
	}
	if err == nil {
		if readOnly {
			return key, s.requireRow(ctx, key)
		}
		extended, err := s.extend(ctx, key.id)
		if err != nil || extended {
			return key, err
		}
		s.Log.InfoContext(ctx, "instance key has no row in the database, making a new one", "kid", key.id)
	}
	if key, err = generate(); err != nil {
		return nil, err
	}
	if err := key.save(s.PEMPath, s.KIDPath); err != nil {
		return nil, err
	}
	if err := s.add(ctx, key); err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "made instance key", "kid", key.id)
	return key, nil
}

// Refresh extends the row's expiration. A row that is gone gives an error: tokens signed with the key no longer verify,
// and the next start makes a new key.
func (s *Store) Refresh(ctx context.Context, key *Key) error {
	extended, err := s.extend(ctx, key.id)
	if err == nil && !extended {
		err = fmt.Errorf("extend instance key %s: its row is gone from the database; restart the registry to make a new key", key.id)
	}
	return err
}

func (s *Store) expiration() *time.Time {
	t := s.Clock.Now().UTC().Add(time.Duration(s.Config.InstanceKeyExpirationMin) * time.Minute)
	return &t
}

func (s *Store) extend(ctx context.Context, kid string) (bool, error) {
	n, err := s.DB.Write(ctx).ExtendServiceKey(ctx, sqlc.ExtendServiceKeyParams{
		ExpirationDate: s.expiration(), Kid: kid, Service: s.Config.InstanceKeyService})
	if err != nil {
		return false, fmt.Errorf("extend instance key: %w", err)
	}
	return n > 0, nil
}

func (s *Store) requireRow(ctx context.Context, key *Key) error {
	now := s.Clock.Now()
	rows, err := s.DB.Read(ctx).LiveServiceKeys(ctx, sqlc.LiveServiceKeysParams{Service: s.Config.InstanceKeyService, Now: &now})
	if err != nil {
		return fmt.Errorf("look up instance key: %w", err)
	}
	for _, r := range rows {
		if r.Kid == key.id {
			return nil
		}
	}
	return fmt.Errorf("instance key %s is not in the database, or has expired; start the registry once with REGISTRY_STATE normal", key.id)
}

func (s *Store) add(ctx context.Context, key *Key) error {
	jwk, err := key.publicJWK()
	if err != nil {
		return fmt.Errorf("write instance key: %w", err)
	}
	details, err := pyjson.Spaced(map[string]any{"created_by": "CLI tool"})
	if err != nil {
		return err
	}
	now := s.Clock.Now().UTC()
	expired, unapproved := now.Add(-time.Duration(s.Config.ExpiredServiceKeyTTLSec)*time.Second), now.Add(-time.Duration(s.Config.UnapprovedServiceKeyTTL)*time.Second)
	err = s.DB.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := sqlc.New(tx)
		if _, err := q.RemoveStaleServiceKeys(ctx, sqlc.RemoveStaleServiceKeysParams{
			Service: s.Config.InstanceKeyService, ExpiredBefore: &expired, UnapprovedBefore: unapproved}); err != nil {
			return err
		}
		approval, err := q.AddServiceKeyApproval(ctx, sqlc.AddServiceKeyApprovalParams{ApprovalType: approvedAutomatically, ApprovedDate: now})
		if err != nil {
			return err
		}
		_, err = q.AddServiceKey(ctx, sqlc.AddServiceKeyParams{
			Name: s.Config.PreferredURLScheme + "://" + s.Config.ServerHostname, Kid: key.id, Service: s.Config.InstanceKeyService,
			Jwk: jwk, Metadata: string(details), CreatedDate: now, ExpirationDate: s.expiration(), ApprovalID: &approval})
		return err
	})
	if err != nil {
		return fmt.Errorf("write instance key to the database: %w", err)
	}
	return nil
}
