package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/quayctl/quayctl/internal/quayctl/iostreams"
)

// ExitCode is the status quayctl ends with. Scripts depend on the numbers: none is ever given another meaning.
type ExitCode int

// The codes. ExitCodes tells them to users.
const (
	ExitOK               ExitCode = 0
	ExitFailure          ExitCode = 1
	ExitUsage            ExitCode = 2
	ExitPreflight        ExitCode = 3
	ExitBundle           ExitCode = 4
	ExitUnhealthy        ExitCode = 5
	ExitConfig           ExitCode = 6
	ExitLocked           ExitCode = 7
	ExitAlreadyInstalled ExitCode = 8
	ExitNotInstalled     ExitCode = 9
	ExitInterrupted      ExitCode = 130
)

// ExitCodeDoc describes one exit code.
type ExitCodeDoc struct {
	Code    ExitCode
	Name    string // as in "code" of a JSON error
	Meaning string
	ThenDo  string // what a script or a person does about it
}

// ExitCodes describes every exit code, in ascending order. docs/exit-codes.md and
// `quayctl help exit-codes` are written from it.
func ExitCodes() []ExitCodeDoc {
	return []ExitCodeDoc{
		{ExitOK, "ok", "The command did what it was asked to.", "Nothing."},
		{ExitFailure, "failure", "Something failed that has no code of its own: a file, a service, Podman, systemd.", "Read the cause and the remedy. An interrupted change is finished by running the same command again."},
		{ExitUsage, "usage", "An unknown command or flag, a missing or impossible value. Nothing was done.", "Correct the command line; see `quayctl help COMMAND`."},
		{ExitPreflight, "preflight", "The machine does not meet a requirement. Nothing was changed.", "Follow the remedy of each finding, or waive a check by name with --ignore-preflight."},
		{ExitBundle, "bundle", "The bundle is unreadable, incomplete, altered, signed by another key, or made for another machine. Nothing was loaded.", "Copy the bundle again and compare its checksum with the published one."},
		{ExitUnhealthy, "unhealthy", "The registry is installed but does not serve, or did not become ready in time.", "See `quayctl status` and `quayctl logs`."},
		{ExitConfig, "config", "A configuration file has errors.", "Correct the keys that are named; check with `quayctl config validate FILE`."},
		{ExitLocked, "locked", "Another quayctl is changing this installation.", "Wait until the process that is named has ended."},
		{ExitAlreadyInstalled, "already-installed", "There is an installation already.", "Use the verb that the message names."},
		{ExitNotInstalled, "not-installed", "There is no installation here.", "Install first, or run as the user who did: root and every other user have installations of their own."},
		{ExitInterrupted, "interrupted", "Stopped by Ctrl-C or a termination signal before the end.", "Run the same command again: it takes up where it stopped."},
	}
}

// String is the name of the code as it appears in JSON errors.
func (c ExitCode) String() string {
	for _, d := range ExitCodes() {
		if d.Code == c {
			return d.Name
		}
	}
	return fmt.Sprintf("exit-%d", int(c))
}

// Error is a failure as a user is told it: the thing, the cause, the remedy, and the exit code.
type Error struct {
	Code   ExitCode
	Thing  string // what failed: "port 8443", "bundle /mnt/x.tar"; may be empty
	Cause  error  // why; never nil
	Remedy string // what to do, a sentence or a command line; may be empty
	// Details goes into the JSON error as "details"; nil for none.
	Details any
	// Reported says that the command has already written its result, so that
	// nothing more is written to standard output and, with an empty Thing, to standard error.
	Reported bool
}

// NewError returns an Error. Cause must not be nil; thing and remedy may be empty.
func NewError(code ExitCode, thing string, cause error, remedy string) *Error {
	return &Error{Code: code, Thing: thing, Cause: cause, Remedy: remedy}
}

// Usagef returns a usage error (exit code 2).
func Usagef(format string, args ...any) *Error {
	return &Error{Code: ExitUsage, Cause: fmt.Errorf(format, args...)}
}

// Exit ends the command with code after it has written its result itself:
// `status` of an unhealthy registry, for one. Nothing more is printed.
func Exit(code ExitCode) *Error {
	return &Error{Code: code, Cause: errors.New(code.String()), Reported: true}
}

// Error is "thing: cause".
func (e *Error) Error() string {
	if e.Thing == "" {
		return e.Cause.Error()
	}
	return e.Thing + ": " + e.Cause.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ErrInterrupted is the cancellation cause of a command's context after a signal.
var ErrInterrupted = errors.New("interrupted")

// AsError gives err as an *Error: itself if there is one in its chain (with the outer text kept as
// the cause), exit code 130 if the context was cancelled by a signal, and 1 otherwise. It gives nil for nil.
func AsError(ctx context.Context, err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if wrapped := error(e); wrapped != err { //nolint:errorlint // identity is the question
			outer := *e
			outer.Thing, outer.Cause = "", err
			return &outer
		}
		return e
	}
	if errors.Is(err, ErrInterrupted) || (errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), ErrInterrupted)) {
		return &Error{Code: ExitInterrupted, Cause: ErrInterrupted, Remedy: "run the same command again; it takes up where it stopped"}
	}
	return &Error{Code: ExitFailure, Cause: err}
}

// errorDoc is the JSON form of an Error, schema quayctl/error/v1.
type errorDoc struct {
	Schema string    `json:"schema"`
	Error  errorBody `json:"error"`
}

type errorBody struct {
	Code     string `json:"code"`
	ExitCode int    `json:"exit_code"`
	Message  string `json:"message"` // thing and cause
	Thing    string `json:"thing,omitempty"`
	Cause    string `json:"cause"`
	Remedy   string `json:"remedy,omitempty"`
	Details  any    `json:"details,omitempty"`
}

// Report tells the user of e: always in words on standard error, and with
// FormatJSON as one object on standard output, which else would stay empty.
func (e *Error) Report(io *iostreams.IOStreams, format Format) {
	if e.Reported && e.Thing == "" {
		return
	}
	p := io.ErrPalette()
	fmt.Fprintf(io.Err, "%s %s\n", p.Red("error:"), e.Error())
	if e.Remedy != "" {
		fmt.Fprintf(io.Err, "%s %s\n", p.Bold("remedy:"), indent(e.Remedy))
	}
	if format == FormatJSON && !e.Reported {
		// Nothing is left to tell it to if this fails; the exit code is not 0 anyway.
		_ = writeJSON(io.Out, errorDoc{Schema: Schema("error", 1), Error: errorBody{
			Code: e.Code.String(), ExitCode: int(e.Code), Message: e.Error(), Thing: e.Thing,
			Cause: e.Cause.Error(), Remedy: e.Remedy, Details: e.Details,
		}})
	}
}

func indent(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n        ") }

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
