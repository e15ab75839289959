package exchange

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// Respond writes a response that came in another version of HTTP to a client of
// HTTP/1.1, piece by piece as it comes. last says that the connection ends with it.
func Respond(w *bufio.Writer, req *http1.Request, resp *http.Response, last bool) (Result, error) {
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		return Result{}, invalid("its status is none")
	}
	head := &http1.Response{Status: resp.StatusCode, Phrase: http.StatusText(resp.StatusCode), Fields: fieldsOf(resp.Header)}
	bodiless := req.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	out := http1.Outgoing{}
	switch {
	case resp.ContentLength >= 0 && resp.StatusCode != http.StatusNoContent:
		out.ZeroLength, out.Framing.Length = true, resp.ContentLength
	case bodiless:
	case req.Minor == 0:
		out.Framing.Kind = http1.UntilClose
	default:
		out.Framing.Kind = http1.Chunked
	}
	res := Result{Status: resp.StatusCode, Answered: true, Unframed: out.Framing.Kind == http1.UntilClose}
	trails := out.Framing.Kind == http1.Chunked && req.TakesTrailers()
	if trails {
		out.Add = http1.Announce(announced(resp.Trailer, http1.Trails))
	}
	out.Close = last || res.Unframed || !keepsAlive(req)
	res.ClientGoesOn = !out.Close
	if _, err := w.Write(http1.AppendResponse(nil, head, out)); err != nil {
		return res, errClientGone
	}
	if bodiless || resp.ContentLength < 0 { // of events the first may be long in coming
		if w.Flush() != nil {
			return res, errClientGone
		}
	}
	if bodiless {
		return res, nil
	}
	var trailers func() http1.Fields
	if trails {
		trailers = func() http1.Fields { return fieldsOf(resp.Trailer) }
	}
	return res, copyPieces(w, resp, out.Framing.Kind == http1.Chunked, trailers)
}

// Inform writes an interim response that came in another version of HTTP, of which
// HTTP/1.0 knows none.
func Inform(w *bufio.Writer, req *http1.Request, status int, h http.Header) error {
	if req.Minor == 0 {
		return nil
	}
	head := &http1.Response{Status: status, Phrase: http.StatusText(status), Fields: fieldsOf(h)}
	if _, err := w.Write(http1.AppendResponse(nil, head, http1.Outgoing{})); err != nil {
		return err
	}
	return w.Flush()
}

// announced are the names of a trailer of net/http for which that is so.
func announced(trailer http.Header, passes func(string) bool) (names []string) {
	for name := range trailer {
		if passes(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fieldsOf is a header of net/http as a list.
func fieldsOf(h http.Header) (fields http1.Fields) {
	for name, values := range h {
		for _, v := range values {
			fields = append(fields, http1.Field{Name: name, Value: v})
		}
	}
	return fields
}

var pieces = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

func copyPieces(w *bufio.Writer, resp *http.Response, chunked bool, trailers func() http1.Fields) error {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	left := resp.ContentLength
	for {
		n, err := resp.Body.Read(*buf)
		if n > 0 {
			if left >= 0 {
				if left -= int64(n); left < 0 {
					return invalid("it is longer than it says")
				}
			}
			if err := writePiece(w, (*buf)[:n], chunked); err != nil {
				return errClientGone
			}
		}
		switch {
		case errors.Is(err, io.EOF) && left > 0:
			return invalid("it is shorter than it says")
		case errors.Is(err, io.EOF):
			if chunked {
				_, _ = w.Write(lastChunk(trailers))
			}
			return w.Flush()
		case err != nil:
			return fmt.Errorf("%w: %w", errBrokenOff, err)
		}
	}
}

func writePiece(w *bufio.Writer, p []byte, chunked bool) error {
	if chunked {
		_, _ = fmt.Fprintf(w, "%x\r\n", len(p))
	}
	_, _ = w.Write(p)
	if chunked {
		_, _ = w.WriteString("\r\n")
	}
	return w.Flush() // reports what the writes before it met
}
