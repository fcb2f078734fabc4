package quayctl

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/quayctl/quayctl/internal/quayctl/cli"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write what the scripts in testdata/scripts found into their golden files")

// scripted is the environment variable that says whose installation a script works on. Scripts run as an ordinary
// user, whose paths all lie below $HOME, so that they find the same on every machine and touch nothing of it.
const scripted = "QUAYCTL_SCRIPT_UID"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"quayctl": func() {
			f := cli.System(cli.Version{Version: "1.2.3", Commit: "0123456789abcdef0123456789abcdef01234567"})
			if uid, err := strconv.Atoi(os.Getenv(scripted)); err == nil {
				f.UID = uid
			}
			os.Exit(start(f, os.Args[1:]))
		},
	})
}

// TestScripts runs testdata/scripts/*.txtar against quayctl as a process of its own. Besides the commands of testscript they use
//
//	exits CODE PROGRAM [ARG...]         run it and demand this exit code
//	tty CODE INPUT PROGRAM [ARG...]     the same on a terminal on which the file INPUT is typed, and Ctrl-D at its end; what
//	                                    the terminal shows becomes the file screen
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("..", "..", "testdata", "scripts"),
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			// Not below the script's own directory: the paths of sockets may not be long.
			home, err := os.MkdirTemp("", "home")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(home) })
			e.Setenv("HOME", home)
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
			e.Setenv("TERM", "xterm")
			e.Setenv(scripted, "1000")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "tty": tty},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("exits: %q is no exit code", args[0])
	}
	demand(ts, want, ts.Exec(args[1], args[2:]...), args[1:])
}

// demand fails unless err, of a program that was run, means this exit code.
func demand(ts *testscript.TestScript, want int, err error, command []string) {
	got := 0
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", strings.Join(command, " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(command, " "), got, want)
	}
}

// endOfInput is Ctrl-D.
const endOfInput = 4

// tty stands in for testscript's own terminal, which may lose the last lines of a program that ends at once.
func tty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: tty CODE INPUT PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("tty: %q is no exit code", args[0])
	}
	keyboard, terminal, err := openTerminal()
	ts.Check(err)
	defer keyboard.Close()
	program, err := execpath(ts, args[2])
	ts.Check(err)
	cmd := exec.Command(program, args[3:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), environment(ts)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	ts.Check(terminal.Close())
	_, err = keyboard.Write(append([]byte(ts.ReadFile(args[1])), endOfInput))
	ts.Check(err)
	// It ends with EIO once the last process has closed the terminal, and not before everything was read.
	screen, err := io.ReadAll(keyboard)
	if err != nil && !errors.Is(err, syscall.EIO) {
		ts.Fatalf("read terminal: %v", err)
	}
	shown := strings.ReplaceAll(string(screen), "\r\n", "\n")
	ts.Logf("[screen]\n%s", shown)
	ts.Check(os.WriteFile(ts.MkAbs("screen"), []byte(shown), 0o600))
	demand(ts, want, cmd.Wait(), args[2:])
}

// openTerminal gives both ends of a new pseudoterminal, pts(4).
func openTerminal() (keyboard, terminal *os.File, err error) {
	keyboard, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, keyboard.Close())
	}
	return keyboard, terminal, nil
}

func execpath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s in PATH", name)
}

// environment is what a script may change and quayctl reads.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "TERM", "NO_COLOR", "ACCESSIBLE", scripted} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}
