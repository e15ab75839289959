package app

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/pkg/core"
)

// overHTTP2 makes an exchange with an origin that speaks nothing older.
func (s *session) overHTTP2(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) (exchange.Result, *refusal) {
	if in.handshake != nil {
		return exchange.Result{}, &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUnsupportedProtocol,
			detail: "the origin speaks HTTP/2 only, in which WebSockets are not supported here", failed: true}
	}
	body := &counted{ReadCloser: io.NopCloser(http1.NewBodyReader(s.client.R, req.Framing))}
	length := req.Framing.Length
	switch {
	case in.read:
		body.ReadCloser, length = io.NopCloser(bytes.NewReader(in.content)), int64(len(in.content))
	case req.Framing.Kind == http1.Chunked:
		length = -1
	}
	authority := t.Authority(443)
	out := &http.Request{Method: req.Method, URL: &url.URL{Scheme: "https", Host: authority, Opaque: t.Path, RawQuery: queryOf(t.Query), ForceQuery: t.Query == "?"},
		Host: authority, Header: headerOf(req.Fields), ContentLength: length, Body: http.NoBody}
	if length != 0 {
		out.Body = body
	}
	resp, err := s.p.http2.RoundTrip(ctx, s.grant.permit, out)
	if err != nil {
		return exchange.Result{Up: int64(body.n)}, streamFailed(ctx, s.grant.permit.Host(), err)
	}
	defer resp.Body.Close()
	down := &counted{ReadCloser: resp.Body}
	resp.Body = down
	whole := length == 0 || in.read || int64(body.n) == length
	res, err := exchange.Respond(s.client.W, req, resp, !whole || s.ended.Load())
	res.Up, res.Down = int64(body.n), int64(down.n)
	if err != nil {
		return res, s.interrupted(ctx, err)
	}
	return res, nil
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
	delete(h, "Expect")
	return h
}
