package inference

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/pkg/core"
)

// MaxBody bounds the body of a call, in bytes.
const MaxBody = 10 << 20

// Call is a call of the workload: its method, canonical path, query without question mark,
// and head. It may be made once.
type Call struct {
	Method, Path, Query string
	Header              http.Header
	// Body reads the whole body, of at most MaxBody bytes; it is called if there is a route.
	// What it returns is overwritten. What it fails with, Make fails with.
	Body func() ([]byte, error)
}

// Error is a call that was not made, or got no answer. Said is for the program that called,
// Detail for whoever reads why; neither names a key, or where the provider is.
type Error struct {
	Status int
	Reason core.Reason
	Said   string
	Detail string
	// Failed says that the call was allowed, and something else went wrong.
	Failed bool
}

// Error implements error.
func (e *Error) Error() string { return e.Said + ": " + e.Detail }

// passed are the fields of the workload that go on to every provider. What a body is, or an
// answer is coded in, is not theirs to say: both are read here.
var passed = []string{"Accept", "User-Agent"}

// maxAttempts bounds how often a call is made anew because its routes were replaced.
const maxAttempts = 5

// Make makes a call to the first route that takes it, or a further one while none can be
// reached. It fails with an *Error, or as Call.Body does. The caller reads the answer to its
// end, or closes it.
func (r *Router) Make(ctx context.Context, c *Call) (*Answer, error) {
	op, ok := operationOf(c.Method, c.Path)
	if !ok {
		return nil, &Error{Status: http.StatusForbidden, Reason: core.ReasonInferenceOperation, Said: "connection not allowed by policy",
			Detail: c.Method + " " + c.Path + " is no model call that is routed; there are POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings and /v1/messages, GET /v1/models and what is below it"}
	}
	if _, err := taking(r.Routes(), op.protocol); err != nil {
		return nil, err
	}
	body, err := c.content()
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ { // by the routes in force now: the body has taken its time
		current := r.current.Load()
		routes, err := taking(*current, op.protocol)
		if err != nil {
			return nil, err
		}
		body.prefer(routes)
		a, sent, err := r.try(ctx, c, op, routes, body)
		if err == nil || sent || ctx.Err() != nil || attempt == maxAttempts || r.current.Load() == current { // what is replaced is dialled no more
			return a, err
		}
	}
}

// try makes the call by the first of some routes that can be reached. sent says that its
// provider may have it.
func (r *Router) try(ctx context.Context, c *Call, op operation, routes []*Route, body *content) (a *Answer, sent bool, err error) {
	for _, route := range routes {
		if a, sent, err = r.send(ctx, c, op, route, body); err == nil || sent || ctx.Err() != nil {
			break
		}
	}
	return a, sent, err
}

// taking are the routes for a protocol, in their order; the slice is a new one. It fails
// with an *Error when there is none.
func taking(routes []*Route, p Protocol) (out []*Route, err error) {
	if len(routes) == 0 {
		return nil, &Error{Status: http.StatusServiceUnavailable, Reason: core.ReasonInferenceUnconfigured, Said: "cluster inference is not configured",
			Detail: "no inference route is configured for this sandbox; an operator names them in the network daemon's --inference-routes"}
	}
	for _, route := range routes {
		if slices.Contains(route.Protocols, p) {
			out = append(out, route)
		}
	}
	if len(out) == 0 {
		return nil, &Error{Status: http.StatusBadRequest, Reason: core.ReasonInferenceNoRoute, Said: "no compatible inference route available",
			Detail: "no inference route of this sandbox takes " + string(p)}
	}
	return out, nil
}

// send makes the call by one route. sent says that its provider may have it.
func (r *Router) send(ctx context.Context, c *Call, op operation, route *Route, body *content) (_ *Answer, sent bool, err error) {
	if route.problem != "" {
		return nil, false, &Error{Status: http.StatusUnauthorized, Reason: core.ReasonCredentialUnavailable, Said: "inference service unavailable", Failed: true,
			Detail: "the key of the inference route " + route.Name + " has no usable value; the operator's file is the place to look, not the one who asks"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	head := time.AfterFunc(route.wait(op), func() { cancel(errLate) })
	var reached atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }})
	resp, err := r.transport.RoundTrip(c.toProvider(traced, route, body))
	var sealed *seal.Sealed
	if err == nil {
		sealed, err = route.cleaned(resp)
	}
	if err != nil {
		head.Stop()
		e := unanswered(ctx, route, reached.Load(), err)
		cancel(nil)
		r.cfg.Log.Warn("a model call got no answer", slog.String("route", route.Name), slog.String("problem", string(e.Reason)), slog.String("error", unquoted(err)))
		return nil, reached.Load(), e
	}
	var stall time.Duration
	if op.streams {
		stall = r.cfg.Stall
	}
	a := newAnswer(ctx, cancel, head, stall, resp, route)
	a.Sealed, a.Sent = sealed, body.forget()
	return a, true, nil
}

// cleaned takes out of an answer what it may repeat of the key, for which a coding is taken
// off: limits and what reads along are about what goes on, not about what came. An answer in
// a coding that cannot be read is closed.
func (r *Route) cleaned(resp *http.Response) (*seal.Sealed, error) {
	if r.KeyFile == "" {
		return nil, nil
	}
	sealed := seal.Watch([]credentials.Echo{{Value: r.key, Placeholder: "REDACTED", Key: r.Name, Bodies: true}})
	if sealed.Clean(resp) != nil {
		return nil, errCoded
	}
	return sealed, nil
}

// wait is how long an answer may take to begin, or if it does not stream, in all.
func (r *Route) wait(op operation) time.Duration {
	switch {
	case r.Timeout > 0:
		return r.Timeout
	case op.streams:
		return defaultHead
	default:
		return defaultTimeout
	}
}

// errLate and errStalled end an answer that does not come; one that is errCoded may repeat
// the key where nobody finds it.
var (
	errLate    = errors.New("the provider did not answer in time")
	errStalled = errors.New("chunk idle timeout exceeded")
	errCoded   = errors.New("the answer is in a coding that is not read here, though none was asked for")
)

// unanswered is a call that got no answer to pass on. Its text is not the cause's, which
// would tell of addresses and certificates.
func unanswered(ctx context.Context, route *Route, sent bool, err error) *Error {
	of := "the provider of the inference route " + route.Name
	e := &Error{Status: http.StatusServiceUnavailable, Reason: core.ReasonUpstreamUnreachable, Said: "inference service unavailable", Detail: of + " could not be reached", Failed: true}
	switch {
	case errors.Is(context.Cause(ctx), errLate):
		e.Reason, e.Detail = core.ReasonUpstreamTimeout, of+" did not answer in time"
	case ctx.Err() != nil:
		e.Reason, e.Detail = core.ReasonClientClosed, "the call ended before its answer began"
	case errors.Is(err, errCoded):
		e.Status, e.Reason, e.Said, e.Detail = http.StatusBadGateway, core.ReasonUninspectedResponse, "inference service error", of+": "+err.Error()
	case sent:
		e.Status, e.Reason, e.Said, e.Detail = http.StatusBadGateway, core.ReasonUpstreamInvalid, "inference service error", of+" gave no complete answer"
	case ofTLS(err):
		e.Status, e.Reason, e.Said, e.Detail = http.StatusBadGateway, core.ReasonUpstreamTLS, "inference service error", of+" has no acceptable TLS or certificate"
	}
	return e
}

// unquoted is what net/http says of an error, without the provider's own words: they may
// repeat the key.
func unquoted(err error) string {
	text, _, _ := strings.Cut(err.Error(), `"`)
	return text
}

// ofTLS reports whether a handshake failed.
func ofTLS(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return certificate || alert || record
}

// toProvider is the call as its provider gets it: nothing of the workload's but what is on
// a list.
func (c *Call) toProvider(ctx context.Context, route *Route, body *content) *http.Request {
	u := *route.endpoint
	u.RawQuery, u.Opaque = c.Query, joined(route.endpoint.EscapedPath(), c.Path) // which net/http spells as it is
	p := providers[route.Provider]
	h := http.Header{}
	for name, value := range p.defaults {
		h.Set(name, value)
	}
	for _, name := range slices.Concat(passed, p.pass) {
		if values := c.Header[name]; len(values) > 0 {
			h[name] = slices.Clone(values)
		}
	}
	if h["User-Agent"] == nil {
		h["User-Agent"] = []string{""} // or net/http would name itself
	}
	if key := route.key.Expose(); key != "" && p.key == "Authorization" {
		h.Set(p.key, "Bearer "+key)
	} else if key != "" {
		h.Set(p.key, key)
	}
	// A server nearby closes what it has kept a few seconds, and a call that meets that would
	// be lost: it cannot be sent twice. A new connection to it costs next to nothing.
	req := (&http.Request{Method: c.Method, URL: &u, Host: u.Host, Header: h, Close: u.Scheme == "http"}).WithContext(ctx)
	body.of(req, route.Model)
	return req
}

// joined is a path below a base, of which only one begins with the version that both have.
func joined(base, path string) string {
	if rest, ok := strings.CutPrefix(path, "/v1"); ok && (strings.HasPrefix(base, "/v1/") || strings.HasSuffix(base, "/v1")) {
		path = rest
	}
	return base + path
}

// content is the body of a call without its model, in the place of the one that came.
type content struct {
	members []byte    // of the object, each behind a comma; nil: there is no body
	model   string    // that was asked for
	way     *onItsWay // of the latest attempt
}

// content reads the body of a call, which is a JSON object if there is one: whatever else
// it is, nobody could say which model it asks for.
func (c *Call) content() (*content, error) {
	if c.Method != http.MethodPost {
		return &content{}, nil
	}
	body, err := c.Body()
	if err != nil {
		return nil, err
	}
	out := &content{}
	if !out.read(body) {
		return nil, &Error{Status: http.StatusBadRequest, Reason: core.ReasonBadRequest, Said: "the request body is not a JSON object",
			Detail: "a model call has one JSON object in UTF-8 as its body, in the clear, because its model is set by the route"}
	}
	return out, nil
}

// read takes the members of an object as they stand, but for its model however that is
// spelt: some servers take names of any case. It reports whether there is one object, and
// in UTF-8: what else is in a text, one server leaves out and another does not. Nothing is
// copied: with its comma a member ends no further behind than where it stood.
func (b *content) read(text []byte) bool {
	text = bytes.Trim(text, " \t\r\n")
	if !json.Valid(text) || !utf8.Valid(text) || text[0] != '{' {
		return false
	}
	b.members = text[:0]
	begin, depth, quoted := 1, 0, false
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == '}'):
			b.take(text[begin:i])
			begin = i + 1
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

// escaped is how many times longer a text may be written than it is.
const escaped = len(`\u0000`)

// take takes one member.
func (b *content) take(member []byte) {
	if member = bytes.TrimLeft(member, " \t\r\n"); len(member) == 0 { // of {}
		return
	}
	end := 1
	for ; member[end] != '"'; end++ {
		if member[end] == '\\' {
			end++
		}
	}
	name := ""
	if n := end - 1; len("model") <= n && n <= escaped*len("model") {
		_ = json.Unmarshal(member[:end+1], &name) // it is valid
	}
	if strings.EqualFold(name, "model") {
		if value := bytes.TrimLeft(member[end+1:], " \t\r\n:"); len(value) <= escaped*maxModelBytes+2 {
			_ = json.Unmarshal(value, &b.model) // one that is no text, or none of a route, asks for none
		}
		return
	}
	b.members = append(append(b.members, ','), member...)
}

// prefer puts the routes of the model that was asked for, by its name or the route's, in
// front of the others.
func (b *content) prefer(routes []*Route) {
	other := func(r *Route) int {
		if b.model != "" && (r.Name == b.model || r.Model == b.model) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(routes, func(x, y *Route) int { return other(x) - other(y) })
}

// of makes it the body of a request, with the model of a route.
func (b *content) of(req *http.Request, model string) {
	if b.members == nil {
		return
	}
	name, _ := json.Marshal(model)                     // of a text it does not fail
	req.Header.Set("Content-Type", "application/json") // and nothing in which it would be another object
	begin := append([]byte(`{"model":`), name...)
	req.ContentLength = int64(len(begin) + len(b.members) + 1)
	req.GetBody = func() (io.ReadCloser, error) {
		b.way = &onItsWay{Reader: io.MultiReader(bytes.NewReader(begin), bytes.NewReader(b.members), strings.NewReader("}"))}
		b.way.left.Store(req.ContentLength)
		return b.way, nil
	}
	req.Body, _ = req.GetBody()
}

// forget lets go of a body of which everything has gone out; with an answer there is no
// further attempt. It reports whether that is so.
func (b *content) forget() bool {
	if b.way != nil && b.way.left.Load() > 0 {
		return false
	}
	b.members = nil
	return true
}

// onItsWay is the body of one attempt. A provider that answers early may take it for as
// long as its answer lasts.
type onItsWay struct {
	io.Reader // which keeps nothing of what was read
	left      atomic.Int64
}

// Read implements io.Reader.
func (o *onItsWay) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	o.left.Add(-int64(n))
	return n, err
}

// Close implements io.Closer.
func (o *onItsWay) Close() error { return nil }
