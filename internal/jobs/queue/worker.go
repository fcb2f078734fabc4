package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/jobs/runner"
)

// Outcomes that Process returns, wrapped or bare, beside nil (the item is done and removed) and any other error: that one
// leaves the item claimed until its time is over, with the retry used up, as in the legacy server.
var (
	// ErrFailed is an error of the job: the item is given back for later, the retry is used up.
	ErrFailed = errors.New("job failed")
	// ErrBusy is a job that cannot be done now: the item is given back with its retry, and no further one taken for now.
	ErrBusy = errors.New("job cannot be done now")
)

// busyPause is for how long an item rests that could not be done now.
const busyPause = 5 * time.Second

// Worker takes items from a queue until it is empty. It is a runner.Job.
type Worker struct {
	Queue *Queue
	// Worker is the legacy worker's name.
	Worker string
	// Poll is the time between two looks into an empty queue.
	Poll time.Duration
	// Process does the work. It ends early when ctx does: the worker stops, or another one has taken the item over.
	Process func(ctx context.Context, body string) error
}

// Name implements runner.Job.
func (w *Worker) Name() string { return w.Worker }

// Schedule implements runner.Job.
func (w *Worker) Schedule() runner.Schedule {
	return runner.Schedule{Operation: "poll_queue", Every: w.Poll}
}

// Run implements runner.Job.
func (w *Worker) Run(ctx context.Context) (runner.Progress, error) {
	var p runner.Progress
	for ctx.Err() == nil {
		item, err := w.Queue.Claim(ctx, Reservation)
		if err != nil {
			return p, err
		}
		if item == nil {
			break
		}
		if err := w.process(ctx, item); errors.Is(err, ErrBusy) {
			break
		} else if err != nil {
			return p, err
		}
		p.Done++
	}
	return p, errors.Join(ctx.Err(), w.Queue.observe(ctx))
}

func (w *Worker) process(ctx context.Context, item *Item) error {
	working, stop := context.WithCancelCause(ctx)
	var extending sync.WaitGroup
	extending.Go(func() {
		for w.Queue.Clock.Sleep(working, Reservation/3) == nil {
			// A failed attempt leaves two more until the time is over.
			if err := item.Extend(context.WithoutCancel(ctx), Reservation); errors.Is(err, ErrLost) {
				stop(err)
			}
		}
	})
	err := w.contain(working, item)
	cause := context.Cause(working)
	stop(nil)
	extending.Wait()

	// The item's fate is recorded also while the worker stops.
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	switch {
	case err == nil:
		return item.Complete(record)
	case errors.Is(cause, ErrLost):
		return fmt.Errorf("item %s: %w", item.Name, cause)
	case ctx.Err() != nil, errors.Is(err, ErrBusy):
		return errors.Join(fmt.Errorf("item %s: %w", item.Name, err), item.Return(record, busyPause, true))
	case errors.Is(err, ErrFailed):
		return errors.Join(fmt.Errorf("item %s: %w", item.Name, err), item.Return(record, RetryAfter, false))
	default:
		return fmt.Errorf("item %s: %w", item.Name, err)
	}
}

func (w *Worker) contain(ctx context.Context, item *Item) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return w.Process(ctx, item.Body)
}
