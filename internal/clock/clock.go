// Package clock is the one source of time for every daemon.
//
// No daemon calls time.Now for anything that reaches a row, a token, a header
// or a schedule: recordings carry dates, and tests must be able to jump.
package clock

import (
	"context"
	"sync"
	"time"
)

// Clock tells the time and waits. Implementations are safe for concurrent use.
type Clock interface {
	// Now is the present, with a monotonic reading only on the real clock.
	Now() time.Time
	// Sleep returns nil after d has passed on this clock, or ctx's error if ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// Real is the machine's clock.
type Real struct{}

// Now implements Clock.
func (Real) Now() time.Time { return time.Now() }

// Sleep implements Clock.
func (Real) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fake is a clock that stands still until it is moved.
type Fake struct {
	mu      sync.Mutex
	now     time.Time
	waiters map[chan struct{}]time.Time
	arrived chan struct{} // closed and made anew when a sleeper arrives
}

// NewFake returns a clock that stands at t.
func NewFake(t time.Time) *Fake {
	return &Fake{now: t, waiters: map[chan struct{}]time.Time{}, arrived: make(chan struct{})}
}

// Now implements Clock.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Advance moves the clock by d, which may be negative, and wakes the sleepers whose time has come.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
	for c, at := range f.waiters {
		if !at.After(f.now) {
			close(c)
			delete(f.waiters, c)
		}
	}
}

// Sleepers is the number of goroutines that wait in Sleep, so that a test can wait for one to arrive.
func (f *Fake) Sleepers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiters)
}

// AwaitSleepers returns nil when at least n goroutines wait in Sleep, or ctx's error if ctx ends first.
func (f *Fake) AwaitSleepers(ctx context.Context, n int) error {
	for {
		f.mu.Lock()
		enough, arrived := len(f.waiters) >= n, f.arrived
		f.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Sleep implements Clock.
func (f *Fake) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	c := make(chan struct{})
	f.mu.Lock()
	f.waiters[c] = f.now.Add(d)
	close(f.arrived)
	f.arrived = make(chan struct{})
	f.mu.Unlock()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		delete(f.waiters, c)
		f.mu.Unlock()
		return ctx.Err()
	}
}
