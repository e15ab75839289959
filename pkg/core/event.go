package core

import (
	"net/netip"
	"slices"
	"time"
)

// EventKind says what an Event tells. A kind this build does not know is
// recorded as it came and counted; it never grants anything.
type EventKind uint8

// The event kinds.
const (
	EventUnspecified EventKind = iota
	EventConnection            // one connection or request that ended, allowed or denied
	EventBypass                // the fence refused packets that went around the proxy
	EventWorkload              // the workload's life: launched, exited
	EventFinding               // something protective is missing, weaker, was tampered with or tried
	EventLifecycle             // a daemon's own life: started, attached, detached, policy loaded
	EventInference             // one model call that was routed, and has ended; it never crosses the contract
)

var eventKindText = [...]string{"unspecified", "connection", "bypass", "workload", "finding", "lifecycle", "inference"}

// String is the stable text form, used in records.
func (k EventKind) String() string {
	if int(k) < len(eventKindText) {
		return eventKindText[k]
	}
	return "unspecified"
}

// Stage names the place that decided. It is a closed set, so that it can be a
// metric label and a producer cannot smuggle request data through it.
type Stage string

// The stages.
const (
	StageConnect Stage = "connect" // CONNECT requests
	StageForward Stage = "forward" // absolute-form requests
	StageListen  Stage = "listen"  // before a request was understood
	StageTLS     Stage = "tls"     // the workload's TLS handshake
	StageRequest Stage = "request" // one request of several on a connection
	StageSSRF    Stage = "ssrf"    // destination address validation
	StageBypass  Stage = "bypass"  // the fence in the workload's namespace
	StageLaunch  Stage = "launch"  // the workload and its sessions
	StageControl Stage = "control" // the contract between the daemons
	StageConfig  Stage = "config"  // policy and configuration
	StageSSH     Stage = "ssh"     // SSH into the sandbox
	StageAPI     Stage = "api"     // a daemon's own API: policy.local, the admin address and socket
	StageGateway Stage = "gateway" // the control plane, and what it lets into the sandbox
)

// ParseStage takes a stage from outside; one that is not in the set becomes the
// empty stage.
func ParseStage(s string) Stage {
	switch st := Stage(s); st {
	case StageConnect, StageForward, StageListen, StageTLS, StageRequest, StageSSRF, StageBypass, StageLaunch, StageControl, StageConfig, StageSSH, StageAPI, StageGateway:
		return st
	default:
		return ""
	}
}

// Application is what requests were read as. It is a closed set, for the same
// reasons as Stage.
type Application string

// The applications. The empty one: nothing was read but the head of a request.
const (
	ApplicationREST      Application = "rest"
	ApplicationGraphQL   Application = "graphql"
	ApplicationWebSocket Application = "websocket"
	ApplicationJSONRPC   Application = "json-rpc"
	ApplicationMCP       Application = "mcp"
)

// ParseApplication takes the protocol of a policy's endpoint, or an application from
// outside; one that is not in the set becomes the empty one.
func ParseApplication(s string) Application {
	switch a := Application(s); a {
	case ApplicationREST, ApplicationGraphQL, ApplicationWebSocket, ApplicationJSONRPC, ApplicationMCP:
		return a
	default:
		return ""
	}
}

// Severity orders events by how much a person should care.
type Severity uint8

// The severities, numbered as OCSF severity_id.
const (
	SeverityUnknown Severity = iota
	SeverityInfo
	SeverityLow
	SeverityMedium
	SeverityHigh
	SeverityCritical
)

// Event is one thing that happened, as both daemons record it. Strings that
// come from the workload or the far end (Host, Method, Path, Program paths) are
// data: whoever prints them escapes them. It never carries a secret, a header
// value, a body or a query string.
type Event struct {
	Kind      EventKind
	Time      time.Time // when it happened, by the producer's wall clock
	RequestID RequestID // joins both daemons' records; empty when there is no request
	// TraceParent is the workload's own W3C trace context, as ParseTraceParent takes
	// it. It links; what identifies is RequestID.Trace.
	TraceParent string
	Instance    InstanceID
	Stage       Stage
	Severity    Severity
	Verdict     Verdict
	Reason      Reason
	Detail      string // for people; at most MaxDetailBytes

	Source      netip.AddrPort // the workload's end of the connection, as it sees it
	Host        string         // destination name as judged, or an address
	Port        uint16
	Protocol    string      // "tcp", "udp", "icmp", …; empty when it does not apply
	Application Application // what the request was read as
	Method      string      // HTTP method, empty for CONNECT tunnels
	Path        string      // request path without query
	Status      int         // HTTP status of the origin's response, 0 when there was none
	Address     string      // the validated address that was dialled, empty when none
	Rule        string      // the policy rule behind an allow, empty otherwise

	Process ProcessRef
	UID     uint32
	Program Program
	// Ancestors as in Identity.
	Ancestors []Program

	Model     string // model calls only, as Provider, TokensIn and TokensOut: the model that was asked
	Provider  string // who was asked
	TokensIn  uint64 // of the request, by the provider's word; 0: it did not say
	TokensOut uint64 // of the answer, the same

	ExitCode int           // workload exits only
	BytesUp  uint64        // from the workload to the destination
	BytesDn  uint64        // from the destination to the workload
	Duration time.Duration // from accept to end
	// Count is how many occurrences this event stands for; 0 reads as 1.
	Count      uint64
	Generation Generation // the policy it was decided on
}

// Limits of what an event may carry. Longer strings are cut by Clip.
const (
	MaxDetailBytes = 1024
	MaxFieldBytes  = 512
	MaxModelBytes  = 256 // Model and Provider
)

// Occurrences is Count, with zero read as one.
func (e *Event) Occurrences() uint64 {
	if e.Count == 0 {
		return 1
	}
	return e.Count
}

// Clip cuts every string that could be made large from outside to its limit, so
// that a queue of events is bounded in bytes and not only in number.
func (e *Event) Clip() {
	e.Detail = clip(e.Detail, MaxDetailBytes)
	for _, s := range []*string{&e.Host, &e.Protocol, &e.Method, &e.Path, &e.Address, &e.Rule, &e.Program.Path} {
		*s = clip(*s, MaxFieldBytes)
	}
	e.Model, e.Provider = clip(e.Model, MaxModelBytes), clip(e.Provider, MaxModelBytes)
	e.Ancestors = clipAncestors(e.Ancestors)
}

// clipAncestors copies before it cuts: the slice may be shared with a cache.
func clipAncestors(in []Program) []Program {
	in = in[:min(len(in), MaxAncestors)]
	long := func(p Program) bool { return len(p.Path) > MaxFieldBytes }
	if !slices.ContainsFunc(in, long) {
		return in
	}
	out := slices.Clone(in)
	for i := range out {
		out[i].Path = clip(out[i].Path, MaxFieldBytes)
	}
	return out
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n-3] + "..."
}
