package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Revoked is the cause with which a context is ended whose stream is no longer
// permitted, or the error with which an answer ends that may not go on.
type Revoked struct {
	Reason core.Reason
	Detail string
}

// Error implements error.
func (r *Revoked) Error() string { return fmt.Sprintf("%s: %s", r.Reason, r.Detail) }

// ErrStatus is an answer of the origin that cannot be given to the client. Nothing
// was sent: Deny may follow. Success is one where an extended CONNECT was asked for: it
// would open what nobody agreed to.
var ErrStatus = errors.New("http2: the origin's status is no final one")

// directFlush is the length from which the head of an answer is not kept until its
// body comes.
const directFlush = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Respond gives the origin's answer to the client as it comes, trailers included, and
// closes its body. When ctx ends before the answer does, a gRPC client that can still
// be told gets a status, PERMISSION_DENIED where the policy changed and else UNAVAILABLE,
// with the detail when the cause is Revoked; another one gets a reset. ctx has to be the request's to the origin. It returns what ended the
// answer early.
func (s *Stream) Respond(ctx context.Context, resp *http.Response) error {
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 599 || s.Protocol != "" && resp.StatusCode < 300 {
		return ErrStatus
	}
	s.answered = true
	s.pay()
	h := s.w.Header()
	copyFields(h, resp.Header)
	declareTrailers(h, resp.Trailer)
	length := declareLength(h, resp)
	bare(h)
	interrupt := s.watch.interrupt
	if s.GRPC {
		interrupt = s.watch.hurry // or the call is reset, whose client knows what to do with a status
	}
	stop := context.AfterFunc(ctx, interrupt)
	defer stop()
	s.w.WriteHeader(resp.StatusCode)
	if err := s.stream(ctx, resp, length); err != nil {
		return s.cut(ctx, err)
	}
	for name, values := range resp.Trailer {
		if http1.Trails(name) && len(values) > 0 {
			h[http.TrailerPrefix+name] = values
		}
	}
	return nil
}

// Inform gives an interim response of the origin to the client, before Respond. One that
// asks for the body, or switches protocols, is nobody's but the library's, and none comes
// where a WebSocket is asked for. ctx is as for Respond.
func (s *Stream) Inform(ctx context.Context, status int, fields http.Header) error {
	if status <= http.StatusSwitchingProtocols || status > 199 || s.answered || s.Protocol != "" {
		return nil
	}
	stop := context.AfterFunc(ctx, s.watch.interrupt)
	defer stop()
	h := s.w.Header()
	copyFields(h, fields)
	// With a length to leave out the library writes a copy of the fields, and not these,
	// which it may read still when the stream has ended meanwhile.
	h["Content-Length"] = []string{"0"}
	s.server.meter.credit(creditWrite)
	err := s.watch.inform(ctx, s.w, status)
	clear(h) // they are not the answer's
	return err
}

// stream copies the body; what has come is sent before more is read.
func (s *Stream) stream(ctx context.Context, resp *http.Response, length int64) error {
	if length == 0 || s.Method == http.MethodHead {
		return nil
	}
	if length < 0 || length > directFlush {
		if _, err := s.watch.write(ctx, s.w, nil); err != nil {
			return err
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for sent := int64(0); ; {
		n, err := resp.Body.Read(*buf)
		if n > 0 {
			if sent += int64(n); length >= 0 && sent > length {
				return errors.New("http2: the origin sent more than it declared")
			}
			if werr := s.pass(ctx, (*buf)[:n], sent == length); werr != nil {
				return werr
			}
		}
		switch {
		case err == io.EOF && length >= 0 && sent < length:
			return io.ErrUnexpectedEOF
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// pass sends a piece of the body; the last one of known length goes with the end of
// the stream, which the library waits to send when the handler has returned, where it
// need not be waited for.
func (s *Stream) pass(ctx context.Context, p []byte, last bool) error {
	s.server.meter.credit(creditWrite + int64(len(p)>>12))
	fits := s.sends(len(p))
	if _, err := s.watch.write(ctx, s.w, p); err != nil || last && fits {
		return err
	}
	_, err := s.watch.write(ctx, s.w, nil)
	return err
}

// sends counts what follows, and reports whether it can go at once.
func (s *Stream) sends(n int) bool {
	s.sent += n
	return s.server.meter.sends(n, s.sent)
}

// cut ends an answer that has begun.
func (s *Stream) cut(ctx context.Context, err error) error {
	cause := err
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	h := s.w.Header()
	if !s.GRPC || s.Web || len(h["Content-Length"]) > 0 { // gRPC-web has its trailers in the body
		s.reset = true
		return cause
	}
	status, detail := s.failed(unavailable, err), "the origin's answer ended early"
	switch r, ok := errors.AsType[*Revoked](cause); {
	case ok && r.Reason == core.ReasonPolicyChanged:
		status, detail = permissionDenied, r.Error()
	case ok:
		status, detail = unavailable, r.Error()
	case s.server.base.Err() != nil:
		status, detail = unavailable, string(core.ReasonShutdown)+": the daemon is stopping"
	}
	h[http.TrailerPrefix+"Grpc-Status"] = []string{strconv.Itoa(int(status))}
	h[http.TrailerPrefix+"Grpc-Message"] = []string{percentEncode(detail)}
	return cause
}

// copyFields copies what is meant for the client. Alt-Svc would lead it to a way
// around this proxy.
func copyFields(to, from http.Header) {
	named := from["Connection"]
	for name, values := range from {
		if !endsHere(name) && !lists(named, name) {
			to[name] = values
		}
	}
}

// declareTrailers announces what the origin announced.
func declareTrailers(h, trailer http.Header) {
	for name := range trailer {
		if http1.Trails(name) {
			h["Trailer"] = append(h["Trailer"], name)
		}
	}
}

// declareLength leaves one length that the origin declared and means, and returns
// it; -1 when there is none. With 304 it is optional, and Go's clients wait for a
// body then.
func declareLength(h http.Header, resp *http.Response) int64 {
	values := h["Content-Length"]
	delete(h, "Content-Length")
	if resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return 0
	}
	if len(values) == 1 && resp.ContentLength >= 0 && values[0] == strconv.FormatInt(resp.ContentLength, 10) {
		h["Content-Length"] = values
	}
	return resp.ContentLength
}

// endsHere reports whether a field, in Go's spelling, goes no further than this
// proxy (RFC 9110 section 7.6.1; RFC 9113 section 8.2.2; RFC 7838 section 4).
func endsHere(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Proxy-Authentication-Info",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Alt-Svc", "Host":
		return true
	default:
		return false
	}
}

// lists reports whether one of the Connection fields names the field.
func lists(connection []string, name string) bool {
	for _, v := range connection {
		for option := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(option, " \t"), name) {
				return true
			}
		}
	}
	return false
}
