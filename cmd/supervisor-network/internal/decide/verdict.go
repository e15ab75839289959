package decide

import (
	"fmt"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Ruling is the decision about one request. The zero value refuses.
type Ruling struct {
	Allowed  bool
	Audited  bool            // refused by the rules, and passes because they are not enforced
	Rule     string          // of the endpoint that refuses, or else takes the request; may be ""
	Protocol policy.Protocol // of the endpoint that takes the request
	Detail   string          // why not; "" when nothing refuses
	Override string          // the method that is refused, where it is not the request's own
	Final    bool            // refused by a deny rule, which no rule that allows outweighs
	reason   core.Reason
}

// ReasonOf is the reason of a refused request.
func (r Ruling) ReasonOf() core.Reason {
	if r.reason == "" {
		return core.ReasonPolicyDenied
	}
	return r.reason
}

// stale is the answer to a Permit that another policy gave.
var stale = Ruling{Detail: "the policy changed while the request was judged; try again", reason: core.ReasonPolicyChanged}

// why says what refuses a request. The texts are those of the module.
type why string

const (
	whyUnmatched    why = "unmatched"     // no endpoint takes the path
	whyAmbiguous    why = "ambiguous"     // letter case or an escape could lead to another endpoint
	whyReserved     why = "reserved"      // a request with the method of messages
	whyNoUpgrade    why = "no upgrade"    // a plain request to a WebSocket endpoint
	whyUnreadable   why = "unreadable"    // there is nothing that could be judged
	whyQuery        why = "query"         // rules read the query, and it cannot be read
	whyMethod       why = "method"        // the protocol has no such requests
	whyEmpty        why = "empty"         // nothing is executed or called
	whyResponse     why = "response"      // an answer where only calls are taken
	whyTool         why = "tool"          // the tool's name is missing or not in the strict form
	whyDenied       why = "denied"        // a deny rule
	whyUnpermitted  why = "unpermitted"   // no rule allows it
	whyUnregistered why = "unregistered"  // GraphQL: the hash or id means nothing
	whyBadOperation why = "bad operation" // GraphQL: of no known type
)

// verdict is what the rules say. The zero value allows.
type verdict struct {
	why  why
	hard bool // refused whatever the enforcement
	soft bool // no endpoint that refuses it enforces its rules
	item int  // which operation or call is refused; whole for the request
	by   int  // the endpoint that refuses; none
}

const (
	whole = -1
	none  = -1
)

// passes reports whether the request is sent on.
func (v verdict) passes() bool { return v.why == "" || v.soft && !v.hard }

// add keeps the graver of two verdicts: what is enforced before what is not, then the
// first part of the request, then the first endpoint.
func (v *verdict) add(o verdict) {
	if o.why == "" || v.why != "" && !o.before(v) {
		return
	}
	*v = o
}

func (v *verdict) before(o *verdict) bool {
	switch {
	case v.soft != o.soft:
		return o.soft
	case v.item != o.item:
		return v.item < o.item
	default:
		return v.by < o.by
	}
}

// ruling puts a verdict into words. It is about r, for which the request asked was taken.
func (s *Snapshot) ruling(e *l7, asked, r *Request, v verdict) Ruling {
	out := Ruling{Allowed: v.passes()}
	if e != nil {
		out.Protocol, out.Rule = e.public.Protocol, s.endpoints[e.id].rule
	}
	if v.why == "" {
		return out
	}
	if v.by != none {
		out.Rule = s.endpoints[v.by].rule
	}
	out.Audited, out.Final = out.Allowed, v.why == whyDenied
	if r != asked {
		out.Override = clip(r.Method)
	}
	out.Detail = detail(e, r, v)
	return out
}

// detail says why a request is refused, in the reference's words where it has some.
func detail(e *l7, r *Request, v verdict) string {
	name := func() string { return clip(r.Method) + " " + r.Path }
	switch v.why {
	case whyUnmatched:
		return name() + " not permitted by policy: it did not match an L7 endpoint path"
	case whyAmbiguous:
		return name() + " not permitted by policy: its letter case, or an encoded slash or semicolon, could lead to another endpoint"
	case whyReserved:
		return MethodText + " names the messages of a WebSocket and is no method of a request"
	case whyNoUpgrade:
		return "websocket endpoint requires a valid WebSocket upgrade request"
	case whyQuery:
		return "the query cannot be read, and rules depend on it"
	case whyUnregistered:
		return "GraphQL persisted query is not registered"
	case whyResponse:
		return "JSON-RPC response frames are not permitted from client to server"
	case whyUnreadable, whyMethod, whyEmpty, whyBadOperation, whyTool:
		return unreadableDetail(e, r, v)
	}
	switch denied := v.why == whyDenied; {
	case denied && v.item != whole && e.kindOf(r) == kindGraphQL:
		return "GraphQL operation blocked by endpoint policy"
	case denied:
		return name() + " blocked by deny rule" + callText(e, r, v)
	case e.kindOf(r) == kindGraphQL:
		return "GraphQL operation not permitted by policy"
	default:
		return name() + " not permitted by policy" + callText(e, r, v)
	}
}

func unreadableDetail(e *l7, r *Request, v verdict) string {
	what := "message"
	switch e.kindOf(r) {
	case kindGraphQL:
		what = "GraphQL request"
	case kindCalls:
		what = "JSON-RPC request"
	}
	return fmt.Sprintf("%s rejected: %s", what, map[why]string{
		whyUnreadable:   r.Unreadable,
		whyMethod:       "the protocol has no request with method " + clip(r.Method),
		whyEmpty:        "there is nothing in it that could be judged",
		whyBadOperation: "the type of an operation is not known",
		whyTool:         "the name of a tool is missing, longer than 128 characters, or has others than letters, digits, dot, dash and underscore",
	}[v.why])
}

// callText names a call. What the client wrote is shown up to a bound.
func callText(e *l7, r *Request, v verdict) string {
	if v.item == whole || e.kindOf(r) != kindCalls || v.item >= len(r.Calls) {
		return ""
	}
	c := &r.Calls[v.item]
	if c.Tool != "" {
		return ": " + clip(c.Method) + " " + clip(c.Tool)
	}
	return ": " + clip(c.Method)
}

// clip bounds what is repeated from the client, and leaves out what is invisible.
func clip(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return '?'
		}
		return c
	}, s[:min(len(s), 128)])
}
