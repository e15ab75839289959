package exchange

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// copyContentUp copies the client's body to the origin, through Body where that is
// set.
func (x *running) copyContentUp(w *bufio.Writer) (int64, error) {
	switch {
	case x.From != nil:
		return pump(w, x.trailed(), true, x.From.Trailers)
	case x.Body == nil:
		return http1.CopyBody(w, x.Client.R, x.Request.Framing)
	}
	body := x.Body(http1.NewBodyReader(x.Client.R, x.Request.Framing))
	n, err := pump(w, body, x.Request.Framing.Kind == http1.Chunked, nil)
	if err == nil && x.Request.Framing.Kind == http1.Length && n != x.Request.Framing.Length {
		err = fmt.Errorf("%w: it is not as long as it says", http1.ErrBody)
	}
	return n, err
}

// trailed is a request's content, behind which there is more.
func (x *running) trailed() io.Reader {
	switch {
	case x.Read:
		return bytes.NewReader(x.Content)
	case x.Body != nil:
		return x.Body(x.From)
	default:
		return x.From
	}
}

// cleaned is the content of a response as Clean changes it, and how it is framed; nil if
// it can be copied as it is, with nothing behind it.
func (x *running) cleaned(resp *http1.Response) (io.Reader, http1.Framing, error) {
	x.trails = resp.Framing.Kind == http1.Chunked && x.Request.TakesTrailers()
	if x.Clean == nil && !x.trails || resp.Framing.Kind == http1.NoBody {
		return nil, resp.Framing, nil
	}
	x.content = http1.NewBodyReader(x.Origin.R, resp.Framing)
	framing := resp.Framing
	if x.Clean != nil {
		r, asLong, err := x.Clean.Body(resp, x.content)
		if r != nil && !asLong {
			framing.Kind = http1.Chunked
		}
		if r != nil || err != nil {
			return r, framing, err
		}
	}
	if !x.trails {
		return nil, framing, nil
	}
	return x.content, framing, nil
}

// trailers are those of the response that its client reads.
func (x *running) trailers() http1.Fields {
	if !x.trails {
		return nil
	}
	trailers := x.content.Trailers()
	if x.Clean != nil {
		trailers = x.Clean.Trailers(trailers)
	}
	return trailers
}

// pump writes what it reads, in chunks or as it is, each piece as it comes, and trailers
// behind the last chunk; nil: none. An error of w is a *http1.WriteError; behind any other
// nothing says that the content ended.
func pump(w *bufio.Writer, r io.Reader, chunks bool, trailers func() http1.Fields) (n int64, err error) {
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
			_, _ = w.Write(lastChunk(trailers))
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

// lastChunk ends a body in chunks.
func lastChunk(trailers func() http1.Fields) []byte {
	if trailers == nil {
		return http1.AppendTrailers(nil, nil)
	}
	return http1.AppendTrailers(nil, trailers())
}
