// Package iostreams is what a command may know about the terminal: its three
// streams, whether each of them is one, whether to colour, and how wide it is.
package iostreams

import (
	"bytes"
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
)

// DefaultWidth is the width in columns that is assumed where the output is no terminal.
const DefaultWidth = 80

// IOStreams are the streams of one run of the command.
type IOStreams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer

	inTTY, outTTY, errTTY bool
	color                 bool
	width                 func() int
}

// System returns the streams of this process. getenv is os.Getenv; NO_COLOR
// (https://no-color.org), TERM=dumb and COLUMNS are honoured.
func System(getenv func(string) string) *IOStreams {
	s := &IOStreams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		inTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		outTTY: term.IsTerminal(int(os.Stdout.Fd())),
		errTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
	s.color = colorWanted(getenv)
	s.width = func() int {
		if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 {
			return n
		}
		if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 0 {
			return w
		}
		if w, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && w > 0 {
			return w
		}
		return DefaultWidth
	}
	return s
}

// Test returns streams over buffers, none of them a terminal, without colour, 80 columns wide.
func Test() (s *IOStreams, in, out, errOut *bytes.Buffer) {
	in, out, errOut = &bytes.Buffer{}, &bytes.Buffer{}, &bytes.Buffer{}
	s = &IOStreams{In: in, Out: out, Err: errOut, color: true, width: func() int { return DefaultWidth }}
	return s, in, out, errOut
}

func colorWanted(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// SetTTY says which streams shall count as terminals; for tests.
func (s *IOStreams) SetTTY(in, out, err bool) { s.inTTY, s.outTTY, s.errTTY = in, out, err }

// SetColor allows or forbids colour where the stream is a terminal; for tests.
func (s *IOStreams) SetColor(on bool) { s.color = on }

// SetWidth fixes the width in columns; for tests.
func (s *IOStreams) SetWidth(columns int) { s.width = func() int { return columns } }

// InIsTerminal tells whether standard input is a terminal.
func (s *IOStreams) InIsTerminal() bool { return s.inTTY }

// OutIsTerminal tells whether standard output is a terminal.
func (s *IOStreams) OutIsTerminal() bool { return s.outTTY }

// ErrIsTerminal tells whether standard error is a terminal.
func (s *IOStreams) ErrIsTerminal() bool { return s.errTTY }

// CanPrompt tells whether a person can be asked: both ends are a terminal.
func (s *IOStreams) CanPrompt() bool { return s.inTTY && s.outTTY }

// Width is the width of the terminal in columns.
func (s *IOStreams) Width() int { return s.width() }

// Palette colours text. The zero value leaves it as it is.
type Palette struct{ on bool }

// OutPalette is the palette for Out.
func (s *IOStreams) OutPalette() Palette { return Palette{s.color && s.outTTY} }

// ErrPalette is the palette for Err.
func (s *IOStreams) ErrPalette() Palette { return Palette{s.color && s.errTTY} }

func (p Palette) sgr(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bold returns text in bold.
func (p Palette) Bold(text string) string { return p.sgr("1", text) }

// Faint returns text dimmed.
func (p Palette) Faint(text string) string { return p.sgr("2", text) }

// Red is for what failed.
func (p Palette) Red(text string) string { return p.sgr("31", text) }

// Green is for what is well.
func (p Palette) Green(text string) string { return p.sgr("32", text) }

// Yellow is for warnings.
func (p Palette) Yellow(text string) string { return p.sgr("33", text) }
