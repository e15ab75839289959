package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/pkg/core"
)

// overHTTP2 makes an exchange with an origin that speaks nothing older.
func (s *session) overHTTP2(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) (exchange.Result, *refusal) {
	if in.handshake != nil {
		return exchange.Result{}, noSockets()
	}
	req, t, changed := s.renewed(ctx, req, t, in)
	if changed != nil {
		return exchange.Result{}, changed
	}
	s.watch.Begin(s.p.Idle) // as before, also if only now the body was read ahead
	body := &lent{s: s, from: in.sealed.Body(s.content(req, in))}
	defer body.takeBack()
	length := req.Framing.Length
	switch {
	case in.body.Read:
		body.from, length = bytes.NewReader(in.body.Content), lengthOf(in.body.Content, in.content != nil)
	case req.Framing.Kind == http1.Chunked:
		length = -1
	}
	authority := t.Authority(443)
	// net/http takes the authority off again: what is behind it, it does not spell anew, and
	// does not take for an authority when it begins with two slashes.
	out := &http.Request{Method: req.Method, URL: &url.URL{Scheme: "https", Host: authority, Opaque: "//" + authority + t.Path, RawQuery: queryOf(t.Query), ForceQuery: t.Query == "?"},
		Host: authority, Header: headerOf(req.Fields), ContentLength: length, Body: http.NoBody}
	if length != 0 {
		out.Body = body
		body.wanted = !in.body.Read && req.Minor == 1 && req.Fields.Has("Expect", "100-continue")
	}
	if !body.wanted {
		delete(out.Header, "Expect")
	}
	if in.content != nil {
		body.behind, out.Trailer = in.content, make(http.Header, len(req.Trailer))
		for _, name := range req.Trailer {
			out.Trailer[http.CanonicalHeaderKey(name)] = nil
		}
		body.trailer = out.Trailer
	}
	if req.TakesTrailers() {
		out.Header["Te"] = []string{"trailers"}
	}
	exchangeCtx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer s.newer.Store(nil)
	if s.newer.Store(&end); s.watch.Expired() { // late does not come again
		return exchange.Result{}, silent()
	}
	resp, err := s.p.HTTP2.RoundTripWhile(exchangeCtx, s.grant.permit, out, s.p.still(in), func(status int, h http.Header) error {
		return exchange.Inform(s.client.W, req, status, in.sealed.Interim(h))
	})
	if changed, ok := errors.AsType[*refusal](err); ok && (in.body.Read || body.n.Load() == 0) {
		return s.overHTTP2(ctx, req, t, in) // with what goes in now
	} else if ok {
		return exchange.Result{Up: body.n.Load()}, s.inPlace(changed)
	}
	if err != nil {
		s.saysNoHTTP2(err)
		return exchange.Result{Up: body.n.Load()}, s.unheard(ctx, body, err)
	}
	body.answer()
	defer resp.Body.Close()
	down := &counted{ReadCloser: resp.Body, watch: s.watch}
	resp.Body = down
	resp.Request = out
	if refused := in.clean(resp); refused != nil {
		return exchange.Result{Up: body.n.Load(), Status: resp.StatusCode}, refused
	}
	whole := length == 0 || in.body.Read || body.n.Load() == length
	res, err := exchange.Respond(s.client.W, req, resp, !whole || s.ended.Load())
	res.Up, res.Down = body.n.Load(), int64(down.n.Load())
	switch {
	case err == nil:
		return res, nil
	case ctx.Err() == nil && s.watch.Expired() && down.failed.Load():
		return res, silent()
	default:
		return res, s.interrupted(ctx, err)
	}
}

// unheard is an origin of HTTP/2 that gave no response to a request with this body: when
// the request was never complete, that is why.
func (s *session) unheard(ctx context.Context, body *lent, err error) *refusal {
	broken := body.takeBack()
	if ctx.Err() != nil {
		return s.interrupted(ctx, err)
	}
	if broken != nil {
		if fault := exchange.BodyFault(broken, s.watch.Expired()); fault != nil {
			return s.interrupted(ctx, fault)
		}
	} else if s.watch.Expired() {
		return silent()
	}
	return streamFailed(ctx, s.grant.permit.Host(), err)
}

// silent is an origin that was waited for long enough.
func silent() *refusal {
	return &refusal{status: 504, stage: core.StageRequest, reason: core.ReasonUpstreamTimeout, detail: errSilent.Error(), failed: true}
}

// lent is a request's body while net/http sends it, which may go on reading when the
// exchange is over. Taken back, it touches nothing of the session any more: the buffer
// behind it will be another one's.
type lent struct {
	s *session
	n atomic.Int64

	behind  *http1.BodyReader // has what is announced behind the body; nil: nothing is
	trailer http.Header       // gets it, before the end is told

	mu     sync.Mutex
	from   io.Reader // guarded by mu; nil: taken back
	broken error     // guarded by mu; how it ended, other than with its last byte

	interim sync.Mutex // held while the client is told to go on
	wanted  bool       // guarded by interim; the client waits for that
}

// goOn tells a client that waits for it that its body is wanted: that is when the origin
// said so, or said nothing for a while. Preconditions: mu is held.
func (l *lent) goOn() error {
	l.interim.Lock()
	defer l.interim.Unlock()
	if !l.wanted {
		return nil
	}
	l.wanted = false
	if l.s.client.R.Buffered() > 0 {
		return nil // it does not wait
	}
	_, err := io.WriteString(l.s.stream, continues)
	return err
}

// answer comes before the response: behind that nothing is said of the body.
func (l *lent) answer() {
	l.interim.Lock()
	l.wanted = false
	l.interim.Unlock()
}

// Read implements io.Reader.
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from == nil {
		return 0, net.ErrClosed
	}
	if err := l.goOn(); err != nil {
		l.broken = err
		return 0, err
	}
	n, err := l.from.Read(p)
	switch {
	case errors.Is(err, io.EOF) && l.behind != nil:
		for _, f := range l.behind.Trailers() {
			name := http.CanonicalHeaderKey(f.Name)
			l.trailer[name] = append(l.trailer[name], f.Value)
		}
		l.behind = nil // it is told once
	case err != nil && !errors.Is(err, io.EOF):
		l.broken = err
	}
	if l.n.Add(int64(n)); n > 0 {
		l.s.watch.Mark()
	}
	return n, err
}

// Close implements io.Closer, for net/http, which calls it at any time.
func (l *lent) Close() error { return nil }

// takeBack ends a read that waits for the client, and every later one. It returns how
// the body ended, if not with its last byte.
func (l *lent) takeBack() (broken error) {
	if !l.mu.TryLock() {
		l.s.interrupt()
		l.mu.Lock()
		l.s.resume()
	}
	defer l.mu.Unlock()
	l.from = nil
	return l.broken
}

// headerOf is a list of fields as net/http has it, without those of one hop.
func headerOf(fields http1.Fields) http.Header {
	h := make(http.Header, len(fields))
	for _, f := range fields.EndToEnd() {
		name := http.CanonicalHeaderKey(f.Name)
		h[name] = append(h[name], f.Value)
	}
	delete(h, "Host")
	delete(h, "Content-Length")
	return h
}
