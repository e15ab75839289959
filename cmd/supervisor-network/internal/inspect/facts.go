package inspect

import (
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/graphql"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/jsonrpc"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Head is what reading a body depends on.
type Head = content.Head

// Error is a request that is refused because it cannot be read, whatever the rules
// and their enforcement say.
type Error = content.Error

// TooLarge is the refusal of a body that is longer than an endpoint's MaxBody. The
// caller returns it when it stops reading there; Fill returns it too.
func TooLarge(limit int) error { return content.TooLarge(limit) }

// NeedsBody reports whether a request can be judged only with its whole body, which
// is at most e.MaxBody bytes long and is read before anything is sent.
func NeedsBody(e decide.Endpoint, h Head) bool {
	switch e.Protocol {
	case policy.ProtocolGraphQL, policy.ProtocolJSONRPC, policy.ProtocolMCP:
		return h.Method == "POST"
	default:
		return false
	}
}

// Fill adds to r what the content of a request says; body is nil unless NeedsBody.
// It returns an [Error] where that cannot be read in one way. A request that it
// adds nothing to is refused by decide, where its endpoint's rules are about
// content. On an error r is as it was.
func Fill(e decide.Endpoint, h Head, body []byte, r *decide.Request) error {
	if NeedsBody(e, h) && len(body) > e.MaxBody {
		return TooLarge(e.MaxBody)
	}
	switch e.Protocol {
	case policy.ProtocolGraphQL:
		return fillOperations(&h, body, r)
	case policy.ProtocolJSONRPC:
		return fillCalls(&h, body, jsonrpc.Dialect{}, r)
	case policy.ProtocolMCP:
		return fillMCP(&h, body, jsonrpc.Dialect{MCP: true}, r)
	case policy.ProtocolREST, policy.ProtocolWebSocket, policy.ProtocolSQL, policy.ProtocolTCP, "":
		return nil
	default:
		return &Error{Status: 403, Reason: core.ReasonUnsupportedProtocol, Detail: "the endpoint's protocol is not one that can be read"}
	}
}

func fillOperations(h *Head, body []byte, r *decide.Request) error {
	ops, err := graphql.Read(h, body)
	if err != nil {
		return err
	}
	r.Operations = ops
	return nil
}

// fillCalls reads calls. By another method than POST nothing is called.
func fillCalls(h *Head, body []byte, d jsonrpc.Dialect, r *decide.Request) error {
	if h.Method != "POST" {
		return nil
	}
	calls, err := jsonrpc.Read(h, body, d)
	if err != nil {
		return err
	}
	r.Calls = calls
	return nil
}

// fillMCP also knows the requests of a session that have no body: the stream of the
// server's messages, and the end of the session.
func fillMCP(h *Head, body []byte, d jsonrpc.Dialect, r *decide.Request) error {
	switch h.Method {
	case "POST":
		return fillCalls(h, body, d, r)
	case "GET", "DELETE":
		if h.Body {
			return &Error{Status: 400, Reason: core.ReasonInvalidJSONRPC, Detail: "an MCP request by GET or DELETE has no body"}
		}
		r.Session = h.Method == "GET" && h.Accepts("text/event-stream") || h.Method == "DELETE" && ofSession(h)
	}
	return nil
}

// ofSession reports whether the head names one session.
func ofSession(h *Head) bool {
	id, n := h.Fields.Get("Mcp-Session-Id")
	return n == 1 && id != ""
}
