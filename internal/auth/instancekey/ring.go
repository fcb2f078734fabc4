package instancekey

import (
	"context"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

const (
	// ringAge is how long keys are used before they are read again: a key that was taken back or has expired is
	// refused within this time.
	ringAge = time.Minute
	// ringPause is the least time between two reads because of an unknown key id, so that tokens with invented ids
	// cannot make queries at will.
	ringPause = time.Second
	// ringLimit bounds a read, for which every request with a token waits.
	ringLimit = 10 * time.Second
)

// Ring finds the keys that verify registry tokens: every approved, unexpired key of the service. It is safe for
// concurrent use.
type Ring struct {
	DB      *metadata.DB
	Clock   clock.Clock
	Service string
	Log     *slog.Logger

	mu     sync.Mutex
	keys   map[string]*rsa.PublicKey
	loaded time.Time
	failed time.Time // when the last read failed, with err; zero after one that did not
	err    error
}

// PublicKey returns the key, or nil when no live key has that id.
func (r *Ring) PublicKey(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := r.Clock.Now().Sub(r.loaded)
	key, known := r.keys[kid]
	if known && age < ringAge || !known && r.keys != nil && age < ringPause {
		return key, nil
	}
	// Those who have waited for a read that failed share its error: asking one after the other they would wait for ever.
	if r.err != nil && r.Clock.Now().Sub(r.failed) < ringPause {
		return nil, r.err
	}
	// The keys are everybody's, so that this request's end must not cut the read.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringLimit)
	defer cancel()
	if r.err = r.load(ctx); r.err != nil {
		r.failed = r.Clock.Now()
		return nil, r.err
	}
	return r.keys[kid], nil
}

func (r *Ring) load(ctx context.Context) error {
	now := r.Clock.Now()
	rows, err := r.DB.Read(ctx).LiveServiceKeys(ctx, sqlc.LiveServiceKeysParams{Service: r.Service, Now: &now})
	if err != nil {
		return fmt.Errorf("read service keys: %w", err)
	}
	keys := make(map[string]*rsa.PublicKey, len(rows))
	for _, row := range rows {
		key, err := parseJWK(row.Jwk)
		if err != nil {
			r.Log.WarnContext(ctx, "service key is not usable", "kid", row.Kid, "error", err)
			continue
		}
		keys[row.Kid] = key
	}
	r.keys, r.loaded = keys, now
	return nil
}
