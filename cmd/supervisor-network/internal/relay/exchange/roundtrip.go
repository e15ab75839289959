package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
)

// RoundTrip sends a request that came in another version of HTTP and returns the
// head of its response; the body streams, and gives the connection back at its end.
// It owns origin, whose exchange ends with ctx. Interim responses are given to interim,
// which may be nil: then they are dropped. unheard says that the connection ended without a
// word of the origin, and that the request may be repeated where that is no wonder: on a
// kept connection, or the new one in its place.
func RoundTrip(ctx context.Context, origin *pool.Conn, r *http.Request, interim Interim) (resp *http.Response, unheard bool, err error) {
	x := &roundTrip{origin: origin, interim: interim}
	x.stop = context.AfterFunc(ctx, func() { _ = origin.SetDeadline(time.Unix(1, 0)) })
	head, err := x.start(r)
	if err != nil {
		return nil, x.fail(ctx, r), err
	}
	return x.response(r, head), false, nil
}

// Interim is given an interim response, without the fields of one hop, before anything
// that comes behind it is read; its error ends the exchange. A leave to send the body, 100,
// is for whoever asked for it, and not given.
type Interim func(status int, h http.Header) error

// Upgrade is RoundTrip for a request that asks its origin to switch protocols, by the
// fields of ask. When the origin does, switched is its answer and resp is nil; the
// connection is the caller's then, and ctx no longer ends it.
func Upgrade(ctx context.Context, origin *pool.Conn, r *http.Request, ask http1.Fields) (resp *http.Response, switched *http1.Response, unheard bool, err error) {
	x := &roundTrip{origin: origin, ask: ask}
	x.stop = context.AfterFunc(ctx, func() { _ = origin.SetDeadline(time.Unix(1, 0)) })
	head, err := x.start(r)
	switch {
	case err != nil:
		return nil, nil, x.fail(ctx, r), err
	case head.Status != 101:
		return x.response(r, head), nil, false, nil
	case !x.stop():
		origin.Abort()
		return nil, nil, false, context.Cause(ctx)
	}
	return nil, head, false, nil
}

// fail ends an exchange that came to no response.
func (x *roundTrip) fail(ctx context.Context, r *http.Request) (unheard bool) {
	x.stop()
	x.origin.Abort()
	return !x.heard && repeatable(r) && x.origin.R.Buffered() == 0 && ctx.Err() == nil
}

// response is what net/http has for a head, with a body that streams.
func (x *roundTrip) response(r *http.Request, head *http1.Response) *http.Response {
	resp := &http.Response{StatusCode: head.Status, ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, len(head.Fields)), ContentLength: -1, Request: r}
	addFields(resp.Header, head.Fields.EndToEnd())
	if n, stated := http1.ContentLength(head.Fields); stated {
		resp.ContentLength = n
		resp.Header["Content-Length"] = []string{strconv.FormatInt(n, 10)}
	} else if head.Framing.Kind == http1.NoBody {
		resp.ContentLength = 0
	}
	x.body, x.keeps = http1.NewBodyReader(x.origin.R, head.Framing), !x.last && !head.Close && head.Framing.Kind != http1.UntilClose
	if names := head.Fields.Trailing(); len(names) > 0 && head.Framing.Kind == http1.Chunked {
		resp.Trailer = make(http.Header, len(names))
		for _, name := range names {
			resp.Trailer[http.CanonicalHeaderKey(name)] = nil
		}
	}
	heed(x.origin, head.Fields)
	resp.Body, x.resp = x, resp
	if head.Framing.Kind == http1.NoBody {
		x.finish()
		resp.Body = http.NoBody
	}
	return resp
}

// addFields adds fields to a header that has none of them. Most names come once, so
// that one piece of memory serves all values.
func addFields(h http.Header, fields http1.Fields) {
	values := make([]string, len(fields))
	for i := range fields {
		name := http.CanonicalHeaderKey(fields[i].Name)
		if before, more := h[name]; more {
			h[name] = append(before, fields[i].Value)
			continue
		}
		values[i] = fields[i].Value
		h[name] = values[i : i+1 : i+1]
	}
}

// repeatable reports whether a request may be sent a second time: an origin that closed
// its connection may have done what the first one asked for (RFC 9110 section 9.2.2).
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodTrace:
		return r.ContentLength == 0
	default:
		return false
	}
}

// roundTrip is the body of a response, and what happens to its connection.
type roundTrip struct {
	origin  *pool.Conn
	ask     http1.Fields // to switch protocols; nil: nothing is asked for
	interim Interim      // nil: nobody is told
	heard   bool         // something came
	sent    chan error   // how the request's body went; nil: there is none
	stop    func() bool
	body    *http1.BodyReader
	resp    *http.Response // gets its trailers when body has ended
	keeps   bool
	last    bool // the origin is asked to close
	over    bool
}

// start sends the request and reads the head of the final response.
func (x *roundTrip) start(r *http.Request) (*http1.Response, error) {
	framing, err := x.send(r)
	if err != nil {
		return nil, err
	}
	if framing.Kind != http1.NoBody {
		x.sent = make(chan error, 1)
		go func() { x.sent <- x.copyBody(r, framing) }()
	}
	for range maxInterim + 1 {
		if _, err := x.origin.R.Peek(1); err != nil {
			return nil, err
		}
		x.heard = true // whatever it is, and however it ends
		head, err := http1.ReadHead(x.origin.R, http1.MaxResponseHead)
		if err != nil {
			return nil, err
		}
		resp, err := http1.ParseResponse(head, r.Method)
		switch {
		case err != nil:
			return resp, err
		case resp.Status == 101 && x.ask != nil:
			return resp, nil
		case resp.Status == 101:
			return resp, errors.New("the origin switches protocols, which nobody asked for")
		case resp.Status >= 200:
			return resp, nil
		}
		if err := x.passOn(resp); err != nil {
			return resp, err
		}
	}
	return &http1.Response{}, errors.New("too many interim responses")
}

// passOn gives an interim response to whoever wants it.
func (x *roundTrip) passOn(resp *http1.Response) error {
	if x.interim == nil || resp.Status == http.StatusContinue {
		return nil
	}
	h := make(http.Header, len(resp.Fields))
	addFields(h, resp.Fields.EndToEnd())
	delete(h, "Content-Length") // of nothing
	return x.interim(resp.Status, h)
}

// send writes the head.
func (x *roundTrip) send(r *http.Request) (http1.Framing, error) {
	framing := http1.Framing{}
	switch {
	case len(r.Trailer) > 0 && r.ContentLength != 0: // which stands behind chunks only
		framing.Kind = http1.Chunked
	case r.ContentLength > 0:
		framing = http1.Framing{Kind: http1.Length, Length: r.ContentLength}
	case r.ContentLength < 0 && r.Body != nil && r.Body != http.NoBody:
		framing.Kind = http1.Chunked
	}
	path := r.URL.Opaque
	if path == "" {
		path = r.URL.EscapedPath()
	}
	query := ""
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		query = "?" + r.URL.RawQuery
	}
	buf := heads.Get().(*[]byte)
	b := appendHead((*buf)[:0], r, path, query)
	for _, f := range x.ask {
		b = fmt.Appendf(b, "%s: %s\r\n", f.Name, f.Value)
	}
	if framing.Kind == http1.Chunked {
		for _, f := range http1.Announce(announced(r.Trailer, http1.Follows)) {
			b = fmt.Appendf(b, "%s: %s\r\n", f.Name, f.Value)
		}
	}
	switch _, stated := r.Header["Content-Length"]; {
	case framing.Kind == http1.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case framing.Kind == http1.Length || stated:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), framing.Length, 10), "\r\n"...)
	}
	if x.last = http1.Last(r.Method, framing); x.last {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "\r\n"...)
	_, err := x.origin.Write(b)
	if cap(b) <= maxScratch {
		*buf = b[:0]
		heads.Put(buf)
	}
	return framing, err
}

// appendHead appends the request line and the fields that go to the origin, but for
// those that frame the body.
func appendHead(b []byte, r *http.Request, path, query string) []byte {
	for _, part := range [...]string{r.Method, " ", path, query, " HTTP/1.1\r\nHost: ", r.Host, "\r\n"} {
		b = append(b, part...)
	}
	for _, name := range fieldNames(r.Header) {
		for _, value := range r.Header[name] {
			for _, part := range [...]string{name, ": ", value, "\r\n"} {
				b = append(b, part...)
			}
		}
	}
	return b
}

// fieldNames are those that go to the origin, in an order of their own: several
// cookies of HTTP/2 are one in HTTP/1.1 (RFC 9113 section 8.2.3).
func fieldNames(h http.Header) []string {
	if cookies := h["Cookie"]; len(cookies) > 1 {
		joined := cookies[0]
		for _, c := range cookies[1:] {
			joined += "; " + c
		}
		h["Cookie"] = []string{joined}
	}
	names := make([]string, 0, len(h))
	for name := range h {
		if !http1.HopByHop(name) && name != "Host" && name != "Content-Length" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (x *roundTrip) copyBody(r *http.Request, framing http1.Framing) error {
	w := writers.Get().(*bufio.Writer)
	w.Reset(x.origin)
	defer func() {
		w.Reset(nil)
		writers.Put(w)
	}()
	if framing.Kind == http1.Length {
		n, err := io.Copy(w, io.LimitReader(r.Body, framing.Length))
		if err == nil && n < framing.Length {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			x.origin.Abort()
			return err
		}
		return w.Flush()
	}
	return x.copyChunks(w, r)
}

// copyChunks writes each piece as it comes, and the trailers, which are there when it has
// ended.
func (x *roundTrip) copyChunks(w *bufio.Writer, r *http.Request) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			_, _ = fmt.Fprintf(w, "%x\r\n", n)
			_, _ = w.Write(buf[:n])
			_, _ = w.WriteString("\r\n")
			if werr := w.Flush(); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_, _ = w.Write(http1.AppendTrailers(nil, fieldsOf(r.Trailer)))
			return w.Flush()
		case err != nil:
			x.origin.Abort() // what the origin has is not complete
			return err
		}
	}
}

// Read implements io.Reader.
func (x *roundTrip) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	if err != nil {
		if trailers := x.body.Trailers(); len(trailers) > 0 {
			x.resp.Trailer = make(http.Header, len(trailers))
			addFields(x.resp.Trailer, trailers)
		}
		x.finish()
	}
	return n, err
}

// Close implements io.Closer. A response that was not read to its end takes its
// connection with it.
func (x *roundTrip) Close() error {
	x.finish()
	return nil
}

// finish keeps the connection when both messages are complete.
func (x *roundTrip) finish() {
	if x.over {
		return
	}
	x.over = true
	if x.stop() && x.keeps && x.body.Complete() && x.whole() {
		x.origin.Release()
		return
	}
	x.origin.Abort()
}

// whole reports whether the whole request was sent, and waits a moment for it.
func (x *roundTrip) whole() bool {
	if x.sent == nil {
		return true
	}
	timer := time.NewTimer(early)
	defer timer.Stop()
	select {
	case err := <-x.sent:
		return err == nil
	case <-timer.C:
		return false
	}
}
