// Package progress tells on standard error how far a long task has come: one
// live line on a terminal, sparse plain lines everywhere else, and nothing for
// tasks that are over within two seconds.
package progress

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

const (
	// Quiet is how long a task may take before anything is said about it.
	Quiet = 2 * time.Second
	// liveEvery is how often the live line is drawn.
	liveEvery = 100 * time.Millisecond
	// plainEvery is how often a plain line is written.
	plainEvery = 10 * time.Second
)

// Reporter reports tasks, one after another or several at once. It is safe for concurrent use.
// The nil Reporter says nothing.
type Reporter struct {
	io     *iostreams.IOStreams
	clock  clock.Clock
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	tasks  []*Task // that run, in order of their start
	onLine bool    // a live line stands on the terminal
	frame  int
}

// Task is one thing that is being done.
type Task struct {
	r          *Reporter
	name       string
	step       bool
	start      time.Time
	spokeAt    time.Time // of the last plain line
	now, total int64
	note       string
	over       bool
}

// New returns a reporter to Err of io. Close ends it.
func New(io *iostreams.IOStreams, c clock.Clock) *Reporter {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reporter{io: io, clock: c, cancel: cancel, done: make(chan struct{})}
	every := plainEvery / 10
	if io.ErrIsTerminal() {
		every = liveEvery
	}
	go func() {
		defer close(r.done)
		for c.Sleep(ctx, every) == nil {
			r.draw()
		}
	}()
	return r
}

// Close removes the live line and ends the reporter. Tasks still running are forgotten.
func (r *Reporter) Close() {
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	r.erase()
	r.tasks = nil
}

// Task begins a task that is mentioned only if it takes longer than Quiet. total is in bytes, 0 if it cannot be known.
func (r *Reporter) Task(name string, total int64) *Task { return r.begin(name, total, false) }

// Step begins a task whose end is always told, in one line: the steps of a change to the machine.
// total is in bytes, 0 if it cannot be known.
func (r *Reporter) Step(name string, total int64) *Task { return r.begin(name, total, true) }

func (r *Reporter) begin(name string, total int64, step bool) *Task {
	if r == nil {
		return nil
	}
	now := r.clock.Now()
	t := &Task{r: r, name: name, step: step, total: total, start: now, spokeAt: now}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks = append(r.tasks, t)
	return t
}

// Println writes a line to standard error without tearing the live line.
func (r *Reporter) Println(line string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.erase()
	fmt.Fprintln(r.io.Err, line)
}

// Add counts n bytes as done.
func (t *Task) Add(n int64) {
	if t == nil {
		return
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.now += n
}

// Write counts p as done, so that a Task can stand in an io.MultiWriter or io.TeeReader.
func (t *Task) Write(p []byte) (int, error) {
	t.Add(int64(len(p)))
	return len(p), nil
}

// Note says in a few words what the task is at just now; it replaces the previous note.
func (t *Task) Note(note string) {
	if t == nil {
		return
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.note = note
}

// Done ends the task. Further calls do nothing.
func (t *Task) Done(err error) {
	if t == nil {
		return
	}
	r := t.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	for i, other := range r.tasks {
		if other == t {
			r.tasks = append(r.tasks[:i], r.tasks[i+1:]...)
			break
		}
	}
	took := r.clock.Now().Sub(t.start)
	if !t.step && took < Quiet {
		return
	}
	r.erase()
	p := r.io.ErrPalette()
	mark, end := p.Green("ok  "), t.name
	if err != nil {
		mark = p.Red("fail")
	}
	fmt.Fprintf(r.io.Err, "%s %s %s\n", mark, end, p.Faint("("+seconds(took)+")"))
}

func (r *Reporter) draw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	if !r.io.ErrIsTerminal() {
		for _, t := range r.tasks {
			if now.Sub(t.start) >= Quiet && (t.spokeAt.Equal(t.start) || now.Sub(t.spokeAt) >= plainEvery) {
				t.spokeAt = now
				fmt.Fprintf(r.io.Err, "...  %s\n", t.describe(now))
			}
		}
		return
	}
	var shown []string
	for _, t := range r.tasks {
		if now.Sub(t.start) >= Quiet {
			shown = append(shown, t.describe(now))
		}
	}
	if len(shown) == 0 {
		return
	}
	r.erase()
	r.frame++
	line := []rune(`|/-\`[r.frame%4:][:1] + "    " + strings.Join(shown, "; "))
	if w := r.io.Width() - 1; w > 0 && len(line) > w {
		line = line[:w]
	}
	fmt.Fprint(r.io.Err, string(line))
	r.onLine = true
}

func (r *Reporter) erase() {
	if r.onLine {
		fmt.Fprint(r.io.Err, "\r\x1b[K")
		r.onLine = false
	}
}

// describe is "load images: registryd 45% (3.1 s)". The caller holds the reporter's lock.
func (t *Task) describe(now time.Time) string {
	s := t.name
	if t.note != "" {
		s += ": " + t.note
	}
	if t.total > 0 {
		s += fmt.Sprintf(" %d%%", min(100, t.now*100/t.total))
	}
	return s + " (" + seconds(now.Sub(t.start)) + ")"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
