package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Step is one part of an operation. It must come to the same end however often it was begun before.
type Step struct {
	Name  string
	Title string   // for people: "start database"
	Needs []string // steps that must have ended
	Run   func(ctx context.Context) error
}

// Timing is how long a step took.
type Timing struct {
	Step  string
	Start time.Duration // since the operation began
	Took  time.Duration
}

// MarshalJSON gives {"name", "start", "seconds"} with times in seconds.
func (t Timing) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name    string  `json:"name"`
		Start   float64 `json:"start"` // since the command began
		Seconds float64 `json:"seconds"`
	}{t.Step, t.Start.Round(time.Millisecond).Seconds(), t.Took.Round(time.Millisecond).Seconds()})
}

// Observer is told of steps as they begin and end. Its methods may be called concurrently.
type Observer interface {
	StepBegins(name, title string)
	StepEnds(name string, err error)
}

// Transaction runs the steps of an operation.
type Transaction struct {
	Journal   *Journal
	Operation string
	Version   string
	Observer  Observer
}

// StepError is the failure of a step.
type StepError struct {
	Step, Title string
	Err         error
}

// Error implements error.
func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Title, e.Err) }

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Run runs the steps, each as soon as those it needs have ended, and records each before it is begun. After a failure
// or when ctx ends no further step is begun; those that run are waited for. The error is the first *StepError.
func (t *Transaction) Run(ctx context.Context, steps []Step) ([]Timing, error) {
	if err := t.Journal.Append(Record{Event: Begin, Operation: t.Operation, Version: t.Version}); err != nil {
		return nil, err
	}
	began := t.Journal.clock.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(map[string]chan struct{}, len(steps))
	for _, s := range steps {
		ended[s.Name] = make(chan struct{})
	}
	timings := make([]Timing, len(steps))
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for i, s := range steps {
		wg.Go(func() {
			for _, need := range s.Needs {
				select {
				case <-ended[need]:
				case <-ctx.Done():
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
			start := t.Journal.clock.Now()
			err := t.step(ctx, s)
			timings[i] = Timing{Step: s.Name, Start: start.Sub(began), Took: t.Journal.clock.Now().Sub(start)}
			if err != nil {
				once.Do(func() { first = &StepError{Step: s.Name, Title: s.Title, Err: err} })
				cancel(err)
				return
			}
			close(ended[s.Name])
		})
	}
	wg.Wait()
	if first == nil && ctx.Err() != nil {
		first = context.Cause(ctx)
	}
	if first != nil {
		r := Record{Event: Failed, Error: first.Error()}
		var s *StepError
		if errors.As(first, &s) {
			r.Step = s.Step
		}
		return timings, errors.Join(first, t.Journal.Append(r))
	}
	return timings, t.Journal.Append(Record{Event: End})
}

func (t *Transaction) step(ctx context.Context, s Step) error {
	if err := t.Journal.Append(Record{Event: Enter, Step: s.Name}); err != nil {
		return err
	}
	t.Observer.StepBegins(s.Name, s.Title)
	err := s.Run(ctx)
	if err == nil {
		err = t.Journal.Append(Record{Event: Done, Step: s.Name})
	}
	if err != nil && ctx.Err() != nil {
		// However it says so ("signal: killed" of a program it ran), what ended it is what ended the whole.
		err = context.Cause(ctx)
	}
	t.Observer.StepEnds(s.Name, err)
	return err
}
