package appliance

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quayctl/quayctl/internal/clock"
)

var testClock = clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))

func journal(t *testing.T) (*Journal, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	j, err := OpenJournal(path, testClock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, path
}

func TestJournalSurvivesATornLine(t *testing.T) {
	for name, torn := range map[string]string{"half a line": `{"event":"st`, "zeros": "\x00\x00\x00\x00\n", "zeros and no end": "\x00\x00"} {
		t.Run(name, func(t *testing.T) {
			j, path := journal(t)
			r := Resource{Kind: File, Name: "/x"}
			if err := errors.Join(j.Append(Record{Event: Begin, Operation: "install"}), j.Creating(r, r), j.Close()); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteString(torn)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			again, err := OpenJournal(path, testClock)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(again.Append(Record{Event: End}), again.Close()); err != nil {
				t.Fatal(err)
			}
			records, err := ReadJournal(path)
			if err != nil || len(records) != 3 {
				t.Fatalf("%d records, %v", len(records), err)
			}
			if diff := cmp.Diff([]Resource{r}, Inventory(records)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJournalRefusesDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	if err := os.WriteFile(path, []byte("not json\n{\"event\":\"end\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadJournal(path); err == nil {
		t.Error("damage in the middle was taken")
	}
}

func TestRecordsTellWhatIsThere(t *testing.T) {
	image := &Resource{Kind: Image, Name: "sha256:1"}
	records := []Record{
		{Event: Begin, Operation: "install", Version: "1"}, {Event: Create, Resource: image}, {Event: Loaded, Image: "sha256:1"}, {Event: Loaded, Image: "sha256:2"},
		{Event: Enter, Step: "images"}, {Event: Failed, Step: "images", Error: "no"},
	}
	if !LoadedImages(records)["sha256:1"] {
		t.Error("a loaded image is not known")
	}
	if o, ok := LastOperation(records); !ok || o.Complete() || o.Step != "images" || o.Error != "no" {
		t.Errorf("last operation %+v", o)
	}
	records = append(records, Record{Event: Begin, Operation: "uninstall"}, Record{Event: Removed, Resource: image}, Record{Event: Enter, Step: "x"}, Record{Event: End, Time: testClock.Now()})
	if LoadedImages(records)["sha256:1"] || len(Inventory(records)) != 0 {
		t.Error("a removed image is still known")
	}
	if o, _ := LastOperation(records); !o.Complete() || o.Name != "uninstall" || o.Step != "" {
		t.Errorf("last operation %+v", o)
	}
}

func TestTransactionRunsStepsWhenWhatTheyNeedIsDone(t *testing.T) {
	j, path := journal(t)
	var mu sync.Mutex
	done := map[string]bool{}
	step := func(name string, needs ...string) Step {
		return Step{name, name, needs, func(context.Context) error {
			records, err := ReadJournal(path)
			if err != nil {
				return err
			}
			recorded := false
			for _, r := range records {
				recorded = recorded || r.Event == Enter && r.Step == name
			}
			mu.Lock()
			defer mu.Unlock()
			for _, n := range needs {
				if !done[n] {
					t.Errorf("%s ran before %s", name, n)
				}
			}
			if !recorded {
				t.Errorf("%s ran before it was recorded", name)
			}
			done[name] = true
			return nil
		}}
	}
	tx := &Transaction{Journal: j, Operation: "install", Observer: silent{}}
	timings, err := tx.Run(t.Context(), []Step{step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")})
	if err != nil || len(timings) != 4 || len(done) != 4 {
		t.Fatalf("%v, %v, %v", err, timings, done)
	}
}

func TestTransactionStopsAtAFailure(t *testing.T) {
	j, _ := journal(t)
	boom := errors.New("boom")
	tx := &Transaction{Journal: j, Operation: "install", Observer: silent{}}
	_, err := tx.Run(t.Context(), []Step{
		{"a", "do a", nil, func(context.Context) error { return boom }},
		{"b", "do b", []string{"a"}, func(context.Context) error { t.Error("b ran"); return nil }},
		{"c", "do c", nil, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
	})
	var step *StepError
	if !errors.As(err, &step) || step.Step != "a" || !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if o, _ := LastOperation(j.Records()); o.Step != "a" || o.Complete() {
		t.Errorf("last operation %+v", o)
	}
}

// TestTransactionInterrupted: a step that an interruption ends in its own words is told as the interruption.
func TestTransactionInterrupted(t *testing.T) {
	j, _ := journal(t)
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	tx := &Transaction{Journal: j, Operation: "install", Observer: silent{}}
	_, err := tx.Run(ctx, []Step{{"a", "do a", nil, func(ctx context.Context) error {
		cancel(interrupted)
		return errors.New("signal: killed")
	}}})
	if !errors.Is(err, interrupted) {
		t.Errorf("error %v, want the interruption", err)
	}
}

func TestLayout(t *testing.T) {
	env := map[string]string{"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "relative"}
	l := DefaultLayout(1000, func(k string) string { return env[k] }, "/home/u", "")
	want := Layout{
		Rootless: true, Config: "/c/quay", Data: "/home/u/.local/share/quay", Quadlets: "/c/containers/systemd/quay", Units: "/c/systemd/user",
		Wants: "/c/systemd/user/default.target.wants", Binary: "/home/u/.local/bin/quayctl", Runtime: "/run/user/1000",
		Trust: "/c/containers/certs.d",
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Error(diff)
	}
	if err := l.Validate(); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"relative", "/with blank", "/" + string(make([]byte, 120)), "/etc/quay/data", "/etc"} {
		if err := DefaultLayout(0, os.Getenv, "/root", dir).Validate(); err == nil {
			t.Errorf("data directory %q was taken", dir)
		}
	}
}

// TestJournalSurvivesAFullDisk: what reached the disk of a record that did not fit is not in the way of later ones.
func TestJournalSurvivesAFullDisk(t *testing.T) {
	j, path := journal(t)
	defer j.Close()
	if err := j.Append(Record{Event: Begin, Operation: "install"}); err != nil {
		t.Fatal(err)
	}
	info, err := j.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// A limit on the size of files acts as a disk that has room for ten more bytes.
	signal.Ignore(unix.SIGXFSZ)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(info.Size()) + 10, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err = j.Append(Record{Event: Enter, Step: "settings"})
	if restore := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); restore != nil {
		t.Fatal(restore)
	}
	if err == nil {
		t.Fatal("a record fitted where there was no room")
	}
	for _, r := range []Record{{Event: Failed, Error: "disk full"}, {Event: Begin, Operation: "install"}} {
		if err := j.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	records, err := ReadJournal(path)
	if err != nil || len(records) != 3 || records[1].Event != Failed {
		t.Errorf("%+v, %v", records, err)
	}
}
