package upload

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func inputOf(t *testing.T, name string) []byte {
	t.Helper()
	switch name {
	case "empty":
		return nil
	case "hello world":
		return []byte(name)
	case "1000*a":
		return bytes.Repeat([]byte("a"), 1000)
	case "64*b":
		return bytes.Repeat([]byte("b"), 64)
	case "63*c":
		return bytes.Repeat([]byte("c"), 63)
	case "65*d":
		return bytes.Repeat([]byte("d"), 65)
	case "1 MiB of 0..255":
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}
	t.Fatalf("no input is known for vector %q", name)
	return nil
}

// States made by the legacy server, each equal to ours byte for byte and continued by us.
func TestHashVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/sha_state.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Input, State, Hexdigest string }
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		input := inputOf(t, v.Input)
		for _, piece := range []int{len(input) + 1, 1, 7, 64, 100} {
			h := NewHash()
			for rest := input; len(rest) > 0; {
				n := min(piece, len(rest))
				_, _ = h.Write(rest[:n])
				rest = rest[n:]
			}
			state, err := h.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			if string(state) != v.State {
				t.Errorf("%s in pieces of %d: state\n%s, want\n%s", v.Input, piece, state, v.State)
			}
			if h.Len() != int64(len(input)) || h.Digest() != "sha256:"+v.Hexdigest {
				t.Errorf("%s: %d bytes, %s; want %d, %s", v.Input, h.Len(), h.Digest(), len(input), v.Hexdigest)
			}
		}
		var restored Hash
		if err := restored.UnmarshalText([]byte(v.State)); err != nil {
			t.Fatal(err)
		}
		whole := NewHash()
		_, _ = whole.Write(input)
		for _, more := range []string{"", "more", strings.Repeat("x", 200)} {
			_, _ = restored.Write([]byte(more))
			_, _ = whole.Write([]byte(more))
			if restored.Digest() != whole.Digest() || restored.Len() != whole.Len() {
				t.Errorf("%s + %q: restored %s, whole %s", v.Input, more, restored.Digest(), whole.Digest())
			}
			a, _ := restored.MarshalText()
			b, _ := whole.MarshalText()
			if !bytes.Equal(a, b) {
				t.Errorf("%s + %q: states differ", v.Input, more)
			}
		}
	}
}

func TestHashRefuses(t *testing.T) {
	good, err := NewHash().MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int, to byte) string {
		var p [160]byte
		raw := decode(t, good)
		copy(p[:], raw)
		p[at] = to
		return encode(p[:])
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"not base64":    "!!!!",
		"short":         string(good[:40]),
		"another class": flip(20, 'X'),
		"64 pending":    flip(len(pickleHead)+64, 64),
		"half a block":  flip(len(pickleHead)+72, 8),
		"trailing":      flip(159, 'x'),
	} {
		if err := new(Hash).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzHashState(f *testing.F) {
	f.Add([]byte("hello"), 2, 3)
	f.Fuzz(func(t *testing.T, data []byte, a, b int) {
		whole := NewHash()
		_, _ = whole.Write(data)
		h := NewHash()
		cuts := []int{0, clamp(a, len(data)), clamp(b, len(data)), len(data)}
		if cuts[1] > cuts[2] {
			cuts[1], cuts[2] = cuts[2], cuts[1]
		}
		for i := range 3 {
			_, _ = h.Write(data[cuts[i]:cuts[i+1]])
			state, err := h.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			h = new(Hash)
			if err := h.UnmarshalText(state); err != nil {
				t.Fatal(err)
			}
		}
		if h.Digest() != whole.Digest() {
			t.Errorf("resumed at %v: %s, whole %s", cuts, h.Digest(), whole.Digest())
		}
	})
}
