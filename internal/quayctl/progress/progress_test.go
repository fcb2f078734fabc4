package progress

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

// setup gives a reporter that has fallen asleep for the first time, its clock, and what it writes. What it writes may be
// read once it sleeps again, see pass.
func setup(t *testing.T, tty bool) (*Reporter, *clock.Fake, *bytes.Buffer) {
	t.Helper()
	s, _, _, errOut := iostreams.Test()
	s.SetTTY(tty, tty, tty)
	s.SetColor(false)
	c := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	r := New(s, c)
	t.Cleanup(r.Close)
	asleep(c)
	return r, c, errOut
}

func asleep(c *clock.Fake) {
	for c.Sleepers() == 0 {
		runtime.Gosched()
	}
}

// pass lets time pass and waits until the reporter has said what it has to say about it.
func pass(c *clock.Fake, d time.Duration) {
	c.Advance(d)
	asleep(c)
}

func TestQuietWhenQuick(t *testing.T) {
	for _, tty := range []bool{false, true} {
		r, c, out := setup(t, tty)
		task := r.Task("load images", 100)
		pass(c, Quiet-time.Millisecond)
		task.Done(nil)
		r.Close()
		if out.Len() > 0 {
			t.Errorf("tty=%t: %q", tty, out)
		}
	}
}

func TestPlain(t *testing.T) {
	r, c, out := setup(t, false)
	task := r.Task("load images", 200)
	task.Add(50)
	pass(c, Quiet)
	task.Note("registryd")
	for range 11 {
		pass(c, time.Second)
	}
	task.Add(100)
	for range 10 {
		pass(c, time.Second)
	}
	task.Done(nil)
	task.Done(errors.New("again"))
	r.Close()
	want := `...  load images 25% (2.0 s)
...  load images: registryd 25% (12.0 s)
...  load images: registryd 75% (22.0 s)
ok   load images (23.0 s)
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

func TestStepsAreAlwaysTold(t *testing.T) {
	r, c, out := setup(t, false)
	one, two := r.Step("make directories", 0), r.Step("start database", 0)
	pass(c, 500*time.Millisecond)
	one.Done(nil)
	two.Done(errors.New("no"))
	r.Close()
	if want := "ok   make directories (0.5 s)\nfail start database (0.5 s)\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// TestLive: one line that is drawn over and leaves nothing behind.
func TestLive(t *testing.T) {
	r, c, out := setup(t, true)
	one, two := r.Task("load images", 0), r.Task("start database", 0)
	pass(c, Quiet)
	if want := "/    load images (2.0 s); start database (2.0 s)"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	out.Reset()
	pass(c, liveEvery)
	if want := "\r\x1b[K-    load images (2.1 s); start database (2.1 s)"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	out.Reset()
	r.Println("note: something")
	if want := "\r\x1b[Knote: something\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	pass(c, liveEvery)
	out.Reset()
	one.Done(nil)
	two.Done(nil)
	if want := "\r\x1b[Kok   load images (2.2 s)\nok   start database (2.2 s)\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	out.Reset()
	pass(c, liveEvery)
	r.Close()
	if out.Len() > 0 {
		t.Errorf("left behind: %q", out)
	}
}

func TestCloseRemovesTheLiveLine(t *testing.T) {
	r, c, out := setup(t, true)
	r.Task("wait", 0)
	pass(c, Quiet)
	out.Reset()
	r.Close()
	if out.String() != "\r\x1b[K" {
		t.Errorf("got %q", out)
	}
}

func TestLiveLineIsCutToTheWidth(t *testing.T) {
	r, c, out := setup(t, true)
	r.io.SetWidth(20)
	r.Task(strings.Repeat("ü", 100), 0)
	pass(c, Quiet)
	if got := []rune(out.String()); len(got) != 19 {
		t.Errorf("%d columns: %q", len(got), out)
	}
}

func TestTaskCountsWhatIsWritten(t *testing.T) {
	r, c, out := setup(t, false)
	task := r.Task("copy", 8)
	if n, err := io.Copy(task, strings.NewReader("1234")); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	pass(c, Quiet)
	if want := "...  copy 50% (2.0 s)\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
	// More than was announced is no more than all of it.
	task.Add(100)
	if got := task.describe(c.Now()); got != "copy 100% (2.0 s)" {
		t.Errorf("got %q", got)
	}
}

func TestNilSaysNothing(t *testing.T) {
	var r *Reporter
	task := r.Step("x", 1)
	task.Add(1)
	task.Note("x")
	task.Done(nil)
	r.Println("x")
	r.Close()
}
