package upload

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/quayctl/quayctl/internal/storage"
)

func pieces(data []byte, size int) func() []byte {
	return func() []byte {
		if len(data) == 0 {
			return nil
		}
		n := min(size, len(data))
		p := data[:n]
		data = data[n:]
		return p
	}
}

// samples are contents that make a compressor use every kind of block and code.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	skewed := make([]byte, 300_000)
	for i := range skewed {
		skewed[i] = byte(r.ExpFloat64() * 6)
	}
	words := make([]string, 40_000)
	for i := range words {
		words[i] = strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(9))
	}
	return map[string][]byte{
		"nothing": nil,
		"a byte":  {7},
		"short":   []byte("hello, hello, hello"),
		"zeros":   make([]byte, 1<<20),
		"noise":   noise,
		"skewed":  skewed,
		"words":   []byte(strings.Join(words, " ")),
		"mixed":   bytes.Join([][]byte{noise[:5000], make([]byte, 70_000), skewed, noise}, nil),
	}
}

func compressed(t testing.TB, content []byte, make func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := make(&b)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMeasure(t *testing.T) {
	writers := map[string]func(io.Writer) (io.WriteCloser, error){
		"zlib": func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil },
		"gzip with every header field": func(w io.Writer) (io.WriteCloser, error) {
			g := stdgzip.NewWriter(w)
			g.Name, g.Comment, g.Extra = "a name", "a comment", []byte("extra")
			return g, nil
		},
	}
	for _, level := range []int{flate.HuffmanOnly, 0, 1, 5, 6, 9} {
		writers["gzip "+string(rune('a'+level+2))] = func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriterLevel(w, level) }
		writers["klauspost "+string(rune('a'+level+2))] = func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) }
	}
	for name, content := range samples() {
		for kind, make := range writers {
			z := compressed(t, content, make)
			for _, size := range []int{len(z), 1, 7, 4096} {
				if got, ok := measure(pieces(z, size)); !ok || got != int64(len(content)) {
					t.Errorf("%s, %s in pieces of %d: %d, %v; want %d", name, kind, size, got, ok, len(content))
				}
			}
			two := append(bytes.Clone(z), z...)
			if got, ok := measure(pieces(two, 1000)); !ok || got != int64(len(content)) {
				t.Errorf("%s, %s twice: %d, %v; want the first member's %d", name, kind, got, ok, len(content))
			}
		}
	}
}

// A stream that goes on in a later chunk counts with what it has produced.
func TestMeasureTruncated(t *testing.T) {
	content := samples()["mixed"]
	z := compressed(t, content, func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriter(w), nil })
	last := int64(0)
	for n := 0; n < len(z); n += 1 + n/50 {
		got, ok := measure(pieces(z[:n], 100))
		if !ok || got < last || got > int64(len(content)) {
			t.Fatalf("the first %d bytes: %d, %v after %d", n, got, ok, last)
		}
		last = got
		r, err := stdgzip.NewReader(bytes.NewReader(z[:n]))
		if err != nil {
			continue
		}
		if least, _ := io.Copy(io.Discard, r); got < least {
			t.Fatalf("the first %d bytes give %d, but decompress to %d at least", n, got, least)
		}
	}
	if last < int64(len(content))/2 {
		t.Errorf("nearly the whole stream gives %d of %d bytes", last, len(content))
	}
}

func TestMeasureOther(t *testing.T) {
	gz := compressed(t, []byte("content"), func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriter(w), nil })
	wrongSize := bytes.Clone(gz)
	wrongSize[len(gz)-1] ^= 1
	wrongMethod := bytes.Clone(gz)
	wrongMethod[2] = 7
	for name, tt := range map[string]struct {
		data []byte
		size int64
		ok   bool
	}{
		"nothing":             {nil, 0, true},
		"one byte":            {[]byte("p"), 0, true},
		"text":                {[]byte("plain bytes, not gzip"), 0, false},
		"zstd":                {[]byte("\x28\xb5\x2f\xfd\x00\x00"), 0, false},
		"wrong size":          {wrongSize, 7, false},
		"wrong method":        {wrongMethod, 0, false},
		"reserved block type": {append(bytes.Clone(gz[:10]), 0x07), 0, false},
		"distance too far":    {append(bytes.Clone(gz[:10]), 0x03, 0x02, 0x00), 0, false},
		"zlib dictionary":     {[]byte("\x78\xbb\x00\x00"), 0, false},
		"shared empty layer":  {storage.EmptyLayerContent(), 1024, true},
		"trailing bytes":      {append(bytes.Clone(gz), "and more"...), 7, true},
		"first ten bytes":     {gz[:10], 0, true},
		"half the trailer":    {gz[:len(gz)-6], 7, true},
	} {
		if got, ok := measure(pieces(tt.data, 3)); ok != tt.ok || ok && got != tt.size {
			t.Errorf("%s: %d, %v; want %d, %v", name, got, ok, tt.size, tt.ok)
		}
	}
}

// Whatever compress/flate accepts must have the same size here, and nothing may panic or hang.
func FuzzMeasure(f *testing.F) {
	for _, content := range samples() {
		z := compressed(f, content[:min(len(content), 3000)], func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 9) })
		f.Add(z)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		size, ok := measure(pieces(append([]byte{0x78, 0x9c}, raw...), 64))
		n, err := io.Copy(io.Discard, io.LimitReader(flate.NewReader(bytes.NewReader(raw)), 1<<26))
		switch {
		case err == nil && n < 1<<26 && (!ok || size != n):
			t.Errorf("measure = %d, %v; decompressed %d", size, ok, n)
		case errors.Is(err, io.ErrUnexpectedEOF) && ok && size < n:
			t.Errorf("truncated: measure = %d, decompressed at least %d", size, n)
		}
	})
}

func BenchmarkMeasure(b *testing.B) {
	z := compressed(b, bytes.Repeat(samples()["words"], 200), func(w io.Writer) (io.WriteCloser, error) { return stdgzip.NewWriterLevel(w, 6) })
	b.Run("measure", func(b *testing.B) {
		b.SetBytes(int64(len(z)))
		for b.Loop() {
			measure(pieces(z, 256<<10))
		}
	})
	b.Run("gunzip", func(b *testing.B) {
		b.SetBytes(int64(len(z)))
		for b.Loop() {
			r, err := gzip.NewReader(bytes.NewReader(z))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r)
		}
	})
}
