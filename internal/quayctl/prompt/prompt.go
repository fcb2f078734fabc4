// Package prompt asks a person what a command was not told by flags. It is used only where both ends are a
// terminal; every question has a flag.
package prompt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"charm.land/huh/v2"
	"github.com/quayctl/quayctl/internal/metadata/users"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

// InstallAnswers are the answers of `install`; as an argument, the defaults that are offered.
type InstallAnswers struct {
	Hostname string // --hostname: DNS name or IP address
	Port     int    // --port
	DataDir  string // --data-dir: absolute
	// CertFile and KeyFile are --ssl-cert and --ssl-key: both empty when quayctl shall make its own.
	CertFile, KeyFile string
	InitUser          string // --init-user
}

// Install asks, shows a summary and asks for consent. A person who says no or presses Ctrl-C gives an error
// with exit code 130; nothing has been changed then. With accessible the questions are plain lines, one after
// the other, for screen readers and terminals that cannot move the cursor.
func Install(ctx context.Context, io *iostreams.IOStreams, accessible bool, defaults InstallAnswers) (InstallAnswers, error) {
	a := defaults
	if a.Port == 0 {
		a.Port = 8443
	}
	if accessible {
		return installPlain(ctx, io, a)
	}
	port, own, consent := strconv.Itoa(a.Port), a.CertFile == "", true
	if err := run(ctx, io,
		huh.NewGroup(
			huh.NewInput().Title("Host name").Description("The name or address that clients will use (--hostname)").
				Value(&a.Hostname).Validate(cli.ValidHostname),
			huh.NewInput().Title("Port").Description("HTTPS, TCP (--port)").Value(&port).Validate(validPort),
			huh.NewInput().Title("Data directory").Description("Images and database (--data-dir)").Value(&a.DataDir).Validate(validDir),
			huh.NewInput().Title("First user").Description("May do everything; the password is made up and left in a file (--init-user)").
				Value(&a.InitUser).Validate(users.ValidateUsername),
			huh.NewSelect[bool]().Title("Certificate").Description("(--ssl-cert, --ssl-key)").Options(
				huh.NewOption("make a certificate authority and a certificate", true),
				huh.NewOption("use a certificate of mine", false)).Value(&own),
		)); err != nil {
		return a, err
	}
	if own {
		a.CertFile, a.KeyFile = "", ""
	} else if err := run(ctx, io, huh.NewGroup(
		huh.NewInput().Title("Certificate file").Description("PEM, the server's own certificate first (--ssl-cert)").Value(&a.CertFile).Validate(validFile),
		huh.NewInput().Title("Key file").Description("PEM, not encrypted (--ssl-key)").Value(&a.KeyFile).Validate(validFile),
	)); err != nil {
		return a, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return a, fmt.Errorf("read port: %w", err)
	}
	a.Port = n
	if err := run(ctx, io, huh.NewGroup(
		huh.NewConfirm().Title("Install now?").Description(a.summary()).Affirmative("Install").Negative("Cancel").Value(&consent),
	)); err != nil {
		return a, err
	}
	if !consent {
		return a, declined()
	}
	return a, nil
}

func (a InstallAnswers) summary() string {
	certificate := "made by quayctl"
	if a.CertFile != "" {
		certificate = a.CertFile
	}
	return fmt.Sprintf("registry      https://%s:%d\ndata          %s\ncertificate   %s\nfirst user    %s", a.Hostname, a.Port, a.DataDir, certificate, a.InitUser)
}

// Confirm asks a question that only yes or no answers; false is the default.
func Confirm(ctx context.Context, io *iostreams.IOStreams, accessible bool, question, explanation string) (bool, error) {
	if accessible {
		return newPlain(io).yes(ctx, explanation+"\n"+question, false)
	}
	var yes bool
	err := run(ctx, io, huh.NewGroup(huh.NewConfirm().Title(question).Description(explanation).Value(&yes)))
	return yes, err
}

// Typed asks for a word to be typed, for what cannot be taken back.
func Typed(ctx context.Context, io *iostreams.IOStreams, accessible bool, question, word string) error {
	isWord := func(s string) error {
		if s != word {
			return fmt.Errorf("type %q, or press Ctrl-C", word)
		}
		return nil
	}
	hint := fmt.Sprintf("Type %q to go on, or press Ctrl-C", word)
	if accessible {
		_, err := newPlain(io).text(ctx, question+"\n"+hint, "", isWord)
		return err
	}
	var typed string
	return run(ctx, io, huh.NewGroup(huh.NewInput().Title(question).
		Description(hint).Value(&typed).Validate(isWord)))
}

// Accessible tells whether plain questions are wanted: TERM=dumb or ACCESSIBLE set, as in other programs with this kind of form.
func Accessible(getenv func(string) string) bool {
	return getenv("ACCESSIBLE") != "" || getenv("TERM") == "dumb"
}

func run(ctx context.Context, io *iostreams.IOStreams, group *huh.Group) error {
	err := huh.NewForm(group).WithInput(io.In).WithOutput(io.Out).WithWidth(min(io.Width(), 100)).RunWithContext(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, huh.ErrUserAborted):
		return declined()
	case err != nil:
		return fmt.Errorf("ask: %w", err)
	}
	return nil
}

func declined() error {
	return cli.NewError(cli.ExitInterrupted, "", errors.New("cancelled; nothing was changed"), "")
}

func validPort(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 65535 {
		return errors.New("give a number from 1 to 65535")
	}
	return nil
}

func validDir(s string) error {
	if !filepath.IsAbs(s) || filepath.Clean(s) == "/" {
		return errors.New("give an absolute path")
	}
	return nil
}

func validFile(s string) error {
	info, err := os.Stat(s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file")
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("that is no file")
	}
	return nil
}
