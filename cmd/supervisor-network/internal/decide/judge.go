package decide

import (
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// judgement is the compiled form of rego/request.rego, of one request. Whoever changes
// one of the two changes both: the differential tests compare them.
type judgement struct {
	s      *Snapshot
	permit *Permit
	e      *l7 // the endpoint that takes the request; nil: none
	r      *Request
}

// kind is which matchers judge a request.
type kind uint8

const (
	kindHTTP kind = iota + 1
	kindGraphQL
	kindCalls
)

// kindOf is how the endpoint judges a request.
func (e *l7) kindOf(r *Request) kind {
	switch e.public.Protocol {
	case policy.ProtocolGraphQL:
		return kindGraphQL
	case policy.ProtocolJSONRPC, policy.ProtocolMCP:
		return kindCalls
	case policy.ProtocolWebSocket:
		if r.Message && e.public.GraphQL {
			return kindGraphQL
		}
	}
	return kindHTTP
}

func (j *judgement) judge() verdict {
	if j.e == nil {
		return verdict{why: whyUnmatched, hard: true, item: whole, by: none}
	}
	if why := j.unjudgeable(); why != "" {
		return verdict{why: why, hard: true, item: whole, by: j.e.id}
	}
	v := j.denied()
	switch j.e.kindOf(j.r) {
	case kindGraphQL:
		for i := range j.r.Operations {
			v.add(j.operation(i))
		}
	case kindCalls:
		j.calls(&v)
	default:
		if v.why == "" && !j.allowed() {
			v = j.refuse(whyUnpermitted, 0)
		}
	}
	return v
}

// refuse is a refusal by the endpoint that takes the request.
func (j *judgement) refuse(w why, item int) verdict {
	return verdict{why: w, soft: !j.e.public.Enforce, item: item, by: j.e.id}
}

// deny is a refusal by a rule of some endpoint: it counts if that endpoint, or the one
// that takes the request, enforces its rules.
func (j *judgement) deny(by *l7, item int) verdict {
	return verdict{why: whyDenied, soft: !j.e.public.Enforce && !by.public.Enforce, item: item, by: by.id}
}

// unjudgeable says why a request cannot be judged at all.
func (j *judgement) unjudgeable() why {
	message := isMethod(j.r.Method, MethodText)
	switch {
	case j.ambiguous():
		return whyAmbiguous
	case message != j.r.Message:
		return whyReserved
	case j.r.Unreadable != "":
		return whyUnreadable
	case j.readsQuery() && !queryReadable(j.r.Query):
		return whyQuery
	}
	switch j.e.kindOf(j.r) {
	case kindGraphQL:
		return j.unjudgeableOperations()
	case kindCalls:
		return j.unjudgeableCalls()
	}
	if j.e.public.Protocol == policy.ProtocolWebSocket && !message && (!j.r.Upgrade || !isMethod(j.r.Method, "GET")) {
		return whyNoUpgrade
	}
	return ""
}

// ambiguous reports whether an origin that undoes escapes too early, or takes no notice of
// letter case, could find the request where another endpoint says what may be done.
func (j *judgement) ambiguous() bool {
	return j.strays(j.r.Path) || slices.ContainsFunc(decodings(j.r.Path), j.strays)
}

// strays is ambiguous for one reading of the path.
func (j *judgement) strays(reading string) bool {
	for _, id := range j.permit.endpoints {
		e := j.s.endpoints[id].l7
		if e == nil {
			continue
		}
		here := e.scope.Match(j.r.Path)
		if !here && e.folded.Match(strings.ToLower(reading)) || reading != j.r.Path && here != e.scope.Match(reading) {
			return true
		}
	}
	return false
}

// decodings are what a canonical path is to origins that undo an escape before they take
// it apart: that of a slash; of a backslash, which is a slash to those of Windows; of a
// semicolon, which begins a parameter that is no part of the path, as it is to servlets
// behind a proxy that has undone the escape. Most paths have none.
func decodings(path string) (out []string) {
	if !strings.Contains(path, "%2F") && !strings.Contains(path, "%5C") && !strings.Contains(path, "%3B") {
		return nil
	}
	slashes := encodedSlashes.Replace(path)
	for _, p := range [...]string{slashes, withoutParameters(path), withoutParameters(slashes)} {
		for _, p := range [...]string{p, slashesMerged(p)} {
			if p != path && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

var encodedSlashes = strings.NewReplacer("%2F", "/", "%5C", "/")

// withoutParameters is a path whose segments end at their first encoded semicolon.
func withoutParameters(path string) string {
	if !strings.Contains(path, "%3B") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, "%3B")
	}
	return strings.Join(segments, "/")
}

// slashesMerged is a path with one slash where there are several.
func slashesMerged(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// readsQuery reports whether a rule that could apply looks at the query.
func (j *judgement) readsQuery() bool {
	for _, id := range j.permit.endpoints {
		if e := j.s.endpoints[id].l7; e != nil && e.readsQuery && e.scope.Match(j.r.Path) {
			return true
		}
	}
	return false
}

func (j *judgement) unjudgeableOperations() why {
	if !j.r.Message && !isMethod(j.r.Method, "GET") && !isMethod(j.r.Method, "POST") {
		return whyMethod
	}
	if len(j.r.Operations) == 0 {
		return whyEmpty
	}
	for i := range j.r.Operations {
		switch op := &j.r.Operations[i]; {
		case op.Persisted != "", op.Type == "query", op.Type == "mutation", op.Type == "subscription":
		default:
			return whyBadOperation
		}
	}
	return ""
}

func (j *judgement) unjudgeableCalls() why {
	mcp := j.e.public.Protocol == policy.ProtocolMCP
	if j.r.Session {
		if !mcp || len(j.r.Calls) > 0 || !isMethod(j.r.Method, "GET") && !isMethod(j.r.Method, "DELETE") {
			return whyMethod
		}
		return ""
	}
	if !isMethod(j.r.Method, "POST") {
		return whyMethod
	}
	if len(j.r.Calls) == 0 {
		return whyEmpty
	}
	for i := range j.r.Calls {
		c := &j.r.Calls[i]
		switch {
		case c.Response && !mcp:
			return whyResponse
		case c.Response:
		case mcp && c.Method == toolCall && (c.Tool == "" || j.e.public.StrictTools && !strictTool(c.Tool)):
			return whyTool
		}
	}
	return ""
}

// strictTool reports whether a tool's name has the strict form.
func strictTool(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return name != "" && len(name) <= 128
}

// denied is what the rules that deny HTTP requests say.
func (j *judgement) denied() (v verdict) {
	for _, id := range j.permit.endpoints {
		e := j.s.endpoints[id].l7
		if e != nil && e.scope.Match(j.r.Path) && e.deny.http.denies(j.r) {
			v.add(j.deny(e, whole))
		}
	}
	return v
}

// allowed reports whether a rule allows the HTTP request or plain message. What a
// message may be, only rules of its own protocol say.
func (j *judgement) allowed() bool {
	for _, id := range j.permit.endpoints {
		e := j.s.endpoints[id].l7
		if e == nil || j.r.Message && e.public.Protocol != j.e.public.Protocol || !e.scope.Match(j.r.Path) {
			continue
		}
		if e.allow.http.allows(j.r) {
			return true
		}
	}
	return false
}

// operation judges one GraphQL operation. One that was sent as a hash or id is judged
// as the endpoint that takes the request registered it.
func (j *judgement) operation(item int) (v verdict) {
	op := &j.r.Operations[item]
	if op.Persisted != "" {
		registered, ok := j.e.persisted[op.Persisted]
		if !ok {
			return j.unregistered(item)
		}
		op = registered
	}
	allowed := false
	for _, id := range j.permit.endpoints {
		e := j.s.endpoints[id].l7
		if e == nil || !e.scope.Match(j.r.Path) {
			continue
		}
		if slices.ContainsFunc(e.deny.operation, func(m operationRule) bool { return m.denies(op) }) {
			v.add(j.deny(e, item))
		}
		allowed = allowed || e.public.Protocol == j.e.public.Protocol &&
			slices.ContainsFunc(e.allow.operation, func(m operationRule) bool { return m.allows(op) })
	}
	if v.why == "" && !allowed {
		return j.refuse(whyUnpermitted, item)
	}
	return v
}

// unregistered refuses a hash or id that means nothing. It hides the operation from
// every rule, so that one endpoint that enforces its own is enough to refuse it.
func (j *judgement) unregistered(item int) verdict {
	v := j.refuse(whyUnregistered, item)
	for _, id := range j.permit.endpoints {
		if e := j.s.endpoints[id].l7; e != nil && e.public.Enforce && len(e.deny.operation) > 0 && e.scope.Match(j.r.Path) {
			v.soft = false
		}
	}
	return v
}

// initialize stands for a session where no call is named: whoever may begin one may
// end it.
var initialize = Call{Method: "initialize"}

// calls judges what a request calls. The stream of the server's messages carries
// nothing to the server, and needs no rule.
func (j *judgement) calls(v *verdict) {
	switch {
	case j.r.Session && isMethod(j.r.Method, "DELETE"):
		v.add(j.call(&initialize, 0))
	case j.r.Session:
	default:
		for i := range j.r.Calls {
			if !j.r.Calls[i].Response {
				v.add(j.call(&j.r.Calls[i], i))
			}
		}
	}
}

func (j *judgement) call(c *Call, item int) (v verdict) {
	allowed := false
	for _, id := range j.permit.endpoints {
		e := j.s.endpoints[id].l7
		if e == nil || !e.scope.Match(j.r.Path) {
			continue
		}
		for i := range e.deny.call {
			if e.deny.call[i].denies(c) {
				v.add(j.deny(e, item))
				break
			}
		}
		allowed = allowed || e.public.Protocol == j.e.public.Protocol && e.allowsCall(c)
	}
	if v.why == "" && !allowed {
		return j.refuse(whyUnpermitted, item)
	}
	return v
}
