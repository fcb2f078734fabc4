// Command serve starts a throwaway PostgreSQL.
//
//	serve                    prints the DSN of its superuser on one line; ends on SIGTERM or when standard input ends
//	serve -- COMMAND ARG…    runs the command with the DSN in QUAY_TEST_POSTGRES, and ends with it and its exit code
//
// When it has ended nothing of the server is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code, err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (code int, err error) {
	if len(args) == 0 {
		return 0, pgtest.Serve(ctx, os.Stdin, os.Stdout)
	}
	if args[0] != "--" || len(args) == 1 {
		return 2, errors.New("usage: serve [-- COMMAND ARG…]")
	}
	server, err := pgtest.Start(ctx)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	cmd := exec.CommandContext(ctx, args[1], args[2:]...) //nolint:gosec // running the caller's command is what it is for
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), pgtest.ServerEnv+"="+server.DSN)
	// The command ends the way a terminal or a supervisor would end it, not by a kill.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}
