// Package usercmd is `quayctl user`: the users of the registry's own user database.
package usercmd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/jackc/pgx/v5"
	"github.com/quayctl/quayctl/internal/metadata"
	"github.com/quayctl/quayctl/internal/metadata/users"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/spf13/cobra"
)

// opener opens the database of an installation. The caller closes it.
type opener func(context.Context, *cli.Factory) (*metadata.DB, error)

// New returns the command with its subcommands.
func New(f *cli.Factory) *cobra.Command { return newCmd(f, database) }

func newCmd(f *cli.Factory, open opener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Create and list users, and reset their passwords",
		Long: `Create and list users, and reset their passwords.

quayctl writes to the installation's database directly, over its socket: the
registry need not answer, and no one needs to be signed in. A password is read
from standard input or made up and left in a file; it is never an argument and
never printed.`,
		Example: `  quayctl user create alice --email alice@example.com
  quayctl user list`,
	}
	cmd.AddCommand(newCreate(f, open.create), newReset(f, open.reset), newList(f, open.list))
	return cmd
}

// database opens the database of this user's installation.
func database(ctx context.Context, f *cli.Factory) (*metadata.DB, error) {
	l, err := f.Installation()
	if err != nil {
		return nil, err
	}
	// Peer authentication: PostgreSQL knows root (rootless: the user, who is root in the container) as role quay.
	db, err := metadata.Open(ctx, metadata.Options{WriterDSN: l.DSN(), MaxWriter: 1, AppName: "quayctl", Clock: f.Clock, Logger: f.Log})
	if err != nil {
		return nil, err
	}
	if err := db.Ping(ctx); err != nil {
		db.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, cli.NewError(cli.ExitUnhealthy, "database", err, "see `quayctl status` and `quayctl logs postgresql`")
	}
	return db, nil
}

// userError gives the refusals of the user database the remedies and the exit code of a bad argument.
func userError(err error) error {
	var invalid *users.InvalidError
	var taken *users.TakenError
	switch {
	case errors.As(err, &invalid):
		return cli.NewError(cli.ExitUsage, invalid.Field, err, "give another "+invalid.Field)
	case errors.As(err, &taken):
		return cli.NewError(cli.ExitUsage, taken.Field, err, "give another "+taken.Field+"; `quayctl user list` shows who there is")
	case errors.Is(err, users.ErrNoSuchUser):
		return cli.NewError(cli.ExitUsage, "username", err, "`quayctl user list` shows who there is")
	}
	return err
}

// maxPassword, in bytes, is more than any rule accepts and keeps a wrong file from being swallowed whole.
const maxPassword = 4096

// password is a password to set and the file that tells it, if it was made up.
type password struct {
	hash string
	file *renameio.PendingFile // nil when the password came from standard input
	path string
}

// newPassword reads the password from standard input, or makes one up and writes it to a pending file of mode 0600, which
// commit gives its name. A password that was made up has 160 random bits.
func newPassword(f *cli.Factory, fromStdin bool, path string) (_ *password, err error) {
	var text string
	p := &password{}
	if fromStdin {
		if f.IO.InIsTerminal() {
			return nil, cli.NewError(cli.ExitUsage, "--password-stdin", errors.New("standard input is a terminal, which would show it"),
				"pipe it in: quayctl ... --password-stdin < FILE; or leave the flag out, and one is made up")
		}
		b, err := io.ReadAll(io.LimitReader(f.IO.In, maxPassword+1))
		if err != nil {
			return nil, fmt.Errorf("read password from standard input: %w", err)
		}
		if len(b) > maxPassword {
			return nil, cli.Usagef("the password on standard input is longer than %d bytes", maxPassword)
		}
		text = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
		if text == "" {
			return nil, cli.Usagef("there is no password on standard input")
		}
	} else {
		text = strings.ToLower(rand.Text() + rand.Text())[:32]
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make directory of password file: %w", err)
		}
		p.path = path
		p.file, err = renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o600))
		if err != nil {
			return nil, fmt.Errorf("make password file: %w", err)
		}
		if _, err := fmt.Fprintln(p.file, text); err != nil {
			return nil, errors.Join(fmt.Errorf("write password file: %w", err), p.discard())
		}
	}
	if p.hash, err = users.HashPassword(text); err != nil {
		return nil, errors.Join(userError(err), p.discard())
	}
	return p, nil
}

// commit makes the file durable under its name; without a file it does nothing. It is the last before the database
// commits: an interruption leaves at worst a file with a password that was never set, and the command can be run again.
func (p *password) commit() error {
	if p.file == nil {
		return nil
	}
	err := p.file.CloseAtomicallyReplace()
	if err == nil {
		err = syncDir(filepath.Dir(p.path))
	}
	if err != nil {
		return fmt.Errorf("write password file %s: %w", p.path, err)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// discard removes the pending file; after commit it does nothing.
func (p *password) discard() error {
	if p.file == nil {
		return nil
	}
	return p.file.Cleanup()
}

// passwordFile is where the password of a user is left unless told otherwise.
func passwordFile(f *cli.Factory, given, username string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	l, err := f.Layout("")
	if err != nil {
		return "", err
	}
	return filepath.Join(l.Config, "passwords", username), nil
}

// changed is the JSON shape of create and reset-password, schema quayctl/user/v1.
type changed struct {
	Username     string `json:"username"`
	Email        string `json:"email,omitempty"`
	PasswordFile string `json:"password_file,omitempty"` // absent when the password came from standard input
}

func report(f *cli.Factory, format cli.Format, what string, c changed) error {
	if format == cli.FormatJSON {
		return cli.WriteJSON(f.IO.Out, "user", 1, c)
	}
	fmt.Fprintf(f.IO.Out, "%s %s\n", what, c.Username)
	if c.PasswordFile != "" {
		fmt.Fprintf(f.IO.Out, "the password is in %s\n", c.PasswordFile)
	}
	return nil
}

func addPasswordFlags(cmd *cobra.Command, fromStdin *bool, file *string) {
	cmd.Flags().BoolVar(fromStdin, "password-stdin", false, "read the password from standard input instead of making one up")
	cmd.Flags().StringVar(file, "password-file", "", "write the password that is made up to this `file`, mode 0600 (default passwords/NAME in the configuration directory)")
}

func checkPasswordFlags(fromStdin bool, file string) error {
	if fromStdin && file != "" {
		e := cli.Usagef("--password-stdin and --password-file exclude each other: only a password that is made up is written to a file")
		e.Remedy = "give one of them"
		return e
	}
	return nil
}

type createOptions struct {
	factory         *cli.Factory
	format          cli.Format
	username, email string
	fromStdin       bool
	file            string
}

func newCreate(f *cli.Factory, runF func(context.Context, *createOptions) error) *cobra.Command {
	opts := &createOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "create NAME --email ADDRESS",
		Short: "Create a user",
		Long: `Create a user. The password is read from standard input, or made up and
written to a file of mode 0600 whose path is printed.`,
		Example: `  quayctl user create alice --email alice@example.com
  quayctl user create bob --email bob@example.com --password-stdin < bobs-password`,
		Args:              cli.Args("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.username = args[0]
			if err := checkPasswordFlags(opts.fromStdin, opts.file); err != nil {
				return err
			}
			return runF(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringVar(&opts.email, "email", "", "mail `address` of the user")
	addPasswordFlags(cmd, &opts.fromStdin, &opts.file)
	cli.AddOutputFlag(cmd, &opts.format)
	must(cmd.MarkFlagRequired("email"))
	return cmd
}

// must is for errors that only a programming error can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (open opener) create(ctx context.Context, opts *createOptions) (err error) {
	if err := users.ValidateUsername(opts.username); err != nil {
		return userError(err)
	}
	if err := users.ValidateEmail(opts.email); err != nil {
		return userError(err)
	}
	f := opts.factory
	db, err := open(ctx, f)
	if err != nil {
		return err
	}
	defer db.Close()
	path, err := passwordFile(f, opts.file, opts.username)
	if err != nil {
		return err
	}
	p, err := newPassword(f, opts.fromStdin, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.discard()) }()
	err = db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := users.Create(ctx, tx, users.New{Username: opts.username, Email: opts.email, PasswordHash: p.hash, Verified: true, Now: f.Clock.Now()}); err != nil {
			return err
		}
		return p.commit()
	})
	if err != nil {
		return userError(err)
	}
	return report(f, opts.format, "created user", changed{opts.username, opts.email, p.path})
}

type resetOptions struct {
	factory   *cli.Factory
	format    cli.Format
	username  string
	fromStdin bool
	file      string
}

func newReset(f *cli.Factory, runF func(context.Context, *resetOptions) error) *cobra.Command {
	opts := &resetOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "reset-password NAME",
		Short: "Give a user a new password",
		Long: `Give a user a new password, and end the user's sessions. The password is read
from standard input, or made up and written to a file of mode 0600 whose path is printed.`,
		Example: `  quayctl user reset-password alice
  quayctl user reset-password alice --password-stdin < new-password`,
		Args:              cli.Args("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.username = args[0]
			if err := checkPasswordFlags(opts.fromStdin, opts.file); err != nil {
				return err
			}
			return runF(cmd.Context(), opts)
		},
	}
	addPasswordFlags(cmd, &opts.fromStdin, &opts.file)
	cli.AddOutputFlag(cmd, &opts.format)
	return cmd
}

func (open opener) reset(ctx context.Context, opts *resetOptions) (err error) {
	f := opts.factory
	// The name becomes part of a path: only what can be a user's name may.
	if strings.ContainsAny(opts.username, "/\x00") || opts.username == "" || opts.username == "." || opts.username == ".." {
		return cli.Usagef("%q cannot be the name of a user", opts.username)
	}
	db, err := open(ctx, f)
	if err != nil {
		return err
	}
	defer db.Close()
	path, err := passwordFile(f, opts.file, opts.username)
	if err != nil {
		return err
	}
	p, err := newPassword(f, opts.fromStdin, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.discard()) }()
	err = db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := users.ResetPassword(ctx, tx, opts.username, p.hash, f.Clock.Now()); err != nil {
			return err
		}
		return p.commit()
	})
	if err != nil {
		return userError(err)
	}
	return report(f, opts.format, "reset the password of", changed{Username: opts.username, PasswordFile: p.path})
}

type listOptions struct {
	factory *cli.Factory
	format  cli.Format
}

// listed is one user of the JSON shape {"users": [...]}, schema quayctl/users/v1. Times are RFC 3339, UTC; null when unknown.
type listed struct {
	Username     string     `json:"username"`
	Email        string     `json:"email"`
	Enabled      bool       `json:"enabled"`
	Verified     bool       `json:"verified"`
	Created      *time.Time `json:"created"`
	LastAccessed *time.Time `json:"last_accessed"`
}

func newList(f *cli.Factory, runF func(context.Context, *listOptions) error) *cobra.Command {
	opts := &listOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users",
		Long:  "List the users by name, without organizations and robots.",
		Example: `  quayctl user list
  quayctl user list --output json`,
		Args:              cli.Args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runF(cmd.Context(), opts) },
	}
	cli.AddOutputFlag(cmd, &opts.format)
	return cmd
}

func (open opener) list(ctx context.Context, opts *listOptions) error {
	db, err := open(ctx, opts.factory)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := users.List(ctx, db.Writer())
	if err != nil {
		return err
	}
	all := []listed{}
	for _, r := range rows {
		all = append(all, listed{r.Username, r.Email, r.Enabled, r.Verified, r.CreationDate, r.LastAccessed})
	}
	if opts.format == cli.FormatJSON {
		return cli.WriteJSON(opts.factory.IO.Out, "users", 1, map[string]any{"users": all})
	}
	t := cli.NewTable("name", "email", "state", "created", "last access")
	for _, u := range all {
		state := "enabled"
		if !u.Enabled {
			state = "disabled"
		}
		t.Row(u.Username, u.Email, state, day(u.Created), day(u.LastAccessed))
	}
	return t.Write(opts.factory.IO)
}

func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}
