package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"

	"github.com/quayctl/quayctl/internal/clock"
)

const (
	// rememberFor is how long a password that matched its hash is believed without hashing again.
	rememberFor = time.Minute
	// rememberMost bounds the memory; beyond it everything is forgotten.
	rememberMost = 4096
	// bcryptBytes is how much of a password bcrypt uses; the legacy server cuts silently.
	bcryptBytes = 72
)

// passwords compares passwords with bcrypt hashes. Hashing is slow by design, and clients send the same password with each
// request for a token, so that a match is remembered for a short time: under an HMAC with a key of this process over
// hash and password, from which neither can be had, and which a changed password leaves behind.
type passwords struct {
	clock clock.Clock
	key   []byte
	// slots bounds how many are hashed at the same time: strangers who send passwords must not take every processor from
	// those who pull.
	slots chan struct{}
	// once shares the work of equal questions asked at the same time.
	once singleflight.Group

	mu    sync.Mutex
	known map[[sha256.Size]byte]time.Time // to the time it is forgotten
}

func newPasswords(c clock.Clock) (*passwords, error) {
	key := make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make key for passwords in memory: %w", err)
	}
	slots := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))
	return &passwords{clock: c, key: key, slots: slots, known: map[[sha256.Size]byte]time.Time{}}, nil
}

// match tells whether hash was made of password. An error is a hash that is none, or ctx's when it ended before it was the
// password's turn.
func (p *passwords) match(ctx context.Context, hash, password string) (bool, error) {
	if strings.ContainsRune(password, 0) {
		return false, nil // bcrypt ends a password there
	}
	mac := hmac.New(sha256.New, p.key)
	fmt.Fprintf(mac, "%d:%s%s", len(hash), hash, password)
	var id [sha256.Size]byte
	mac.Sum(id[:0])
	if p.remembered(id) {
		return true, nil
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if p.remembered(id) { // meanwhile
		return true, nil
	}
	result, err, _ := p.once.Do(string(id[:]), func() (any, error) {
		text := []byte(password)
		if len(text) > bcryptBytes {
			text = text[:bcryptBytes]
		}
		err := bcrypt.CompareHashAndPassword([]byte(hash), text)
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("compare password: %w", err)
		}
		p.remember(id)
		return true, nil
	})
	return result == true, err
}

func (p *passwords) remembered(id [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.known[id]
	return ok && p.clock.Now().Before(until)
}

func (p *passwords) remember(id [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= rememberMost {
		clear(p.known)
	}
	p.known[id] = p.clock.Now().Add(rememberFor)
}
