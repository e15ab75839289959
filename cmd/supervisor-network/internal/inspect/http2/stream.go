package http2

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Stream is one request whose reading is settled. Its fields may be read, and Header
// may be changed, by the handler; nothing of it may be used after the handler has
// returned.
type Stream struct {
	Method string
	Path   string // canonical
	Query  string // with its question mark, as sent
	// Header has Go's spelling of names. It is without pseudo-fields and without Host.
	Header http.Header
	GRPC   bool // gRPC or gRPC-web, by its content type
	Web    bool // it is gRPC-web, which HTTP/1.1 can carry, too
	// Protocol is what an extended CONNECT asks for, ProtocolWebSocket or nothing. Such
	// a stream has no body: Accept opens it, and every other answer refuses it.
	Protocol string

	// Body never is nil. Its end brings the trailers.
	Body    io.ReadCloser
	Length  int64    // of the body, -1 when unknown
	Trailer []string // names of the fields that are announced behind it, sorted

	server   *server
	w        http.ResponseWriter
	r        *http.Request
	ctx      context.Context
	watch    *watch
	paid     bool    // it pays for its reset
	lost     error   // with which the origin's answer failed
	passed   bool    // ToOrigin was called
	answered bool    // Deny, Respond or Accept was called
	sent     int     // of a body to the client
	opened   *Duplex // by Accept
	reset    bool    // the stream ends with RST_STREAM
}

func newStream(s *server, w http.ResponseWriter, r *http.Request, path, query string) *Stream {
	ctx, cancel := context.WithCancelCause(r.Context())
	delete(r.Header, "Host")
	protocol, extended := r.Header[pseudoProtocol]
	delete(r.Header, pseudoProtocol)
	st := &Stream{
		Method: r.Method, Path: path, Query: query, Header: r.Header, Length: r.ContentLength,
		// A gRPC client is told of a refusal with 200, by which a CONNECT would succeed.
		GRPC: isGRPC(r.Header.Get("Content-Type")) && r.Method != http.MethodConnect, Web: isWeb(r.Header.Get("Content-Type")), Body: http.NoBody,
		server: s, w: w, r: r, ctx: ctx,
	}
	st.watch = newWatch(http.NewResponseController(w), cancel, s.o.Stall, s.o.StreamIdle)
	switch {
	case extended:
		st.Protocol, st.Length = protocol[0], 0
	case r.ContentLength != 0:
		st.Body = &body{r.Body, st.watch}
		st.Trailer = slices.Sorted(maps.Keys(r.Trailer))
	}
	return st
}

func (s *Stream) end() {
	if s.opened != nil {
		s.opened.Close()
	}
	s.watch.end()
}

// body is a request body whose bytes count as movement.
type body struct {
	io.ReadCloser
	watch *watch
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.watch.moved()
	}
	return n, err
}

// ToOrigin returns the request that was judged, as the origin shall get it: without
// fields that end at this proxy, with the path that was judged and nothing added. The
// path is in URL.Opaque, where net/http does not spell it anew; only one that begins
// with two slashes would be an authority there. ctx should be, or descend
// from, the handler's.
func (s *Stream) ToOrigin(ctx context.Context) *http.Request {
	s.passed = true
	s.pay()
	host := http1.Target{Host: s.server.o.Host, Port: s.server.o.Port}.Authority(443) // in its one spelling
	u := &url.URL{Scheme: "https", Host: host, Opaque: s.Path}
	if strings.HasPrefix(s.Path, "//") {
		u.Opaque, u.Path, u.RawPath = "", s.r.URL.Path, s.Path
	}
	if s.Query != "" {
		u.RawQuery = s.Query[1:]
		u.ForceQuery = u.RawQuery == ""
	}
	out := new(http.Request).WithContext(ctx)
	out.Method, out.URL, out.Host = s.Method, u, host
	out.Proto, out.ProtoMajor = "HTTP/2.0", 2
	out.Header = make(http.Header, len(s.Header))
	out.Body, out.ContentLength = s.Body, s.Length
	if len(s.Trailer) > 0 {
		out.Trailer = s.r.Trailer
	}
	for name, values := range s.Header {
		if !endsHere(name) || name == "Te" {
			out.Header[name] = values
		}
	}
	return out
}

// Lost says why there is no answer of the origin, before Deny is called for that: to a gRPC
// client each reset of a stream is another status.
func (s *Stream) Lost(err error) { s.lost = err }

// Deny answers with a status and body as JSON; a gRPC client gets a status in the
// trailers instead, with the detail as its message. fields go with the answer. A client
// that has no window open for the body gets the head alone: a refusal waits for nobody.
// It is sent though the stream's context has ended, of which it may be to tell.
func (s *Stream) Deny(status int, reason core.Reason, detail string, id core.RequestID, body any, fields ...http1.Field) error {
	s.answered = true
	s.pay()
	h := s.w.Header()
	if id != "" {
		h.Set("X-Splitpod-Request-Id", string(id))
	}
	bare(h)
	for _, f := range fields {
		h.Set(f.Name, f.Value)
	}
	if s.GRPC {
		s.denyCall(h, status, reason, detail)
		return nil
	}
	text, err := json.Marshal(body)
	if err != nil {
		s.reset = true
		return err
	}
	head := s.Method == http.MethodHead
	if !head && !s.sends(len(text)) {
		s.server.meter.window.Add(int64(len(text))) // which nothing takes
		head, text = true, nil
	}
	h.Set("Content-Type", "application/json")
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	s.w.WriteHeader(status)
	if !head {
		_, err = s.watch.write(context.WithoutCancel(s.ctx), s.w, text)
	}
	s.reset = s.reset || err != nil
	return err
}

// pay is called when it is known what comes of the stream.
func (s *Stream) pay() {
	if !s.paid && s.r.Context().Err() == nil {
		s.paid = true
		s.server.meter.wanted.Add(1)
	}
}

// drain takes what is left of a body that is on its way and went to no origin,
// which may read it still. The library resets a
// stream whose body was not read, with NO_ERROR behind the answer, which some clients
// (curl among them) call a failure, and others (httpx) do not see while they wait to send.
// So it does here where many others are taken.
func (s *Stream) drain() {
	if s.passed || s.GRPC || s.Length == 0 || s.Method == http.MethodConnect {
		return
	}
	// The answer goes first: then no client is told to continue.
	if _, err := s.watch.write(s.ctx, s.w, nil); err != nil {
		return
	}
	s.server.o.Windows.drain(func() { http1.Linger(upload{s.r.Body, s.watch.control}) })
}

// upload is a body that nobody wants, and its deadlines.
type upload struct {
	io.Reader
	*http.ResponseController
}

// refuse answers what check found.
func (s *Stream) refuse(err error) {
	status, answer := http.StatusBadRequest, http1.ErrorBody{Error: core.ReasonBadRequest}
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		status, answer.Error, answer.Detail = e.Status, e.Reason, e.Detail
	}
	answer.Message, answer.RequestID = answer.Detail, s.server.o.Refused(s.Method, status, err)
	_ = s.Deny(status, answer.Error, answer.Detail, core.RequestID(answer.RequestID), answer) // a client that is gone needs no answer
}

// bare keeps net/http from describing an answer in its own words.
func bare(h http.Header) {
	for _, name := range []string{"Date", "Content-Type", "Content-Length"} {
		if _, ok := h[name]; !ok {
			h[name] = nil
		}
	}
}

// Sent is the path as the client wrote it, without its query.
func (s *Stream) Sent() string {
	path, _, _ := strings.Cut(s.r.RequestURI, "?")
	return path
}

// Trailers are what was announced and came behind the body, when that has ended.
func (s *Stream) Trailers() http1.Fields { return http1.FieldsOf(s.r.Trailer) }
