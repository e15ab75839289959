package proxy

import (
	"net/http"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/pkg/core"
)

// refusal is why a request is not carried, for the record and for the workload.
type refusal struct {
	status int
	stage  core.Stage
	reason core.Reason
	detail string
	// failed says that the policy allows the request and something else went wrong.
	failed bool
	// said is what the answer to a model call calls it; empty for everything else.
	said string
	// ruling is set when rules about requests refused it.
	ruling *decide.Ruling
}

// Error implements error, for a refusal that is found behind a call of the relay.
func (r *refusal) Error() string { return string(r.reason) + ": " + r.detail }

// denied is a connection that the policy refuses.
func denied(stage core.Stage, d *decide.Denial) *refusal {
	return &refusal{status: 403, stage: stage, reason: d.Reason, detail: d.Detail}
}

// malformed is a message that cannot be read in one way.
func malformed(stage core.Stage, e *http1.SyntaxError) *refusal {
	return &refusal{status: e.Status, stage: stage, reason: e.Reason, detail: e.Detail}
}

// fields are what the answer says in its head, in whatever version of HTTP: the rule that
// refused, the version of WebSocket that would have done (RFC 6455 section 4.4), which is
// what every 426 here is about, or, to the libraries of OpenAI and Anthropic, that a key
// without a value will have none the next time: they would try for a minute.
func (r *refusal) fields() []http1.Field {
	switch {
	case r.ruling != nil:
		return []http1.Field{{Name: "X-OpenShell-Policy", Value: r.ruling.Rule}}
	case r.status == http.StatusUpgradeRequired:
		return []http1.Field{{Name: "Sec-WebSocket-Version", Value: websocket.Version}}
	case r.status == http.StatusInternalServerError && (r.reason == core.ReasonCredentialUnavailable || r.reason == core.ReasonCredentialInjection):
		return []http1.Field{{Name: "X-Should-Retry", Value: "false"}}
	default:
		return nil
	}
}

// fieldsOfHTTP1 are fields, and those that only HTTP/1.1 has: there a 426 names what to
// upgrade to (RFC 9110 section 15.5.22).
func (r *refusal) fieldsOfHTTP1() []http1.Field {
	fields := r.fields()
	if r.status == http.StatusUpgradeRequired {
		fields = append(fields, http1.Field{Name: "Upgrade", Value: "websocket"}, http1.Field{Name: "Connection", Value: "Upgrade"})
	}
	return fields
}

// body is what the workload reads. Refusals by rules carry what an agent needs to
// propose a change.
func (r *refusal) body(req *asked) any {
	if r.said != "" {
		return r.callBody(req.id)
	}
	if r.ruling == nil {
		plain := http1.ErrorBody{Error: r.reason, Detail: r.detail, Message: r.detail, RequestID: string(req.id)}
		if req.advise && r.reason == core.ReasonPolicyDenied {
			plain.Guidance = guidance
		}
		if r.reason == core.ReasonCredentialMismatch {
			plain.Message = inject.Mismatched
		}
		return plain
	}
	out := ruleBody{
		Error: r.reason, Policy: r.ruling.Rule, Rule: req.method + " " + req.path, Detail: r.detail, Message: r.detail, Layer: "l7",
		Protocol: req.protocol, Method: req.method, Path: req.path, Host: req.host, Port: req.port, Binary: req.binary,
		NextSteps: []step{}, RequestID: string(req.id),
	}
	method := req.method
	if r.ruling.Override != "" {
		method = placeholder.Redact(r.ruling.Override)
	}
	out.Missing = missing{"rest_allow", "l7", method, req.path, req.host, req.port, req.binary}
	if req.advise && !r.ruling.Final {
		out.NextSteps, out.Guidance = nextSteps, guidance
	}
	return out
}

// asked is what a request asked for, as far as it is known, for the answer to it.
type asked struct {
	id           core.RequestID
	method, path string // the path without query
	host         string
	port         uint16
	protocol     string // of the endpoint
	binary       string
	advise       bool // tell agents how to propose a change
}

// ruleBody is the answer to a request that rules refuse.
type ruleBody struct {
	Error     core.Reason `json:"error"`
	Policy    string      `json:"policy"`
	Rule      string      `json:"rule"`
	Detail    string      `json:"detail"`
	Layer     string      `json:"layer"`
	Protocol  string      `json:"protocol"`
	Method    string      `json:"method"`
	Path      string      `json:"path"`
	Host      string      `json:"host,omitempty"`
	Port      uint16      `json:"port,omitempty"`
	Binary    string      `json:"binary,omitempty"`
	Missing   missing     `json:"rule_missing"`
	NextSteps []step      `json:"next_steps"`
	Guidance  string      `json:"agent_guidance,omitempty"`
	Message   string      `json:"message"` // the detail, where clients of GitHub and of git-lfs look
	RequestID string      `json:"request_id"`
}

// missing is the rule that would have allowed the request, where none denies it.
type missing struct {
	Type   string `json:"type"`
	Layer  string `json:"layer"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Host   string `json:"host,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Binary string `json:"binary,omitempty"`
}

// step is one thing an agent can do next.
type step struct {
	Action   string `json:"action"`
	Path     string `json:"path,omitempty"`
	Method   string `json:"method,omitempty"`
	URL      string `json:"url,omitempty"`
	BodyType string `json:"body_type,omitempty"`
}

var nextSteps = []step{
	{Action: "read_skill", Path: "/etc/openshell/skills/policy_advisor.md"},
	{Action: "inspect_policy", Method: "GET", URL: "http://policy.local/v1/policy/current"},
	{Action: "inspect_recent_denials", Method: "GET", URL: "http://policy.local/v1/denials?last=5"},
	{Action: "submit_proposal", Method: "POST", URL: "http://policy.local/v1/proposals", BodyType: "PolicyMergeOperation"},
}

const guidance = "This is not the end of the task. Read /etc/openshell/skills/policy_advisor.md, propose the narrowest rule that " +
	"allows this request at http://policy.local/v1/proposals, wait until the proposal says policy_reloaded: true, and try again."
