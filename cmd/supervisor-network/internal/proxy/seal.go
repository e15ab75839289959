package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hello"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/pkg/core"
)

// redacted is what everybody but the origin sees of a target.
func redacted(path, query string) (string, string) {
	path, query = rewrite.Redact(path, query)
	return path, queryOf(query)
}

// seal puts credentials into a request that rules allow, or says why it cannot go.
func (p *Path) seal(ctx context.Context, g *grant, in *incoming, out *seal.Request, body func(limit int) ([]byte, error)) *refusal {
	var err error
	in.sealed, err = p.Vault.Seal(ctx, seal.Allowed{Permit: g.permit, Endpoint: &in.endpoint, Path: in.path, Body: &in.body}, out, body)
	return uninjected(err)
}

// recheck asks, directly before a request is sent, whether what went into it still is
// what would.
func (p *Path) recheck(in *incoming) *refusal { return uninjected(p.Vault.Recheck(in.sealed)) }

// still is recheck for a request that waits for its turn; nil: nothing went into it.
func (p *Path) still(in *incoming) func() error {
	if len(in.sealed.Uses()) == 0 {
		return nil
	}
	return func() error {
		if changed := p.recheck(in); changed != nil {
			return changed
		}
		return nil
	}
}

// uninjected is a request that credentials, or the lack of them, keep here; nil: nothing
// does.
func uninjected(err error) *refusal {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*inject.Error](err)
	if !ok {
		return unreadable(err)
	}
	return &refusal{status: e.Status, stage: core.StageRequest, reason: e.Reason, detail: e.Detail}
}

// seal puts credentials into a request of HTTP/1.1. The request that came stays as it
// is; the one that goes is returned, and t changed with it.
func (s *session) seal(ctx context.Context, req *http1.Request, t *http1.Target, in *incoming, body func(limit int) ([]byte, error)) (*http1.Request, *refusal) {
	in.came, in.target = req, *t
	sent, refused := s.sealAs(ctx, req, t, in, body)
	if refused == nil {
		in.noteUses(s.ev)
	}
	return sent, refused
}

// renewed makes sure, directly before a request is sent, that what goes in still is what
// would. When a value was replaced since, the request is made anew with the newest one:
// nothing of it has been sent.
func (s *session) renewed(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) (*http1.Request, http1.Target, *refusal) {
	if s.p.recheck(in) == nil {
		return req, t, nil
	}
	t = in.target
	body := func(limit int) ([]byte, error) { return s.body(ctx, in.came, in, limit) }
	sent, refused := s.sealAs(ctx, in.came, &t, in, body)
	if refused == nil {
		refused = s.p.recheck(in)
	}
	if refused != nil {
		return nil, t, s.inPlace(refused)
	}
	return sent, t, nil
}

// sealAs is seal, without a note of it.
func (s *session) sealAs(ctx context.Context, req *http1.Request, t *http1.Target, in *incoming, body func(limit int) ([]byte, error)) (*http1.Request, *refusal) {
	out := seal.Request{Method: req.Method, Authority: t.Authority(s.defaultPort), Sent: sentPath(req.Target), Path: t.Path, Query: t.Query,
		Fields: req.Fields, Framing: req.Framing, Secure: s.defaultPort == 443}
	if in.content != nil {
		out.Trailer, out.Trailers = req.Trailer, in.content.Trailers
	}
	if refused := s.p.seal(ctx, s.grant, in, &out, body); refused != nil {
		return nil, s.inPlace(refused)
	}
	in.sent = *req
	in.sent.Fields = out.Fields
	t.Path, t.Query = out.Path, out.Query
	return &in.sent, nil
}

// inPlace gives a refusal the name it has in answers of the forward proxy.
func (s *session) inPlace(r *refusal) *refusal {
	if !s.tunnel {
		r.reason = (&inject.Error{Reason: r.reason}).Forwarded().Reason
	}
	return r
}

// sealStream puts credentials into a stream of HTTP/2.
func (s *session) sealStream(ctx context.Context, ev *record.Entry, g *grant, st *http2.Stream, in *incoming) *refusal {
	in.target.Path, in.target.Query = st.Path, st.Query
	refused := s.sealStreamAs(ctx, g, st, in)
	if refused == nil {
		in.noteUses(ev)
	}
	return refused
}

// renewedStream is renewed for a stream. req, which it returns or makes anew, has up as
// its body.
func (s *session) renewedStream(ctx context.Context, g *grant, st *http2.Stream, in *incoming, req *http.Request, up *counted) (*http.Request, *refusal) {
	again, refused := s.resealed(ctx, g, st, in)
	if !again || refused != nil {
		return req, refused
	}
	return in.toOrigin(ctx, st, up), nil
}

// resealed seals a stream once more, of what came, when what goes in no longer is what
// would. again says that the request has to be made anew.
func (s *session) resealed(ctx context.Context, g *grant, st *http2.Stream, in *incoming) (again bool, refused *refusal) {
	if s.p.recheck(in) == nil {
		return false, nil
	}
	st.Path, st.Query, st.Header = in.target.Path, in.target.Query, headersOf(in.head.Fields)
	if refused := s.sealStreamAs(ctx, g, st, in); refused != nil {
		return false, refused
	}
	return true, s.p.recheck(in)
}

// toOrigin is a sealed stream as a request, with up as its body.
func (in *incoming) toOrigin(ctx context.Context, st *http2.Stream, up *counted) *http.Request {
	req := st.ToOrigin(ctx)
	up.ReadCloser = in.sealed.Stream(req.Body)
	if in.body.Read {
		up.ReadCloser, req.ContentLength = io.NopCloser(bytes.NewReader(in.body.Content)), lengthOf(in.body.Content, len(req.Trailer) > 0)
		delete(req.Header, "Expect")
	}
	if req.ContentLength != 0 {
		req.Body = up
	}
	return req
}

// lengthOf is the length of a body as net/http is told it: behind one without any length it
// sends no trailers, and does not end the request either.
func lengthOf(content []byte, trailed bool) int64 {
	if len(content) == 0 && trailed {
		return -1
	}
	return int64(len(content))
}

// sealStreamAs is sealStream, without a note of it.
func (s *session) sealStreamAs(ctx context.Context, g *grant, st *http2.Stream, in *incoming) *refusal {
	framing := http1.Framing{}
	switch {
	case st.Length > 0:
		framing = http1.Framing{Kind: http1.Length, Length: st.Length}
	case st.Length < 0:
		framing.Kind = http1.Chunked
	}
	out := seal.Request{Method: in.head.Method, Authority: http1.Target{Host: g.permit.Host(), Port: g.permit.Port()}.Authority(443),
		Sent: st.Sent(), Path: st.Path, Query: st.Query, Fields: in.head.Fields, Framing: framing, Secure: true,
		Trailer: st.Trailer, Trailers: st.Trailers}
	if refused := s.p.seal(ctx, g, in, &out, func(limit int) ([]byte, error) { return s.readStream(ctx, st, in, limit) }); refused != nil {
		return refused
	}
	if !unchanged(out.Fields, in.head.Fields) {
		st.Header = headersOf(out.Fields)
	}
	st.Path, st.Query = out.Path, out.Query
	return nil
}

// unchanged reports whether a is b, and not a copy with something changed.
func unchanged(a, b http1.Fields) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// headersOf is http1.FieldsOf undone.
func headersOf(fields http1.Fields) http.Header {
	h := make(http.Header, len(fields))
	for _, f := range fields {
		name := http.CanonicalHeaderKey(f.Name)
		h[name] = append(h[name], f.Value)
	}
	return h
}

// sentPath is the path of a request target as it was sent.
func sentPath(target string) string {
	path, _, _ := strings.Cut(target, "?")
	if _, rest, ok := strings.Cut(path, "://"); ok {
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			return "/"
		}
		path = rest[i:]
	}
	return path
}

// noteUses records which credentials went in.
func (in *incoming) noteUses(ev *record.Entry) {
	for _, u := range in.sealed.Uses() {
		ev.Used(u.Key)
	}
}

// cleaner takes out of an answer what went into its request; nil when there is nothing to
// look for.
func cleaner(s *seal.Sealed) exchange.Cleaner {
	if c, ok := s.Cleaner(); ok {
		return c
	}
	return nil
}

// clean is cleaner for an answer of net/http. One that cannot be looked into is refused.
func (in *incoming) clean(resp *http.Response) *refusal {
	err := in.sealed.Clean(resp)
	if err == nil {
		return nil
	}
	r := unreadable(err)
	r.failed = true
	return r
}

// seal puts credentials into a text message, where the endpoint has that, and lets no
// other message with a placeholder pass.
func (j *messageJudge) seal(text []byte) ([]byte, error) {
	if !j.in.endpoint.RewriteMessages {
		if j.p.Vault.Store != nil && placeholder.FoundBytes(text) {
			return nil, j.refuse(uninjected(inject.Misplaced("a message")))
		}
		return nil, nil
	}
	out, uses, echoes, err := j.p.Vault.Text(j.grant.permit, j.in.path, j.secure, text)
	if err != nil {
		return nil, j.refuse(uninjected(err))
	}
	for _, u := range uses {
		j.used(u.Key)
	}
	j.echoes.Add(echoes) // before the server can answer
	return out, nil
}

// uninspected is a connection that nobody could look into, to an endpoint that has
// credentials.
func uninspected(stage core.Stage) *refusal {
	return &refusal{status: 403, stage: stage, reason: core.ReasonUninspectedCredentials, detail: gated}
}

const gated = "credentials are bound to this endpoint, so what goes there has to be HTTP that this proxy reads, with or without TLS; " +
	"allow_uninspected_credentials lets other bytes pass"

// errGated ends a connection that nobody looks into when its endpoint gets credentials.
var errGated = errors.New(gated)

// unread notes that the bytes of a connection pass unread, so that it ends when its
// endpoint gets credentials; that may have happened a moment ago.
func (p *Path) unread(entry *liveEntry) {
	entry.uninspected.Store(true)
	if p.Vault.Guarded(entry.permit) {
		entry.end(errGated)
	}
}

// demand serves TLS whose client said nothing of its protocol, on an endpoint that has
// credentials: it is HTTP or it is refused.
func (s *session) demand(ctx context.Context) {
	s.watch.Begin(s.p.HeadTimeout)
	switch kind, err := hello.Peek(s.client.R); {
	case kind == hello.HTTP1:
		s.run(ctx)
	case s.client.R.Buffered() == 0 && err != nil:
		s.nothing(ctx)
	default:
		s.refuse(uninspected(core.StageRequest))
	}
}

// Gate ends the connections whose bytes pass unread, and now may not.
func (l *Live) Gate(credentialed func(host string, port uint16) bool) (ended int) {
	l.entries.Range(func(_, v any) bool {
		e := v.(*liveEntry)
		if e.uninspected.Load() && !e.permit.AllowsUninspected() && credentialed(e.permit.Host(), e.permit.Port()) {
			e.end(errGated)
			ended++
		}
		return true
	})
	return ended
}
