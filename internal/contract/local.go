package contract

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.yaml.in/yaml/v3"

	"github.com/quayctl/quayctl/internal/metadata/schema"
)

// Local starts our own daemons as processes in the recorded start state, anew for every scenario.
type Local struct {
	// Postgres is the DSN of a superuser on a server where databases may be made and dropped.
	Postgres string
	// Contract is the directory with dataset/ and recordings/.
	Contract string
	// Registryd and Workers are the programs.
	Registryd, Workers string
	// Dir is where the processes' directories are made.
	Dir string
	// SchemaKey is the PEM that signs schema 1 manifests, when there is one; it does not travel with the project.
	SchemaKey string

	template string
	serial   atomic.Int64
	mu       sync.Mutex
	free     []string // databases in the start state
}

// record is the trigger that writes down every change of a row. It lives in a schema of its own, so the catalogue is untouched.
const record = `
create schema contract;
create table contract.change (n bigserial primary key, "table" text, op text, row jsonb, was jsonb);
create function contract.note() returns trigger language plpgsql security definer as $f$
begin
  if tg_op = 'UPDATE' and new is not distinct from old then return null; end if;
  insert into contract.change ("table", op, row, was) values (tg_table_name, lower(tg_op),
    case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end,
    case when tg_op = 'UPDATE' then (select jsonb_object_agg(o.key, o.value) from jsonb_each(to_jsonb(old)) o join jsonb_each(to_jsonb(new)) n using (key) where o.value is distinct from n.value) end);
  return null;
end $f$;
do $d$ declare t text; begin
  for t in select tablename from pg_tables where schemaname = 'public' loop
    execute format('create trigger contract_note after insert or update or delete on public.%I for each row execute function contract.note()', t);
  end loop;
end $d$;
create table contract.sequence as select sequencename, start_value, last_value from pg_sequences where schemaname = 'public';
`

// undo takes every noted change back, the latest first, and the sequences with them: far cheaper than another copy of the
// template. Triggers and foreign keys rest meanwhile.
const undo = `
begin;
set local session_replication_role = replica;
do $d$ declare c record; q record; begin
  for c in select * from contract.change order by n desc loop
    if c.op <> 'delete' then
      execute format('delete from public.%I where id = $1', c."table") using (c.row->>'id')::bigint;
    end if;
    if c.op <> 'insert' then
      execute format('insert into public.%I select * from jsonb_populate_record(null::public.%I, $1)', c."table", c."table") using c.row || coalesce(c.was, '{}');
    end if;
  end loop;
  for q in select * from contract.sequence loop
    perform setval(format('public.%I', q.sequencename)::regclass, coalesce(q.last_value, q.start_value), q.last_value is not null);
  end loop;
end $d$;
truncate contract.change restart identity;
commit;
`

// Prepare makes the template that every scenario's database is copied from. Close drops it.
func (l *Local) Prepare(ctx context.Context) error {
	l.template = fmt.Sprintf("contract_%d", os.Getpid())
	if err := l.admin(ctx, "create database "+l.template); err != nil {
		return err
	}
	dsn, err := withDatabase(l.Postgres, l.template)
	if err != nil {
		return err
	}
	if _, err := schema.Migrate(ctx, dsn, schema.Options{}); err != nil {
		return fmt.Errorf("build the schema: %w", err)
	}
	f, err := os.Open(filepath.Join(l.Contract, "dataset", "populated.sql.gz"))
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{string(text), record} {
		if err := conn.Exec(ctx, sql).Close(); err != nil {
			return fmt.Errorf("load the recorded dataset: %w", err)
		}
	}
	return nil
}

// Close drops the template and its copies.
func (l *Local) Close(ctx context.Context) error {
	var errs []error
	for _, name := range append(l.free, l.template) {
		errs = append(errs, l.drop(ctx, name))
	}
	return errors.Join(errs...)
}

func (l *Local) drop(ctx context.Context, name string) error {
	return l.admin(ctx, "drop database if exists "+name+" with (force)")
}

// database gives a database in the start state: one that another scenario left in it, or a new copy of the template.
func (l *Local) database(ctx context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		name := l.free[n-1]
		l.free = l.free[:n-1]
		return name, nil
	}
	name := fmt.Sprintf("%s_%d", l.template, l.serial.Add(1))
	return name, l.admin(ctx, fmt.Sprintf("create database %s template %s", name, l.template))
}

// restore brings a database back to the start state. The daemons that used it have ended; what they had begun ends here.
func (l *Local) restore(ctx context.Context, name string) error {
	dsn, err := withDatabase(l.Postgres, name)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	const end = `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
	for _, sql := range []string{end, undo} {
		if err := conn.PgConn().Exec(ctx, sql).Close(); err != nil {
			return fmt.Errorf("restore the start state: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, name)
	return nil
}

func (l *Local) admin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, l.Postgres)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func withDatabase(dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("parse DSN: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

// Start gives a server in the start state with the scenario's configuration. Stop it when the scenario is over.
func (l *Local) Start(ctx context.Context, s *Scenario) (_ *LocalServer, err error) {
	name, err := l.database(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Dir, name)
	srv := &LocalServer{l: l, name: name, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, srv.Stop(context.WithoutCancel(ctx)))
		}
	}()
	dsn, err := withDatabase(l.Postgres, name)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"conf/stack", "storage/us", "storage/eu"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv.host = listen.Addr().String()
	listen.Close()
	if err := srv.configure(dsn, s.Config); err != nil {
		return nil, err
	}
	if srv.conn, err = pgx.Connect(ctx, dsn); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "registryd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	srv.cmd = exec.CommandContext(context.WithoutCancel(ctx), l.Registryd, "--config-dir", filepath.Join(dir, "conf", "stack"), "--listen", "tcp:"+srv.host)
	srv.cmd.Stderr = log
	srv.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ready := newNotify(dir)
	defer ready.close()
	srv.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.path)
	if err := srv.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start registryd: %w", err)
	}
	srv.done = make(chan error, 1)
	go func() { srv.done <- srv.cmd.Wait() }()
	if err := ready.wait(srv.done, 20*time.Second); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start registryd: %w\n%s", err, text)
	}
	// Starting is not part of the scenario.
	_, err = srv.Changes(ctx)
	return srv, err
}

// LocalServer is one registryd on a database, a storage and a config directory of its own. It implements Server.
type LocalServer struct {
	l         *Local
	name, dir string
	host      string
	conn      *pgx.Conn
	cmd       *exec.Cmd
	done      chan error
	last      int64
}

// configure writes config.yaml: the recorded one, the recordings' own changes to it, the scenario's, and this server's places.
func (s *LocalServer) configure(dsn string, overlay map[string]any) error {
	text, err := os.ReadFile(filepath.Join(s.l.Contract, "dataset", "config.yaml"))
	if err != nil {
		return err
	}
	filled := os.Expand(string(text), func(k string) string {
		switch k {
		case "SERVER_HOSTNAME":
			return s.host
		case "DB_URI":
			return dsn
		case "STORAGE_DIR":
			return filepath.Join(s.dir, "storage")
		case "CONF_DIR":
			return filepath.Join(s.dir, "conf")
		case "REDIS_PORT", "SMTP_PORT":
			return "1"
		}
		return "127.0.0.1"
	})
	var cfg map[string]any
	if err := yaml.Unmarshal([]byte(filled), &cfg); err != nil {
		return fmt.Errorf("read the recorded config.yaml: %w", err)
	}
	maps.Copy(cfg, map[string]any{
		"SUPER_USERS": []string{"admin"}, "FEATURE_SUPERUSERS_FULL_ACCESS": false, "GLOBAL_READONLY_SUPER_USERS": []string{"globalreadonlysuperuser"},
		"DATA_MODEL_CACHE_CONFIG": map[string]string{"engine": "noop"},
	})
	maps.Copy(cfg, overlay)
	out, err := yaml.Marshal(cfg)
	if err != nil {
		return err
	}
	files := map[string][]byte{"conf/stack/config.yaml": out}
	for from, to := range map[string]string{"instance-key.pem": "conf/quay.pem", "instance-key.kid": "conf/quay.kid"} {
		b, err := os.ReadFile(filepath.Join(s.l.Contract, "dataset", "keys", from))
		if err != nil {
			return err
		}
		files[to] = bytes.TrimSpace(b)
		if strings.HasSuffix(to, ".pem") {
			files[to] = b
		}
	}
	if s.l.SchemaKey != "" {
		b, err := os.ReadFile(s.l.SchemaKey)
		if err != nil {
			return err
		}
		files["conf/stack/docker_v2.pem"] = b
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// URL implements Server.
func (s *LocalServer) URL() string { return "http://" + s.host }

// Host implements Server.
func (s *LocalServer) Host() string { return s.host }

// Changes implements Server.
func (s *LocalServer) Changes(ctx context.Context) ([]Row, error) {
	rows, err := s.conn.Query(ctx, `select n, "table", op, row::text, coalesce(was, 'null')::text from contract.change where n > $1 order by n`, s.last)
	if err != nil {
		return nil, fmt.Errorf("read changed rows: %w", err)
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		var r Row
		var row, was string
		if err := rows.Scan(&s.last, &r.Table, &r.Op, &row, &was); err != nil {
			return nil, err
		}
		for text, into := range map[string]*map[string]any{row: &r.Row, was: &r.Was} {
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			if err := d.Decode(into); err != nil {
				return nil, err
			}
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Objects implements Server.
func (s *LocalServer) Objects() (map[string]Stamp, error) {
	out := map[string]Stamp{}
	for location, prefix := range map[string]string{"us": "", "eu": "eu:"} {
		root := filepath.Join(s.dir, "storage", location)
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			key, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			out[prefix+key] = Stamp{info.Size(), info.ModTime()}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list storage: %w", err)
		}
	}
	return out, nil
}

// SQL implements Server.
func (s *LocalServer) SQL(ctx context.Context, statement string) error {
	if err := s.conn.PgConn().Exec(ctx, statement).Close(); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// Worker implements Server.
func (s *LocalServer) Worker(ctx context.Context, name string) error {
	cmd := exec.CommandContext(ctx, s.l.Workers, "once", "--config-dir", filepath.Join(s.dir, "conf", "stack"), name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("worker %s: %w\n%s", name, err, out)
	}
	return nil
}

// DeleteObject implements Server.
func (s *LocalServer) DeleteObject(key string) error {
	return os.Remove(filepath.Join(s.dir, "storage", "us", filepath.FromSlash(key)))
}

// Log is what registryd wrote.
func (s *LocalServer) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "registryd.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Stop ends the processes and removes everything that the scenario had.
func (s *LocalServer) Stop(ctx context.Context) error {
	var errs []error
	if s.done != nil {
		// The database goes with it: nothing is worth a drain.
		_ = s.cmd.Process.Kill()
		var killed *exec.ExitError
		if err := <-s.done; err != nil && !errors.As(err, &killed) {
			errs = append(errs, fmt.Errorf("end registryd: %w", err))
		}
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close(ctx))
	}
	errs = append(errs, os.RemoveAll(s.dir))
	if err := s.l.restore(ctx, s.name); err != nil {
		errs = append(errs, err, s.l.drop(ctx, s.name))
	}
	return errors.Join(errs...)
}

// notify is an sd_notify socket that waits for READY=1.
type notify struct {
	path string
	conn *net.UnixConn
	err  error
}

func newNotify(dir string) *notify {
	n := &notify{path: filepath.Join(dir, "notify")}
	n.conn, n.err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	return n
}

func (n *notify) close() {
	if n.conn != nil {
		n.conn.Close()
	}
}

func (n *notify) wait(done <-chan error, limit time.Duration) error {
	if n.err != nil {
		return n.err
	}
	ready := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			c, err := n.conn.Read(buf)
			if err != nil {
				ready <- err
				return
			}
			if strings.Contains(string(buf[:c]), "READY=1") {
				ready <- nil
				return
			}
		}
	}()
	if err := n.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	select {
	case err := <-ready:
		return err
	case err := <-done:
		return fmt.Errorf("it ended: %w", err)
	}
}

var _ Server = (*LocalServer)(nil)
