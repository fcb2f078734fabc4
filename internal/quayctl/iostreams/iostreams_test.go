package iostreams

import "testing"

func env(vars map[string]string) func(string) string { return func(k string) string { return vars[k] } }

func TestTestStreamsAreNoTerminal(t *testing.T) {
	s, in, out, errOut := Test()
	if s.InIsTerminal() || s.OutIsTerminal() || s.ErrIsTerminal() || s.CanPrompt() || s.Width() != DefaultWidth {
		t.Errorf("%+v", s)
	}
	if s.In != in || s.Out != out || s.Err != errOut {
		t.Error("the buffers are not those of the streams")
	}
	if got := s.OutPalette().Red("x") + s.ErrPalette().Bold("y"); got != "xy" {
		t.Errorf("coloured off a terminal: %q", got)
	}
}

func TestPalettesFollowTheirOwnStream(t *testing.T) {
	s, _, _, _ := Test()
	s.SetTTY(false, true, false)
	p := s.OutPalette()
	for got, want := range map[string]string{
		p.Bold("x"): "\x1b[1mx\x1b[0m", p.Faint("x"): "\x1b[2mx\x1b[0m", p.Red("x"): "\x1b[31mx\x1b[0m",
		p.Green("x"): "\x1b[32mx\x1b[0m", p.Yellow("x"): "\x1b[33mx\x1b[0m", p.Red(""): "",
		s.ErrPalette().Red("x"): "x",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	s.SetColor(false)
	if got := s.OutPalette().Red("x"); got != "x" {
		t.Errorf("coloured although it is forbidden: %q", got)
	}
	if got := (Palette{}).Green("x"); got != "x" {
		t.Errorf("the zero palette colours: %q", got)
	}
}

func TestColorWanted(t *testing.T) {
	for _, c := range []struct {
		vars map[string]string
		want bool
	}{
		{nil, true},
		{map[string]string{"TERM": "xterm"}, true},
		{map[string]string{"NO_COLOR": "1"}, false},
		{map[string]string{"NO_COLOR": ""}, true}, // "when present and not an empty string"
		{map[string]string{"TERM": "dumb"}, false},
	} {
		if got := colorWanted(env(c.vars)); got != c.want {
			t.Errorf("%v: %t", c.vars, got)
		}
	}
}

func TestPromptNeedsBothEnds(t *testing.T) {
	s, _, _, _ := Test()
	for _, c := range []struct{ in, out, want bool }{{true, true, true}, {true, false, false}, {false, true, false}, {false, false, false}} {
		if s.SetTTY(c.in, c.out, true); s.CanPrompt() != c.want {
			t.Errorf("%+v: %t", c, s.CanPrompt())
		}
	}
}

func TestWidth(t *testing.T) {
	s := System(env(map[string]string{"COLUMNS": "123"}))
	if s.Width() != 123 {
		t.Errorf("COLUMNS is not heeded: %d", s.Width())
	}
	if w := System(env(map[string]string{"COLUMNS": "wide"})).Width(); w <= 0 {
		t.Errorf("width %d", w)
	}
	s.SetWidth(40)
	if s.Width() != 40 {
		t.Errorf("width %d", s.Width())
	}
}
