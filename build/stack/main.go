// Command stack runs all daemons as plain processes on loopback until it is told to stop.
//
// Alone it starts a throwaway PostgreSQL, an empty storage, a fresh config directory and one user. With STACK_CONFIG=DIR it
// starts the daemons on that Quay config directory, its database and its storage, and changes nothing else.
// Either way .stack/stack.json says where everything is, and is gone again when the stack is.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/quayctl/quayctl/internal/clock"
	"github.com/quayctl/quayctl/internal/config"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/users"
)

// Info is .stack/stack.json. A value that does not exist is null.
type Info struct {
	Edge         string         `json:"edge"`
	Registryd    string         `json:"registryd"`
	CoreAPI      *string        `json:"core_api"`
	Database     string         `json:"database"`
	ConfigDir    string         `json:"config_dir"`
	Storage      string         `json:"storage"`
	User         *string        `json:"user"`
	PasswordFile *string        `json:"password_file"`
	PIDs         map[string]int `json:"pids"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("STACK_CONFIG"), ".stack"); err != nil {
		fmt.Fprintf(os.Stderr, "stack: %v\n", err)
		os.Exit(1)
	}
}

type stack struct {
	dir, bin string
	procs    []*process
	ended    chan *process // those that ended, after start-up
	info     Info
}

type process struct {
	name string
	cmd  *exec.Cmd
	// args are those of a daemon, nil for PostgreSQL.
	args  []string
	began time.Time
	done  chan struct{}
	err   error
}

func run(ctx context.Context, existing, dir string) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	if b, err := os.ReadFile(filepath.Join(dir, "stack.json")); err == nil {
		var old Info
		if json.Unmarshal(b, &old) == nil && alive(old.PIDs["registryd"]) {
			return fmt.Errorf("a stack is running already (%s says registryd is process %d): stop it with Ctrl-C where it runs", filepath.Join(dir, "stack.json"), old.PIDs["registryd"])
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	// Sockets of PostgreSQL and the daemons lie here; the server runs as another user.
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return err
	}
	s := &stack{dir: dir, bin: filepath.Join(dir, "bin"), ended: make(chan *process, 8), info: Info{PIDs: map[string]int{}}}
	defer func() { err = errors.Join(err, s.stop()) }()
	fmt.Println("building the daemons")
	if err := s.build(ctx); err != nil {
		return err
	}
	edge, registryd, err := freePorts()
	if err != nil {
		return err
	}
	s.info.Edge, s.info.Registryd = "http://"+edge, "http://"+registryd
	if existing == "" {
		err = s.fresh(ctx, edge)
	} else {
		err = s.adopt(existing)
	}
	if err != nil {
		return err
	}
	cfg, err := config.Load(s.info.ConfigDir)
	if err != nil {
		return err
	}
	storage := localStorage(cfg)
	if existing != "" && len(storage) > 0 {
		_, s.info.Storage, _ = strings.Cut(storage[0], "=")
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if existing == "" {
		if err := s.user(ctx, cfg); err != nil {
			return err
		}
	}
	if err := s.start(ctx, "registryd", "--config-dir", s.info.ConfigDir, "--listen", "tcp:"+registryd, "--listen", "unix:"+s.sock("registryd"), "--admin", "unix:"+s.sock("registryd-admin")); err != nil {
		return err
	}
	if err := s.start(ctx, "workers", "--config-dir", s.info.ConfigDir, "--admin", "unix:"+s.sock("workers-admin")); err != nil {
		return err
	}
	args := []string{"--config-dir", s.info.ConfigDir, "--listen", "tcp:" + edge, "--admin", "unix:" + s.sock("edge-admin"), "--registryd", "unix:" + s.sock("registryd"),
		"--health", "registryd=unix:" + s.sock("registryd-admin"), "--health", "workers=unix:" + s.sock("workers-admin")}
	for _, l := range storage {
		args = append(args, "--storage", l)
	}
	if err := s.start(ctx, "edge", args...); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	s.print()
	for _, p := range s.procs {
		s.watch(p)
	}
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nstopping")
			return nil
		case p := <-s.ended:
			if err := s.again(ctx, p); err != nil {
				return err
			}
		}
	}
}

func (s *stack) watch(p *process) { go func() { <-p.done; s.ended <- p }() }

// again starts a daemon that ended by itself or was killed, as systemd does on a machine. PostgreSQL's data go with it, and a
// daemon that does not live for a few seconds has a reason, so these end the stack.
func (s *stack) again(ctx context.Context, p *process) error {
	why := fmt.Errorf("%s ended by itself: %w; its log is %s", p.name, p.err, filepath.Join(s.dir, p.name+".log"))
	if p.args == nil || time.Since(p.began) < 3*time.Second {
		return why
	}
	fmt.Println(why, "- starting it again")
	s.procs = slices.DeleteFunc(s.procs, func(q *process) bool { return q == p })
	if err := s.start(ctx, p.name, p.args...); err != nil {
		return err
	}
	s.watch(s.procs[len(s.procs)-1])
	return s.write()
}

func alive(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) == nil }

func freePorts() (a, b string, err error) {
	var ls [2]net.Listener
	for i := range ls {
		if ls[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		defer ls[i].Close()
	}
	return ls[0].Addr().String(), ls[1].Addr().String(), nil
}

func (s *stack) sock(name string) string { return filepath.Join(s.dir, "run", name+".sock") }

func (s *stack) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.bin+"/", "./cmd/registryd", "./cmd/edge", "./cmd/workers", "./internal/metadata/pgtest/serve")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the daemons: %w", err)
	}
	return nil
}

// fresh makes everything anew: PostgreSQL, storage, config directory.
func (s *stack) fresh(ctx context.Context, edge string) error {
	dsn, err := s.postgres(ctx)
	if err != nil {
		return err
	}
	s.info.Database, s.info.ConfigDir, s.info.Storage = dsn, filepath.Join(s.dir, "conf", "stack"), filepath.Join(s.dir, "storage")
	for _, d := range []string{s.info.ConfigDir, s.info.Storage} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	text, err := config.Appliance{
		ServerHostname: edge, SecretKey: config.NewSecret(rand.Text()), DatabaseSecretKey: config.NewSecret(rand.Text()),
		PageTokenKey: config.NewSecret(base64.URLEncoding.EncodeToString(key)), SuperUsers: []string{"admin"},
	}.Render()
	if err != nil {
		return err
	}
	// The appliance's own settings, but for what lies elsewhere here.
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return err
	}
	settings["PREFERRED_URL_SCHEME"] = "http"
	settings["DB_URI"] = dsn
	settings["DISTRIBUTED_STORAGE_CONFIG"] = map[string]any{config.ApplianceLocation: []any{"LocalStorage", map[string]string{"storage_path": s.info.Storage}}}
	if text, err = yaml.Marshal(settings); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.info.ConfigDir, "config.yaml"), text, 0o600)
}

// adopt takes an existing config directory as it is.
func (s *stack) adopt(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	cfg, err := config.Load(dir)
	if err != nil {
		return fmt.Errorf("read STACK_CONFIG=%s: %w", dir, err)
	}
	s.info.ConfigDir, s.info.Database = dir, cfg.DBURI.Reveal()
	return nil
}

// postgres starts the throwaway server that tests use too; it goes when its standard input closes, so also when this process dies.
func (s *stack) postgres(ctx context.Context) (dsn string, err error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(s.bin, "serve"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := s.spawn("postgresql", cmd); err != nil {
		return "", err
	}
	s.procs[len(s.procs)-1].cmd.Cancel = stdin.Close
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("start PostgreSQL: %w; its log is %s", err, filepath.Join(s.dir, "postgresql.log"))
	}
	super, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		return "", fmt.Errorf("start PostgreSQL: %w", err)
	}
	conn, err := pgx.Connect(ctx, super.String())
	if err != nil {
		return "", fmt.Errorf("start PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{"create role quay login", "create database quay owner quay"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("%s: %w", sql, err)
		}
	}
	// The process to name is the server, not the one that looks after it.
	var data string
	if err := conn.QueryRow(ctx, "show data_directory").Scan(&data); err != nil {
		return "", err
	}
	pid, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	if s.info.PIDs["postgresql"], err = strconv.Atoi(first); err != nil {
		return "", fmt.Errorf("read postmaster.pid: %w", err)
	}
	super.User, super.Path = url.User("quay"), "/quay"
	return super.String(), nil
}

func (s *stack) migrate(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "workers"), "migrate", "--config-dir", s.info.ConfigDir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate the database: %w\n%s", err, out)
	}
	return nil
}

func (s *stack) user(ctx context.Context, cfg *config.Config) error {
	name, file, password := "admin", filepath.Join(s.dir, "password"), rand.Text()
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	hash, err := users.HashPassword(password)
	if err != nil {
		return err
	}
	o := metadata.FromConfig(cfg)
	o.AppName, o.Clock, o.Logger = "quay-stack", clock.Real{}, slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := metadata.Open(ctx, o)
	if err != nil {
		return err
	}
	defer db.Close()
	err = db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := users.Create(ctx, tx, users.New{Username: name, Email: name + "@localhost.localdomain", PasswordHash: hash, Verified: true, Now: time.Now()})
		return err
	})
	if err != nil {
		return fmt.Errorf("create user %s: %w", name, err)
	}
	s.info.User, s.info.PasswordFile = &name, &file
	return nil
}

// start runs a daemon and waits until its admin socket says that it is ready.
func (s *stack) start(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(s.bin, name), args...)
	if err := s.spawn(name, cmd); err != nil {
		return err
	}
	p := s.procs[len(s.procs)-1]
	p.args = args
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.sock(name+"-admin"))
	}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/readyz", nil)
		if err != nil {
			return err
		}
		last := "no answer"
		if resp, err := client.Do(req); err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = string(body)
		}
		select {
		case <-p.done:
			return fmt.Errorf("start %s: %w\n%s", name, p.err, tail(filepath.Join(s.dir, name+".log")))
		case <-ctx.Done():
			return fmt.Errorf("start %s: not ready in time: %s\n%s", name, last, tail(filepath.Join(s.dir, name+".log")))
		case <-tick.C:
		}
	}
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-4000):])
}

func (s *stack) spawn(name string, cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	// A process group of its own: Ctrl-C reaches this process alone, which stops the others in order; if it dies, so do they.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, began: time.Now(), done: make(chan struct{})}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	s.procs = append(s.procs, p)
	s.info.PIDs[name] = cmd.Process.Pid
	return nil
}

// stop ends the processes in the reverse order of their start, each with a drain.
func (s *stack) stop() error {
	var errs []error
	for i := len(s.procs) - 1; i >= 0; i-- {
		p := s.procs[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			errs = append(errs, fmt.Errorf("%s did not stop in 20 s and was killed", p.name))
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	errs = append(errs, os.Remove(filepath.Join(s.dir, "stack.json")))
	if err := errors.Join(errs...); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s *stack) write() error {
	b, err := json.MarshalIndent(s.info, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(s.dir, "stack.json.tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(s.dir, "stack.json"))
}

func (s *stack) print() {
	fmt.Printf("edge       %s\nregistryd  %s\ndatabase   %s\nconfig     %s\nstorage    %s\n", s.info.Edge, s.info.Registryd, s.info.Database, s.info.ConfigDir, s.info.Storage)
	if s.info.User != nil {
		fmt.Printf("user       %s, password in %s\n", *s.info.User, *s.info.PasswordFile)
	}
	fmt.Printf("all of it  %s\nCtrl-C stops\n", filepath.Join(s.dir, "stack.json"))
}

// localStorage lists the local locations of a config as LOCATION=DIR.
func localStorage(cfg *config.Config) []string {
	var out []string
	for _, l := range cfg.Storage {
		if dir := l.Parameters.Text("storage_path"); l.Driver == "LocalStorage" && dir != "" {
			out = append(out, l.Name+"="+dir)
		}
	}
	return out
}
