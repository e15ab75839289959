package decide

import (
	"fmt"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Request is what is known about one request on a permitted connection.
type Request struct {
	Method string
	Path   string // canonical, without query
	Query  string // as sent, without its question mark
	// Operations are what a GraphQL request, or message, executes.
	Operations []Operation
	// Calls are what a JSON-RPC or MCP request calls.
	Calls []Call
	// Session is an MCP request without a body: the stream of the server's messages,
	// or the end of the session. Whoever may initialize may do that.
	Session bool
}

// Operation is one GraphQL operation.
type Operation struct {
	Type   string // query, mutation or subscription
	Name   string
	Fields []string // the names of its root fields
	// Persisted is the hash or id of an operation that was sent without its text.
	Persisted string
}

// Call is one JSON-RPC call.
type Call struct {
	Method string
	Tool   string            // of MCP's tools/call
	Params map[string]string // top-level parameters that are texts
}

// Endpoint is how requests below one path of a permitted connection are treated.
// The zero value treats none.
type Endpoint struct {
	Protocol     policy.Protocol
	Enforce      bool // false: what rules refuse is recorded, and passes
	EncodedSlash bool // %2F may stand in paths
	MaxBody      int  // bytes that are read to be judged
	StrictTools  bool // MCP: tool names have a strict form
	// GraphQL is true where WebSocket messages are GraphQL operations.
	GraphQL bool
	rule    string
}

// Ruling is the decision about one request. The zero value refuses.
type Ruling struct {
	Allowed bool
	Audited bool // refused by the rules, and passes because they are not enforced
	Rule    string
	Detail  string // why not
}

// Inspected reports whether requests on the connection are judged one by one.
func (p Permit) Inspected() bool { return p.inspected }

// EncodedSlash reports whether some endpoint of the connection takes %2F in paths.
func (p Permit) EncodedSlash() bool { return p.encodedSlash }

// Endpoint selects, for a path, the endpoint with the most specific path scope. When
// there is none, requests for it are refused whatever the enforcement.
func (s *Snapshot) Endpoint(p Permit, path string) (Endpoint, bool) {
	var best *l7
	for _, id := range p.endpoints {
		e := s.endpoints[id].l7
		if e == nil || !e.scope.Match(path) || best != nil && best.weight >= e.weight {
			continue
		}
		best = e
	}
	if best == nil {
		return Endpoint{}, false
	}
	return best.public, true
}

// Request decides about one request, for the endpoint that Endpoint selected. Rules
// of every endpoint that takes the path count, if they speak its protocol; one that
// denies outweighs all that allow.
func (s *Snapshot) Request(p Permit, e Endpoint, r *Request) Ruling {
	if s == nil || !p.valid || p.generation != s.generation {
		return Ruling{Detail: "the policy changed while the request was judged"}
	}
	kind := kindOf(e, r)
	out := Ruling{Rule: e.rule}
	detail, hard := s.unreadable(p, kind, r)
	if detail == "" {
		detail = s.judge(p, kind, r, &out)
	}
	switch {
	case detail == "":
		out.Allowed = true
	case !hard && !e.Enforce:
		out.Allowed, out.Audited, out.Detail = true, true, detail
	default:
		out.Detail = detail
	}
	return out
}

// kind is which matchers apply.
type kind uint8

const (
	kindHTTP kind = iota + 1
	kindGraphQL
	kindCalls
)

func kindOf(e Endpoint, r *Request) kind {
	switch {
	case e.Protocol == policy.ProtocolGraphQL, e.GraphQL && r.Method == MethodText:
		return kindGraphQL
	case e.Protocol == policy.ProtocolJSONRPC, e.Protocol == policy.ProtocolMCP:
		return kindCalls
	default:
		return kindHTTP
	}
}

// MethodText is the method of a WebSocket's text message.
const MethodText = "WEBSOCKET_TEXT"

// unreadable refuses, whatever the enforcement, what carries nothing to judge.
func (s *Snapshot) unreadable(p Permit, k kind, r *Request) (detail string, hard bool) {
	switch k {
	case kindGraphQL:
		if len(r.Operations) == 0 {
			return "GraphQL request rejected: there is no operation in it", true
		}
	case kindCalls:
		if len(r.Calls) == 0 && !r.Session {
			return fmt.Sprintf("%s %s not permitted by policy", r.Method, r.Path), true
		}
	default:
		if !queryReadable(r.Query) && s.readsQuery(p, r.Path) {
			return "the query cannot be read, and rules depend on it", true
		}
	}
	return "", false
}

// readsQuery reports whether a rule that could apply looks at the query.
func (s *Snapshot) readsQuery(p Permit, path string) bool {
	for _, id := range p.endpoints {
		if e := s.endpoints[id].l7; e != nil && e.readsQuery && e.scope.Match(path) {
			return true
		}
	}
	return false
}

// judge returns why the rules refuse, "" if they allow.
func (s *Snapshot) judge(p Permit, k kind, r *Request, out *Ruling) string {
	switch k {
	case kindGraphQL:
		for i := range r.Operations {
			if detail := s.judgeOperation(p, r, &r.Operations[i], out); detail != "" {
				return detail
			}
		}
		return ""
	case kindCalls:
		if r.Session {
			return s.judgeCall(p, r, &Call{Method: "initialize"}, out)
		}
		for i := range r.Calls {
			if detail := s.judgeCall(p, r, &r.Calls[i], out); detail != "" {
				return detail
			}
		}
		return ""
	default:
		return s.judgeHTTP(p, r, out)
	}
}

func (s *Snapshot) judgeHTTP(p Permit, r *Request, out *Ruling) string {
	allowed := false
	for _, id := range p.endpoints {
		e := s.endpoints[id].l7
		if e == nil || e.kind != kindHTTP || !e.scope.Match(r.Path) {
			continue
		}
		for i := range e.deny {
			if e.deny[i].denies(r) {
				out.Rule = e.public.rule
				return fmt.Sprintf("%s %s blocked by deny rule", r.Method, r.Path)
			}
		}
		for i := 0; i < len(e.allow) && !allowed; i++ {
			allowed = e.allow[i].allows(r)
		}
	}
	if !allowed {
		return fmt.Sprintf("%s %s not permitted by policy", r.Method, r.Path)
	}
	return ""
}

func (s *Snapshot) judgeOperation(p Permit, r *Request, op *Operation, out *Ruling) string {
	allowed, known := false, op.Persisted == ""
	for _, id := range p.endpoints {
		e := s.endpoints[id].l7
		if e == nil || !e.graphql || !e.scope.Match(r.Path) {
			continue
		}
		judged := op
		if op.Persisted != "" {
			registered, ok := e.persisted[op.Persisted]
			if !ok {
				continue
			}
			judged, known = &registered, true
		}
		for i := range e.deny {
			if e.deny[i].deniesOperation(judged) {
				out.Rule = e.public.rule
				return "GraphQL operation blocked by endpoint policy"
			}
		}
		for i := 0; i < len(e.allow) && !allowed; i++ {
			allowed = e.allow[i].allowsOperation(judged)
		}
	}
	switch {
	case !known:
		return "GraphQL persisted query is not registered"
	case !allowed:
		return "GraphQL operation not permitted by policy"
	default:
		return ""
	}
}

func (s *Snapshot) judgeCall(p Permit, r *Request, c *Call, out *Ruling) string {
	allowed := false
	for _, id := range p.endpoints {
		e := s.endpoints[id].l7
		if e == nil || e.kind != kindCalls || !e.scope.Match(r.Path) {
			continue
		}
		for i := range e.deny {
			if e.deny[i].deniesCall(c) {
				out.Rule = e.public.rule
				return callText(c) + " blocked by deny rule"
			}
		}
		allowed = allowed || e.allowsKnown(c)
		for i := 0; i < len(e.allow) && !allowed; i++ {
			allowed = e.allow[i].allowsCall(c)
		}
	}
	if !allowed {
		return callText(c) + " not permitted by policy"
	}
	return ""
}

// callText names a call. What the client wrote is shown up to a bound.
func callText(c *Call) string {
	clip := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), 128)], "?") }
	if c.Tool != "" {
		return clip(c.Method) + " " + clip(c.Tool)
	}
	return clip(c.Method)
}

// ReasonOf is the reason of a refused request.
func (r Ruling) ReasonOf() core.Reason { return core.ReasonPolicyDenied }
