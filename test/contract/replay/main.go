// Command replay replays the recordings of the registry contract against our own daemons and tells every difference.
//
// It closes with one line "N passed, N failed" and exits 1 on a failure, 2 on a mistake in its arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/quayctl/quayctl/internal/contract"
)

// Deliberate is one reviewed difference: a legacy defect that is not copied, or a superset that lets real clients work.
type Deliberate struct {
	// Scenario is FILE/NAME; Differs are regular expressions, one of which each difference must match.
	Scenario string   `yaml:"scenario"`
	Differs  []string `yaml:"differs"`
	// Reason says why, naming the trap or the client.
	Reason string `yaml:"reason"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir := flag.String("contract", "test/contract", "`directory` with dataset/ and recordings/")
	recordings := flag.String("recordings", "", "`directory` of recordings (default CONTRACT/recordings/registry)")
	only := flag.String("only", "", "replay only scenarios whose FILE/NAME matches this `regexp`")
	except := flag.String("except", "", "leave scenarios out whose FILE/NAME matches this `regexp`")
	jobs := flag.Int("jobs", 2, "scenarios at a time")
	registryd := flag.String("registryd", "registryd", "`program`")
	workers := flag.String("workers", "workers", "`program`")
	schemaKey := flag.String("schema1-key", "", "PEM `file` that signs schema 1 manifests")
	verbose := flag.Bool("v", false, "name the scenarios that pass, too, and show the server's log on failure")
	flag.Parse()
	if *recordings == "" {
		*recordings = filepath.Join(*dir, "recordings", "registry")
	}
	rx, err := regexp.Compile(*only)
	var not *regexp.Regexp
	if err == nil && *except != "" {
		not, err = regexp.Compile(*except)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(2)
	}
	chosen := func(s *contract.Scenario) bool {
		return rx.MatchString(s.ID()) && (not == nil || !not.MatchString(s.ID()))
	}
	tmp, err := os.MkdirTemp("", "replay")
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
	r := &run{local: &contract.Local{
		Postgres: os.Getenv("QUAY_TEST_POSTGRES"), Contract: *dir, Registryd: *registryd, Workers: *workers, Dir: tmp, SchemaKey: *schemaKey,
	}, verbose: *verbose}
	err = r.all(ctx, *recordings, filepath.Join(*dir, "differences.yaml"), chosen, *jobs)
	if err = errors.Join(err, os.RemoveAll(tmp)); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
	}
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if err != nil || r.failed > 0 {
		os.Exit(1)
	}
}

type run struct {
	local          *contract.Local
	verbose        bool
	deliberate     map[string]Deliberate
	upstream       sync.Mutex // held by a scenario whose upstream has the one address that the recordings know
	mu             sync.Mutex
	passed, failed int
	perFile        map[string][2]int
}

func (r *run) all(ctx context.Context, recordings, differences string, chosen func(*contract.Scenario) bool, jobs int) (err error) {
	if err := r.review(differences); err != nil {
		return err
	}
	scenarios, err := contract.Load(recordings)
	if err != nil {
		return err
	}
	scenarios = slices.DeleteFunc(scenarios, func(s *contract.Scenario) bool { return !chosen(s) })
	if len(scenarios) == 0 {
		return errors.New("no scenario matches")
	}
	if err := r.local.Prepare(ctx); err != nil {
		return errors.Join(err, r.local.Close(context.WithoutCancel(ctx)))
	}
	defer func() { err = errors.Join(err, r.local.Close(context.WithoutCancel(ctx))) }()
	r.perFile = map[string][2]int{}
	queue := make(chan *contract.Scenario)
	var wg sync.WaitGroup
	for range jobs {
		wg.Go(func() {
			for s := range queue {
				r.one(ctx, s)
			}
		})
	}
feed:
	for _, s := range scenarios {
		select {
		case queue <- s:
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	wg.Wait()
	for _, f := range slices.Sorted(func(yield func(string) bool) {
		for f := range r.perFile {
			if !yield(f) {
				return
			}
		}
	}) {
		fmt.Printf("%-40s %4d passed %4d failed\n", f, r.perFile[f][0], r.perFile[f][1])
	}
	return ctx.Err()
}

// review reads the reviewed list of deliberate differences.
func (r *run) review(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var list []Deliberate
	if err := yaml.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	r.deliberate = map[string]Deliberate{}
	for _, d := range list {
		if d.Scenario == "" || d.Reason == "" || len(d.Differs) == 0 {
			return fmt.Errorf("read %s: the entry %q needs a scenario, what differs and a reason", file, d.Scenario)
		}
		r.deliberate[d.Scenario] = d
	}
	return nil
}

func (r *run) one(ctx context.Context, s *contract.Scenario) {
	found, log, err := r.replay(ctx, s)
	if ctx.Err() != nil {
		return
	}
	var complaints []string
	if err != nil {
		complaints = append(complaints, err.Error())
	}
	if d, ok := r.deliberate[s.ID()]; ok && err == nil {
		complaints = append(complaints, judge(d, found)...)
	} else {
		for _, f := range found {
			complaints = append(complaints, f.String())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.perFile[s.File]
	if len(complaints) == 0 {
		r.passed++
		n[0]++
		if r.verbose {
			fmt.Println("ok   ", s.ID())
		}
	} else {
		r.failed++
		n[1]++
		fmt.Println("FAIL ", s.ID())
		for _, c := range complaints {
			fmt.Println("     ", c)
		}
		if r.verbose {
			fmt.Println(log)
		}
	}
	r.perFile[s.File] = n
}

// judge holds the differences found to a reviewed entry: each must be foreseen, and an entry that foresees nothing is stale.
func judge(d Deliberate, found []contract.Difference) (complaints []string) {
	if len(found) == 0 {
		return []string{"the reviewed list says it differs, but it does not: remove its entry"}
	}
	for _, f := range found {
		if !slices.ContainsFunc(d.Differs, func(p string) bool {
			ok, err := regexp.MatchString(p, f.String())
			return err == nil && ok
		}) {
			complaints = append(complaints, f.String()+" (not foreseen by the reviewed list)")
		}
	}
	return complaints
}

func (r *run) replay(ctx context.Context, s *contract.Scenario) (found []contract.Difference, log string, err error) {
	if s.Upstream != nil {
		r.upstream.Lock()
		defer r.upstream.Unlock()
	}
	srv, err := r.local.Start(ctx, s)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		log = srv.Log()
		err = errors.Join(err, srv.Stop(context.WithoutCancel(ctx)))
	}()
	found, err = contract.Replay(ctx, s, srv)
	return found, "", err
}
