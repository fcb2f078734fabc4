package upload

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/quayctl/quayctl/internal/metadata/pgtest"
)

const (
	killedDSN = "QUAY_TEST_KILLED_DSN"
	killedDir = "QUAY_TEST_KILLED_DIR"
)

// A process killed in the middle of a body leaves no visible blob, and an upload that the next process goes on with.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	c := noise(2 << 20)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestKilledChild$")
	child.Env = append(os.Environ(), killedDSN+"="+w.pg.DSN, killedDir+"="+w.dir)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the child said nothing: %v", lines.Err())
	}
	id, ok := strings.CutPrefix(lines.Text(), "upload ")
	if !ok {
		t.Fatalf("the child said %q", lines.Text())
	}
	if _, err := in.Write(c[:1<<20]); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "took a piece" {
		t.Fatalf("the child said %q, %v", lines.Text(), lines.Err())
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	if n := w.count(t, "SELECT count(*) FROM imagestorage WHERE content_checksum = $1", digestOf(c)); n != 0 {
		t.Error("a killed push left a visible blob")
	}
	up, err := w.Find(t.Context(), id)
	if err != nil || up.Received != 0 {
		t.Fatalf("Find = %+v, %v; want 0 bytes, none were acknowledged", up, err)
	}
	if _, err := w.Finish(t.Context(), id, whole(c), digestOf(c)); err != nil {
		t.Fatal(err)
	}
	w.wantBlob(t, c)
	w.wantNothing(t)
}

// TestKilledChild is the process that TestKilled kills; by itself it does nothing.
func TestKilledChild(t *testing.T) {
	dsn := os.Getenv(killedDSN)
	if dsn == "" {
		return
	}
	w := &world{pg: &pgtest.DB{DSN: dsn}, dir: os.Getenv(killedDir)}
	w.Uploads = w.process(t)
	id := w.begin(t, w.Uploads)
	fmt.Println("upload " + id)
	taken := 0
	body := readerFunc(func(p []byte) (int, error) {
		if taken >= 1<<20 {
			fmt.Println("took a piece")
			taken = -1 << 62
		}
		n, err := os.Stdin.Read(p)
		taken += n
		return n, err
	})
	_, err := w.Append(t.Context(), id, Chunk{Length: -1, Body: body})
	t.Fatalf("the body ended: %v", err)
}

func BenchmarkUpload(b *testing.B) {
	const size = 1 << 30
	block := noise(1 << 20)
	content := func() io.Reader { return io.LimitReader(&loop{block: block}, size) }
	h := NewHash()
	if _, err := io.Copy(h, content()); err != nil {
		b.Fatal(err)
	}
	digest := h.Digest()
	b.Run("blob", func(b *testing.B) {
		w := newWorld(b)
		b.SetBytes(size)
		for b.Loop() {
			up, err := w.Start(b.Context(), repository)
			if err == nil {
				_, err = w.Finish(b.Context(), up.UUID, Chunk{Length: size, Body: content()}, digest)
			}
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			w.forget(b, digest)
			b.StartTimer()
		}
	})
	b.Run("SHA-256 and one synced write", func(b *testing.B) {
		dir := b.TempDir()
		b.SetBytes(size)
		buf := make([]byte, 1<<20)
		for b.Loop() {
			f, err := os.CreateTemp(dir, "")
			if err != nil {
				b.Fatal(err)
			}
			h := NewHash()
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, h)}, struct{ io.Reader }{content()}, buf); err != nil {
				b.Fatal(err)
			}
			if h.Digest() != digest {
				b.Fatal("digests differ")
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			_ = f.Close()
			b.StopTimer()
			_ = os.Remove(f.Name())
			b.StartTimer()
		}
	})
}

func BenchmarkSmallUpload(b *testing.B) {
	w := newWorld(b)
	c := noise(2000)
	for i := 0; b.Loop(); i++ {
		copy(c, fmt.Sprintf("%020d", i))
		up, err := w.Start(b.Context(), repository)
		if err == nil {
			_, err = w.Finish(b.Context(), up.UUID, Chunk{Length: int64(len(c)), Body: bytes.NewReader(c)}, digestOf(c))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// forget removes a blob with all its rows.
func (w *world) forget(t testing.TB, digest string) {
	t.Helper()
	w.pg.Exec(fmt.Sprintf(`DELETE FROM uploadedblob; DELETE FROM imagestorageplacement WHERE storage_id IN (SELECT id FROM imagestorage WHERE content_checksum = '%[1]s');
		DELETE FROM imagestorage WHERE content_checksum = '%[1]s'`, digest))
	if err := os.RemoveAll(w.dir + "/sha256"); err != nil {
		t.Fatal(err)
	}
}

// loop is a block again and again.
type loop struct {
	block []byte
	at    int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.block[l.at:])
	l.at = (l.at + n) % len(l.block)
	return n, nil
}
