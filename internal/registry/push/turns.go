package push

import (
	"context"
	"sync"
)

// turns lets the pushes of this process to one repository wait for each other before they take a connection. In the
// database they would wait for the same lock, each holding a connection that pulls could use.
type turns struct {
	mu    sync.Mutex
	lines map[int64]*line
}

type line struct {
	turn    chan struct{} // holds one value while somebody has the turn
	waiting int           // including the one who has it
}

// take waits for the turn of a repository, or for the end of ctx. done gives it to the next.
func (t *turns) take(ctx context.Context, repositoryID int64) (done func(), err error) {
	t.mu.Lock()
	if t.lines == nil {
		t.lines = map[int64]*line{}
	}
	l := t.lines[repositoryID]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
		t.lines[repositoryID] = l
	}
	l.waiting++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if l.waiting--; l.waiting == 0 {
			delete(t.lines, repositoryID)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
