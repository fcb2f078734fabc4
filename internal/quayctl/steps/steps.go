// Package steps shows the steps of a change to the machine as they go.
package steps

import (
	"sync"

	"github.com/quayctl/quayctl/internal/quayctl/progress"
)

// Observer reports steps; it implements appliance.Observer.
type Observer struct {
	Reporter *progress.Reporter

	mu    sync.Mutex
	tasks map[string]*progress.Task
}

// StepBegins is told when a step begins.
func (o *Observer) StepBegins(name, title string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tasks == nil {
		o.tasks = map[string]*progress.Task{}
	}
	o.tasks[name] = o.Reporter.Task(title, 0)
}

// StepEnds is told when it has ended.
func (o *Observer) StepEnds(name string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tasks[name].Done(err)
}
