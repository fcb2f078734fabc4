package upload

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// A body that fits the first buffer is worth no goroutines.
	firstSize = 32 << 10
	pieceSize = 256 << 10
	// inFlight is how many buffers travel between reader, writer, hash and meter.
	inFlight = 4
)

var (
	firstBuffers = sync.Pool{New: func() any { b := make([]byte, firstSize); return &b }}
	pieceBuffers = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}
)

// intake is a body on its way into storage: what a driver reads from it is hashed and, if asked for, measured. A driver
// that copies from it gets hashing and measuring done beside its writes (io.WriterTo).
type intake struct {
	body    io.Reader
	hash    *Hash
	measure bool

	n     int64 // bytes handed on
	err   error // how the body broke off, if it did
	size  int64 // uncompressed bytes
	sound bool  // size means something

	pump *pump // of Read
}

// Read implements io.Reader.
func (t *intake) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	t.n += int64(n)
	t.err = ended(err)
	_, _ = t.hash.Write(p[:n])
	if t.measure && n > 0 {
		if t.pump == nil {
			t.pump = startPump()
		}
		t.pump.give(&piece{data: append([]byte(nil), p[:n]...)})
	}
	return n, err
}

// finish ends what Read has begun and settles size.
func (t *intake) finish() {
	switch {
	case !t.measure:
	case t.pump != nil:
		t.size, t.sound = t.pump.end()
	case t.n == 0:
		t.sound = true
	}
	t.measure = false
}

// WriteTo implements io.WriterTo.
func (t *intake) WriteTo(w io.Writer) (int64, error) {
	start := t.n
	first := firstBuffers.Get().(*[]byte)
	defer firstBuffers.Put(first)
	n, err := fillBuffer(t.body, *first)
	data := (*first)[:n]
	if err != nil { // all of it
		if _, werr := t.pass(w, data); werr != nil {
			return t.n - start, werr
		}
		_, _ = t.hash.Write(data)
		if t.measure {
			t.size, t.sound = measure(func() []byte {
				p := data
				data = nil
				if len(p) == 0 {
					return nil
				}
				return p
			})
			t.measure = false
		}
		t.err = ended(err)
		return t.n - start, t.err
	}
	err = t.stream(w, data)
	return t.n - start, err
}

// pass writes and counts.
func (t *intake) pass(w io.Writer, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	n, err := w.Write(data)
	t.n += int64(n)
	return n, err
}

// stream passes on a body beyond its first bytes. Hash and meter have goroutines of their own; none outlives the call.
func (t *intake) stream(w io.Writer, first []byte) error {
	free := make(chan *piece, inFlight)
	for range inFlight {
		buf := pieceBuffers.Get().(*[]byte)
		defer pieceBuffers.Put(buf)
		free <- &piece{buf: *buf, free: free}
	}
	hashing, hashed := make(chan *piece, inFlight+1), make(chan struct{})
	go func() {
		defer close(hashed)
		for p := range hashing {
			_, _ = t.hash.Write(p.data)
			p.done()
		}
	}()
	var meter *pump
	if t.measure {
		meter = startPump()
	}
	defer func() {
		close(hashing)
		<-hashed
		if meter != nil {
			t.size, t.sound = meter.end()
			t.measure = false
		}
	}()
	next := &piece{data: first}
	var err error
	for {
		if len(next.data) > 0 {
			users := int32(2) // the writer and the hash
			if meter != nil {
				users++
			}
			next.users.Store(users)
			hashing <- next
			if meter != nil {
				meter.give(next)
			}
			_, werr := t.pass(w, next.data)
			next.done()
			if werr != nil {
				return werr
			}
		}
		if err != nil {
			t.err = ended(err)
			return t.err
		}
		next = <-free
		var n int
		n, err = fillBuffer(t.body, next.buf)
		next.data = next.buf[:n]
	}
}

// piece is a part of a body that several goroutines look at.
type piece struct {
	data  []byte
	buf   []byte
	users atomic.Int32
	free  chan<- *piece // nil when nobody waits for it
}

func (p *piece) done() {
	if p.users.Add(-1) == 0 && p.free != nil {
		p.free <- p
	}
}

// pump feeds pieces to a meter in a goroutine.
type pump struct {
	in   chan *piece
	out  chan struct{}
	size int64
	ok   bool
}

func startPump() *pump {
	p := &pump{in: make(chan *piece, inFlight+1), out: make(chan struct{})}
	go func() {
		defer close(p.out)
		var current *piece
		p.size, p.ok = measure(func() []byte {
			if current != nil {
				current.done()
			}
			if current = <-p.in; current == nil {
				return nil
			}
			return current.data
		})
	}()
	return p
}

// give hands over a piece that is not empty.
func (p *pump) give(next *piece) { p.in <- next }

// end waits for the verdict.
func (p *pump) end() (int64, bool) {
	close(p.in)
	<-p.out
	return p.size, p.ok
}

// fillBuffer reads until buf is full or the source fails; unlike io.ReadFull it returns the source's own error.
func fillBuffer(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// ended is nil for the regular end of a body.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
