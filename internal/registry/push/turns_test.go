package push

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestTurns(t *testing.T) {
	var all turns
	ctx := context.Background()
	busy := 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			done, err := all.take(ctx, 1)
			if err != nil {
				t.Error(err)
				return
			}
			if busy++; busy != 1 {
				t.Errorf("%d have the turn", busy)
			}
			busy--
			done()
		})
	}
	wg.Wait()
	done, err := all.take(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := all.take(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := all.take(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that went away: %v", err)
	}
	done()
	other()
	if len(all.lines) != 0 {
		t.Errorf("%d lines are left", len(all.lines))
	}
}
