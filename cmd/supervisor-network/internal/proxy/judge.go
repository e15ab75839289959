package proxy

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// incoming is one request of the workload, of whatever version of HTTP, as it is read
// and judged.
type incoming struct {
	head     inspect.Head
	method   string
	path     string // canonical
	body     hold.Body
	endpoint decide.Endpoint
	facts    decide.Request
	audited  string // what rules say against it, and are not enforced

	// binary says that messages pass unread on the WebSocket behind it.
	binary  atomic.Bool
	running running      // on the WebSocket behind it
	sealed  *seal.Sealed // what credentials did to it; nil: not yet
	// came and target are what the request to the origin was made of, in case that it has
	// to be made anew.
	came   *http1.Request // only in HTTP/1.1
	target http1.Target
	// content is the body when something is announced behind it; only in HTTP/1.1.
	content *http1.BodyReader

	turn      *turn                // when it is under way; only in HTTP/1.1
	sent      http1.Request        // as it goes to the origin, when it is sealed; only in HTTP/1.1
	handshake *websocket.Handshake // it asks for a WebSocket, properly
	omit      []string             // fields that do not go to the origin, lower-case; only in HTTP/1.1
	add       http1.Fields         // and what goes instead
}

// alone reports whether the request can end without its connection.
func (in *incoming) alone() bool { return in.turn != nil && in.turn.session.tunnel }

// describe notes what was asked for, as far as it is known.
func (in *incoming) describe(ev *record.Entry) {
	ev.Event.Method, ev.Event.Path = in.method, in.path
	ev.Event.Application = core.ParseApplication(string(in.endpoint.Protocol))
	if parent, n := in.head.Fields.Get("Traceparent"); n == 1 {
		ev.Event.TraceParent = core.ParseTraceParent(parent)
	}
}

// judge decides about one request on a granted connection. body reads it whole, up to
// a limit.
func (p *Path) judge(g *grant, in *incoming, body func(limit int) ([]byte, error)) *refusal {
	if !g.permit.Inspected() {
		return nil
	}
	endpoint, ok := g.snap.Endpoint(g.permit, in.path)
	if !ok {
		return byRules(decide.Ruling{Rule: g.permit.Rule(), Detail: in.method + " " + in.path + " did not match an L7 endpoint path"})
	}
	in.endpoint = endpoint
	in.facts = in.asked()
	if refused := in.understand(body); refused != nil {
		return refused
	}
	ruling := g.snap.Request(g.permit, endpoint, &in.facts)
	if ruling.Detail != "" && len(in.facts.Overrides) > 0 {
		ruling.Detail += " (a field or parameter overrides the method " + in.method + ")"
	}
	if !ruling.Allowed {
		return byRules(ruling)
	}
	if ruling.Audited {
		in.audited = ruling.Detail
	}
	return nil
}

// maxOverrides is how many methods may override a request's own: it is judged once more for
// each.
const maxOverrides = 4

// asked is what the head of a request asks for.
func (in *incoming) asked() decide.Request {
	return decide.Request{Method: in.method, Overrides: inspect.Overrides(in.head), Path: in.path, Query: in.head.Query, Upgrade: in.handshake != nil}
}

// understand reads what the endpoint's rules are about.
func (in *incoming) understand(body func(limit int) ([]byte, error)) *refusal {
	if len(in.facts.Overrides) > maxOverrides {
		return &refusal{status: 400, stage: core.StageRequest, reason: core.ReasonBadRequest,
			detail: fmt.Sprintf("fields and parameters name at most %d methods that a request shall be taken for", maxOverrides)}
	}
	if !in.endpoint.EncodedSlash && strings.Contains(in.path, "%2F") { // it was read for all endpoints of the host
		if _, err := http1.CanonicalPath(in.path, false); err != nil {
			return unreadable(err)
		}
	}
	if inspect.Elsewhere(in.head) {
		return &refusal{status: 400, stage: core.StageRequest, reason: core.ReasonInvalidTarget,
			detail: "on an inspected endpoint no field (X-Original-URL, X-Rewrite-URL, SCRIPT_NAME, X-Script-Name) names another target than the request's own, or a part of it"}
	}
	if in.head.Fields.Has("Upgrade", "h2c") {
		return &refusal{status: 403, stage: core.StageRequest, reason: core.ReasonUnsupportedProtocol,
			detail: "an upgrade to HTTP/2 without TLS is not supported on an inspected endpoint"}
	}
	if in.handshake != nil && !carriesWebSockets(in.endpoint.Protocol) {
		return &refusal{status: 403, stage: core.StageRequest, reason: core.ReasonUnsupportedProtocol,
			detail: "the endpoint's rules are about the content of requests, which a WebSocket would carry past them"}
	}
	if inspect.NeedsBody(in.endpoint, in.head) && !in.body.Read {
		content, err := body(in.endpoint.MaxBody)
		if err != nil {
			return unreadable(err)
		}
		in.body.Content, in.body.Read = content, true
	}
	leave := in.body.Held.Of.Turn(len(in.body.Content))
	err := inspect.Fill(in.endpoint, in.head, in.body.Content, &in.facts)
	leave()
	if err == nil && !in.body.Held.Weigh(in.body.Content, &in.facts) {
		err = hold.ErrCrowded
	}
	if err != nil {
		return unreadable(err)
	}
	return nil
}

// carriesWebSockets reports whether rules of the protocol know what they allow when they
// allow a handshake: its messages, or whatever the path leads to.
func carriesWebSockets(p policy.Protocol) bool {
	return p == policy.ProtocolWebSocket || p == policy.ProtocolREST
}

// byRules is a refusal by rules about requests.
func byRules(ruling decide.Ruling) *refusal {
	return &refusal{status: 403, stage: core.StageRequest, reason: ruling.ReasonOf(), detail: ruling.Detail, ruling: &ruling}
}

// unreadable is a request whose content cannot be read in one way, or at all.
func unreadable(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if e, ok := errors.AsType[*inspect.Error](err); ok {
		return &refusal{status: e.Status, stage: core.StageRequest, reason: e.Reason, detail: e.Detail}
	}
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		return malformed(core.StageRequest, e)
	}
	return &refusal{status: 400, stage: core.StageRequest, reason: core.ReasonClientClosed, detail: "the connection ended before the request did", failed: true}
}

// queryOf is a target's query without its question mark.
func queryOf(query string) string { return strings.TrimPrefix(query, "?") }
