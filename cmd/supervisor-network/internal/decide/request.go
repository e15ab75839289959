package decide

import "github.com/splitpod/splitpod/pkg/core/policy"

// Request is what is known about one request on a permitted connection, or about one
// text message of a WebSocket.
type Request struct {
	Method string // as sent, or MethodText
	// Overrides are methods that the request asks its origin to take it for, as sent.
	Overrides []string
	Path      string // canonical, without query; a message has that of its handshake
	Query     string // as sent, without its question mark
	// Upgrade is true for a valid WebSocket handshake.
	Upgrade bool
	// Message is true for a text message of a WebSocket. Its Method is MethodText.
	Message bool
	// Session is true for an MCP request without a body: GET, the stream of the
	// server's messages, or DELETE, the end of the session.
	Session bool
	// Unreadable says why the body or message carries nothing that can be judged; ""
	// if it does. Such a request is refused, whatever the enforcement.
	Unreadable string
	// Operations are what a GraphQL request, or message, executes.
	Operations []Operation
	// Calls are what a JSON-RPC or MCP request calls.
	Calls []Call
}

// MethodText is the method of a WebSocket's text message. No request may have it.
const MethodText = "WEBSOCKET_TEXT"

// Operation is one GraphQL operation.
type Operation struct {
	Type   string // query, mutation or subscription
	Name   string
	Fields []string // the names of its root fields
	// Persisted is the hash or id of an operation that was sent without its text.
	Persisted string
}

// Call is one JSON-RPC call, or answer to a call of the server.
type Call struct {
	Method   string
	Tool     string            // of MCP's tools/call
	Params   map[string]string // top-level parameters that are texts
	Names    []string          // of all top-level parameters, Folded
	Unnamed  bool              // the parameters are a list
	Response bool              // it answers the server and calls nothing
}

// Endpoint is how requests below one path of a permitted connection are treated.
// The zero value treats none.
type Endpoint struct {
	Protocol     policy.Protocol
	Enforce      bool // false: what rules refuse is recorded, and passes
	EncodedSlash bool // %2F may stand in paths
	StrictTools  bool // MCP: tool names have a strict form
	// GraphQL is true where WebSocket messages are GraphQL operations.
	GraphQL bool
	// RewriteBody and RewriteMessages: placeholders are replaced in the bodies of
	// requests, in the text messages of WebSockets.
	RewriteBody, RewriteMessages bool
	MaxBody                      int // bytes that are read to be judged
	// Signing is how requests are signed, as the policy words it; "" for not at all.
	Signing, SigningService, SigningRegion string
	// SigningProvider names whose keys sign: an entry of the credentials file; "" for the
	// usual one.
	SigningProvider string

	number int // of the endpoint in its Snapshot, plus one
}

// Inspected reports whether requests on the connection are judged one by one.
func (p Permit) Inspected() bool { return p.inspected }

// EncodedSlash reports whether some endpoint of the connection takes %2F in paths.
func (p Permit) EncodedSlash() bool { return p.encodedSlash }

// Endpoint selects, for a path, the endpoint with the most specific path scope; among
// equals, which treat requests alike, that of the smallest rule name. When there is
// none, requests for the path are refused whatever the enforcement.
func (s *Snapshot) Endpoint(p Permit, path string) (Endpoint, bool) {
	if !s.made(&p) {
		return Endpoint{}, false
	}
	e := s.selected(&p, path)
	if e == nil {
		return Endpoint{}, false
	}
	return e.public, true
}

// made reports whether this Snapshot made the Permit.
func (s *Snapshot) made(p *Permit) bool {
	return s != nil && p.valid && p.generation == s.generation
}

func (s *Snapshot) selected(p *Permit, path string) *l7 {
	var best *l7
	for _, id := range p.endpoints {
		e := s.endpoints[id].l7
		if e == nil || best != nil && best.weight >= e.weight || !e.scope.Match(path) {
			continue
		}
		best = e
	}
	return best
}

// Request decides about one request, for the endpoint that Endpoint selected for its
// path. A Permit of another policy permits nothing: see Again.
//
// Rules of every endpoint that takes the path count, if they speak about this kind of
// request; one that denies outweighs all that allow. Rules that deny HTTP requests
// count for requests of every protocol. A method that overrides the request's own has to
// be allowed as well.
func (s *Snapshot) Request(p Permit, e Endpoint, r *Request) Ruling {
	if !s.made(&p) {
		return stale
	}
	selected := s.selected(&p, r.Path)
	if selected != nil && selected.public.number != e.number {
		selected = nil // BUG of the caller: it was selected for another path
	}
	v, taken, _ := r.worst(func(r *Request) (verdict, error) {
		j := judgement{s: s, permit: &p, e: selected, r: r}
		return j.judge(), nil
	})
	return s.ruling(selected, r, taken, v)
}

// worst judges a request as what its origin may take it for: by its own method and by each
// that overrides it. It returns the gravest verdict, and what that is about.
func (r *Request) worst(judge func(*Request) (verdict, error)) (verdict, *Request, error) {
	v, err := judge(r)
	about := r
	for _, method := range r.Overrides {
		if err != nil {
			break
		}
		other := *r
		other.Method = method
		var o verdict
		if o, err = judge(&other); o.why != "" && (v.why == "" || o.before(&v)) {
			v, about = o, &other
		}
	}
	return v, about, err
}
