package exchange

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// copyContentUp copies the client's body to the origin, through Body where that is
// set.
func (x *running) copyContentUp(w *bufio.Writer) (int64, error) {
	if x.Body == nil {
		return http1.CopyBody(w, x.Client.R, x.Request.Framing)
	}
	body := x.Body(http1.NewBodyReader(x.Client.R, x.Request.Framing))
	n, err := pump(w, body, x.Request.Framing.Kind == http1.Chunked)
	if err == nil && x.Request.Framing.Kind == http1.Length && n != x.Request.Framing.Length {
		err = fmt.Errorf("%w: it is not as long as it says", http1.ErrBody)
	}
	return n, err
}

// cleaned is the content of a response as Clean changes it, nil if it does not, and how
// it is framed.
func (x *running) cleaned(resp *http1.Response) (io.Reader, http1.Framing, error) {
	if x.Clean == nil || resp.Framing.Kind == http1.NoBody {
		return nil, resp.Framing, nil
	}
	r, asLong, err := x.Clean.Body(resp, http1.NewBodyReader(x.Origin.R, resp.Framing))
	if r == nil || asLong {
		return r, resp.Framing, err
	}
	return r, http1.Framing{Kind: http1.Chunked}, err
}

// pump writes what it reads, in chunks or as it is, each piece as it comes. An error
// of w is a *http1.WriteError; behind any other nothing says that the content ended.
func pump(w *bufio.Writer, r io.Reader, chunks bool) (n int64, err error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for {
		k, err := r.Read(*buf)
		if k > 0 {
			n += int64(k)
			if err := writePiece(w, (*buf)[:k], chunks); err != nil {
				return n, &http1.WriteError{Err: err}
			}
		}
		switch {
		case errors.Is(err, io.EOF) && chunks:
			_, _ = w.WriteString("0\r\n\r\n")
			fallthrough
		case errors.Is(err, io.EOF):
			if err := w.Flush(); err != nil {
				return n, &http1.WriteError{Err: err}
			}
			return n, nil
		case err != nil:
			return n, err
		}
	}
}
