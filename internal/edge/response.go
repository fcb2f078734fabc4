package edge

import (
	"io"
	"net/http"
)

const (
	headerFrame = "X-Frame-Options"
	headerHSTS  = "Strict-Transport-Security"
)

// copyBuffers serve bodies that the kernel cannot send by itself: large, so that TLS gets many records
// from one read.
var copyBuffers = newBuffers(128 << 10)

// response adds the front's own headers to an answer and notes what was sent.
type response struct {
	http.ResponseWriter
	tls bool
	// kernel: the bytes reach the socket as they are, so that the kernel can send a file by itself.
	kernel bool
	// hideRanges: registryd does not announce ranges, so a whole answer of ours does not either.
	hideRanges bool

	status int
	sent   int64
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
		if w.hideRanges && status == http.StatusOK {
			w.Header().Del("Accept-Ranges")
		}
		if framed(status) {
			w.Header().Set(headerFrame, "DENY")
			if w.tls {
				w.Header().Set(headerHSTS, "max-age=63072000; preload")
			}
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// framed tells the statuses to which the legacy nginx adds headers.
func framed(status int) bool {
	switch status {
	case 200, 201, 204, 206, 301, 302, 303, 304, 307, 308:
		return true
	}
	return false
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom; over plain TCP net/http makes it sendfile(2).
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok && w.kernel {
		n, err = to.ReadFrom(src)
	} else {
		buf := copyBuffers.Get()
		defer copyBuffers.Put(buf)
		n, err = io.CopyBuffer(struct{ io.Writer }{w.ResponseWriter}, struct{ io.Reader }{src}, buf)
	}
	w.sent += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
