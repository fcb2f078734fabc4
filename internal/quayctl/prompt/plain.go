package prompt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/quayctl/quayctl/internal/metadata/users"
	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

// plain asks in lines: a question with its default in brackets, an answer, Enter. It moves no cursor and uses no colour.
type plain struct {
	in  *bufio.Reader
	out io.Writer
}

func newPlain(s *iostreams.IOStreams) *plain { return &plain{bufio.NewReader(s.In), s.Out} }

// text asks until valid accepts the answer; an empty one stands for the default. The end of the input declines.
func (p *plain) text(ctx context.Context, question, otherwise string, valid func(string) error) (string, error) {
	if otherwise != "" {
		question += " [" + otherwise + "]"
	}
	for {
		if _, err := fmt.Fprint(p.out, question+": "); err != nil {
			return "", fmt.Errorf("ask: %w", err)
		}
		line, err := p.line(ctx)
		if err != nil {
			return "", err
		}
		if line == "" {
			line = otherwise
		}
		if err := valid(line); err != nil {
			fmt.Fprintf(p.out, "%v\n", err)
			continue
		}
		return line, nil
	}
}

// line reads one answer. A signal ends the wait, although nothing can end the read itself: the process is about to end.
func (p *plain) line(ctx context.Context) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := p.in.ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case a := <-got:
		if errors.Is(a.err, io.EOF) {
			return "", declined()
		}
		if a.err != nil {
			return "", fmt.Errorf("read answer: %w", a.err)
		}
		return strings.TrimSpace(a.line), nil
	}
}

func (p *plain) yes(ctx context.Context, question string, otherwise bool) (bool, error) {
	fallback := "no"
	if otherwise {
		fallback = "yes"
	}
	var yes bool
	_, err := p.text(ctx, question+" yes or no", fallback, func(s string) error {
		switch strings.ToLower(s) {
		case "y", "yes":
			yes = true
		case "n", "no":
			yes = false
		default:
			return errors.New("answer yes or no")
		}
		return nil
	})
	return yes, err
}

// installPlain is Install in plain lines.
func installPlain(ctx context.Context, s *iostreams.IOStreams, a InstallAnswers) (InstallAnswers, error) {
	p := newPlain(s)
	var err error
	if a.Hostname, err = p.text(ctx, "Host name or address that clients will use (--hostname)", a.Hostname, cli.ValidHostname); err != nil {
		return a, err
	}
	port, err := p.text(ctx, "Port of HTTPS (--port)", strconv.Itoa(a.Port), validPort)
	if err != nil {
		return a, err
	}
	if a.Port, err = strconv.Atoi(port); err != nil {
		return a, fmt.Errorf("read port: %w", err)
	}
	if a.DataDir, err = p.text(ctx, "Directory of images and database (--data-dir)", a.DataDir, validDir); err != nil {
		return a, err
	}
	if a.InitUser, err = p.text(ctx, "First user, an administrator; the password is made up and left in a file (--init-user)", a.InitUser, users.ValidateUsername); err != nil {
		return a, err
	}
	own, err := p.yes(ctx, "Make a certificate authority and a certificate?", a.CertFile == "")
	if err != nil {
		return a, err
	}
	if own {
		a.CertFile, a.KeyFile = "", ""
	} else {
		if a.CertFile, err = p.text(ctx, "Certificate file, PEM, the server's own certificate first (--ssl-cert)", a.CertFile, validFile); err != nil {
			return a, err
		}
		if a.KeyFile, err = p.text(ctx, "Key file, PEM, not encrypted (--ssl-key)", a.KeyFile, validFile); err != nil {
			return a, err
		}
	}
	consent, err := p.yes(ctx, a.summary()+"\nInstall now?", true)
	if err != nil {
		return a, err
	}
	if !consent {
		return a, declined()
	}
	return a, nil
}
