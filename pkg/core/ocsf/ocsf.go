// Package ocsf writes core events as OCSF 1.8.0 JSON, one object a line, or as one
// line of text for people: the records both daemons print.
//
// It answers the threat of a forged record: every string is escaped, so a host, a
// path or a program name with newlines, terminal escapes or marks that turn the
// direction of text stays inside its line and its field and reads as what it is. It
// does not decide what is recorded.
//
// The encoder is written out by hand, because every request pays for a record; a
// test holds it equal to encoding/json over structs.
//
// Source: OCSF schema 1.8.0, classes network_activity (4001), http_activity (4002),
// ssh_activity (4007), process_activity (1007), detection_finding (2004),
// device_config_state_change (5019), application_lifecycle (6002), api_activity (6003)
// for calls of the daemons' own APIs and, with the profile ai_operation, of models,
// base_event (0) for what this build has no class for. What the schema has no place for is under "unmapped". docs/records.md says which
// event becomes what.
package ocsf

import (
	"net/netip"

	"github.com/splitpod/splitpod/pkg/core"
)

// Version is the schema version every record names.
const Version = "1.8.0"

const vendor = "Splitpod"

// Context is what every record of one daemon instance has in common.
type Context struct {
	Build      core.Build
	Instance   core.InstanceID
	Hostname   string         // of the pod; may be empty
	Sandbox    string         // the sandbox's name; empty: the host name
	SandboxUID string         // the same in both daemons; empty: the instance
	Image      string         // of the workload; may be empty
	Proxy      netip.AddrPort // where the workload finds the proxy; may be zero
}

// Dispositions, with the action each of them goes with.
const (
	dispositionAllowed  = `,"action_id":1,"action":"Allowed","disposition_id":1,"disposition":"Allowed"`
	dispositionBlocked  = `,"action_id":2,"action":"Denied","disposition_id":2,"disposition":"Blocked"`
	dispositionRejected = `,"action_id":2,"action":"Denied","disposition_id":25,"disposition":"Rejected"`
)

// dispositionOf tells what the policy blocked from what could not be understood.
func dispositionOf(e *core.Event) string {
	switch {
	case e.Verdict == core.Allow:
		return dispositionAllowed
	case rejected(e.Reason):
		return dispositionRejected
	default:
		return dispositionBlocked
	}
}

// remediation is what to do about a finding, for those that are known.
var remediation = map[core.Reason]string{
	core.EventPolicyInvalid:       "correct the policy file at the place that the detail names",
	core.EventCredentialsInvalid:  "correct the credentials file at the place that the detail names",
	core.EventInferenceInvalid:    "correct the file of inference routes at the place that the detail names",
	core.EventApprovalLeftOut:     "write the rule into the policy file, or revoke it",
	core.EventStaticPolicyChanged: "restart the pod when it suits",
	core.EventLandlockUnavailable: "use a kernel with Landlock, or refuse to start without it (hard_requirement)",
	core.EventLandlockPartial:     "use a newer kernel, or refuse to start with this one (hard_requirement)",
	core.EventRecordsUnsure:       "read the other daemon's records, and look for what killed this one",
	core.EventWeakerIsolation:     "give the pod its own user namespace, or use a newer kernel",
	core.EventNoPIDLimit:          "set the kubelet's podPidsLimit, which is not seen from inside, or --pids",
	core.EventPathNotGranted:      "make the path, or take it out of the policy",
	core.EventGuideNotLinked:      "take what is at the path out of the image",
	core.EventSyscallRefused:      "do without it, as the detail says; if nobody meant to, look for who runs the program",
	core.EventFenceDamaged:        "look for what changed the rules from outside of the pod; the sandbox ends",
	core.EventHandshakeRefused:    "upgrade the daemon that the detail names",
	core.EventPeerRefused:         "look for another program with access to the run directory",
	core.EventLearning:            "end it before the sandbox sees anything of worth, and approve what it found",
	core.EventRecordsDropped:      "read the log faster, or write records to files",
}

// rejected reports whether a refusal is about the request's form.
func rejected(r core.Reason) bool {
	switch r {
	case core.ReasonBadRequest, core.ReasonInvalidTarget, core.ReasonBodyTooLarge, core.ReasonHeaderTooLarge,
		core.ReasonInvalidGraphQL, core.ReasonInvalidJSONRPC, core.ReasonUnsupportedScheme, core.ReasonUnsupportedProtocol,
		core.ReasonRequestTimeout, core.EventSSHUnsupported:
		return true
	default:
		return false
	}
}

// severityText are the severity's two members, by number.
var severityText = [...]string{
	`,"severity_id":0,"severity":"Unknown"`, `,"severity_id":1,"severity":"Informational"`, `,"severity_id":2,"severity":"Low"`,
	`,"severity_id":3,"severity":"Medium"`, `,"severity_id":4,"severity":"High"`, `,"severity_id":5,"severity":"Critical"`,
}

// engineOf names what decided about a connection or a request.
func engineOf(e *core.Event) string {
	switch e.Stage {
	case core.StageBypass:
		return "nftables"
	case core.StageSSRF:
		return "ssrf"
	case core.StageListen:
		return "http-parser"
	case core.StageTLS:
		return "tls"
	case core.StageGateway:
		return "gateway"
	case core.StageRequest:
		if e.Reason == core.ReasonAuthorityMismatch {
			return "request-authority"
		}
		return inspectorOf(e.Application)
	default:
		return "opa"
	}
}

func inspectorOf(a core.Application) string {
	switch a {
	case core.ApplicationGraphQL:
		return "l7-graphql"
	case core.ApplicationWebSocket:
		return "l7-websocket"
	case core.ApplicationJSONRPC:
		return "l7-jsonrpc"
	case core.ApplicationMCP:
		return "l7-mcp"
	default:
		return "l7"
	}
}

// ruleOf names the policy rule, or the guard, behind a verdict.
func ruleOf(e *core.Event) string {
	switch {
	case e.Rule != "":
		return e.Rule
	case e.Stage == core.StageBypass:
		return "bypass-detect"
	default:
		return "-"
	}
}
