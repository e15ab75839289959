package proxy

import (
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
)

// Facts are what the way of a connection reads of a request before rules judge it, for who
// explains a decision that nobody waits for. asked has the method, path and query, and head
// is what a client would send in front of body. refused says that the request cannot be
// read, whatever the rules say.
func Facts(snap *decide.Snapshot, permit decide.Permit, asked decide.Request, head, body []byte) (facts decide.Request, refused *inspect.Error) {
	req, err := http1.ParseRequest(head)
	if err != nil {
		return asked, unreadable(err).plain()
	}
	in := &incoming{method: asked.Method, path: asked.Path, head: headOf(req), body: hold.Body{Held: hold.Holding{Of: hold.New(hold.Max)}}}
	in.head.Query = asked.Query
	var malformed error
	if websocket.Wanted(req.Fields) {
		in.handshake, malformed = websocket.Read(req)
	}
	in.facts = in.asked()
	if permit.Inspected() {
		var ok bool
		if in.endpoint, ok = snap.Endpoint(permit, in.path); ok {
			refused = in.understand(func(limit int) ([]byte, error) {
				if len(body) > limit {
					return nil, inspect.TooLarge(limit)
				}
				return body, nil
			}).plain()
		}
	}
	if refused == nil && malformed != nil {
		refused = unreadable(malformed).plain()
	}
	return in.facts, refused
}

// plain is a refusal as others see it.
func (r *refusal) plain() *inspect.Error {
	if r == nil {
		return nil
	}
	return &inspect.Error{Status: r.status, Reason: r.reason, Detail: r.detail}
}
