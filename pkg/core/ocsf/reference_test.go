package ocsf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
)

// reference encodes an event the slow way: structs and encoding/json.
func reference(e *core.Event, c Context) []byte {
	line, err := json.Marshal(build(e, c))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(line, '\n')
}

type refClass struct {
	uid, category uint32
	name, group   string
}

var (
	refNetwork   = refClass{4001, 4, "Network Activity", "Network Activity"}
	refHTTP      = refClass{4002, 4, "HTTP Activity", "Network Activity"}
	refProcess   = refClass{1007, 1, "Process Activity", "System Activity"}
	refFinding   = refClass{2004, 2, "Detection Finding", "Findings"}
	refLifecycle = refClass{6002, 6, "Application Lifecycle", "Application Activity"}
)

type record struct {
	ClassUID     uint32       `json:"class_uid"`
	ClassName    string       `json:"class_name"`
	CategoryUID  uint32       `json:"category_uid"`
	CategoryName string       `json:"category_name"`
	ActivityID   uint32       `json:"activity_id"`
	ActivityName string       `json:"activity_name"`
	TypeUID      uint32       `json:"type_uid"`
	TypeName     string       `json:"type_name"`
	Time         int64        `json:"time"`
	SeverityID   uint32       `json:"severity_id"`
	Severity     string       `json:"severity"`
	StatusID     uint32       `json:"status_id,omitempty"`
	Status       string       `json:"status,omitempty"`
	StatusDetail string       `json:"status_detail,omitempty"`
	Message      string       `json:"message"`
	Count        uint64       `json:"count,omitempty"`
	Duration     int64        `json:"duration,omitempty"`
	Metadata     metadata     `json:"metadata"`
	Device       *device      `json:"device,omitempty"`
	Dst          *endpoint    `json:"dst_endpoint,omitempty"`
	Actor        *actor       `json:"actor,omitempty"`
	Process      *proc        `json:"process,omitempty"`
	ExitCode     *int         `json:"exit_code,omitempty"`
	HTTPRequest  *httpRequest `json:"http_request,omitempty"`
	Rule         *rule        `json:"firewall_rule,omitempty"`
	Connection   *connection  `json:"connection_info,omitempty"`
	Traffic      *traffic     `json:"traffic,omitempty"`
	ActionID     uint32       `json:"action_id,omitempty"`
	Action       string       `json:"action,omitempty"`
	Disposition  uint32       `json:"disposition_id,omitempty"`
	DispName     string       `json:"disposition,omitempty"`
	Unmapped     unmapped     `json:"unmapped"`
}

type metadata struct {
	Version string  `json:"version"`
	UID     string  `json:"uid,omitempty"`
	Product product `json:"product"`
}

type product struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Version string `json:"version"`
}

type device struct {
	Hostname string `json:"hostname"`
}

type endpoint struct {
	Domain string `json:"domain,omitempty"`
	IP     string `json:"ip,omitempty"`
	Port   uint16 `json:"port,omitempty"`
}

type actor struct {
	Process *proc `json:"process"`
}

type proc struct {
	Name   string `json:"name"`
	PID    int    `json:"pid,omitempty"`
	UID    string `json:"user_uid,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Parent *proc  `json:"parent_process,omitempty"`
}

type httpRequest struct {
	Method string `json:"http_method"`
	URL    url    `json:"url"`
}

type url struct {
	Scheme   string `json:"scheme"`
	Hostname string `json:"hostname"`
	Port     uint16 `json:"port"`
	Path     string `json:"path"`
}

type rule struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type connection struct {
	Protocol string `json:"protocol_name"`
}

type traffic struct {
	Out uint64 `json:"bytes_out"`
	In  uint64 `json:"bytes_in"`
}

type unmapped struct {
	Kind       string          `json:"kind"`
	RequestID  core.RequestID  `json:"request_id,omitempty"`
	Producer   core.InstanceID `json:"producer,omitempty"`
	Stage      core.Stage      `json:"stage,omitempty"`
	Reason     core.Reason     `json:"reason,omitempty"`
	Generation core.Generation `json:"policy_generation,omitempty"`
	Address    string          `json:"dialed_address,omitempty"`
}

func build(e *core.Event, c Context) record {
	cl := refClassOf(e)
	id, name := refActivity(e, cl)
	r := record{
		ClassUID: cl.uid, ClassName: cl.name, CategoryUID: cl.category, CategoryName: cl.group,
		ActivityID: id, ActivityName: name, TypeUID: cl.uid*100 + id, TypeName: cl.name + ": " + name,
		Time: e.Time.UnixMilli(), Severity: refSeverityName(e.Severity), SeverityID: uint32(e.Severity),
		Message: message(e), StatusDetail: e.Detail,
		Metadata: metadata{Version: Version, UID: string(c.Instance), Product: product{c.Build.Component, "Splitpod", c.Build.Version}},
		Unmapped: unmapped{
			Kind: e.Kind.String(), RequestID: e.RequestID, Stage: e.Stage, Reason: e.Reason,
			Generation: e.Generation, Address: e.Address, Producer: e.Instance,
		},
	}
	if e.Count > 1 {
		r.Count = e.Count
	}
	r.Duration = e.Duration.Milliseconds()
	if c.Hostname != "" {
		r.Device = &device{c.Hostname}
	}
	if e.Host != "" {
		r.Dst = refDestination(e)
	}
	addProcess(&r, e)
	if e.Kind == core.EventConnection || e.Kind == core.EventBypass {
		addConnection(&r, e)
	}
	return r
}

func addProcess(r *record, e *core.Event) {
	p := refChain(e)
	switch {
	case e.Kind == core.EventWorkload:
		r.Process = p
		if e.Reason == ReasonExited {
			r.ExitCode = &e.ExitCode
		}
	case p != nil:
		r.Actor = &actor{p}
	}
}

func addConnection(r *record, e *core.Event) {
	r.StatusID, r.Status = 2, "Failure"
	r.ActionID, r.Action, r.Disposition, r.DispName = 2, "Denied", 2, "Blocked"
	if e.Verdict == core.Allow {
		r.ActionID, r.Action, r.Disposition, r.DispName = 1, "Allowed", 1, "Allowed"
		if e.Reason == core.ReasonAllowed {
			r.StatusID, r.Status = 1, "Success"
		}
	}
	r.Rule = &rule{Name: "-", Type: refRuleType(e)}
	if e.Rule != "" {
		r.Rule.Name = e.Rule
	}
	if e.Protocol != "" {
		r.Connection = &connection{e.Protocol}
	}
	if e.BytesUp > 0 || e.BytesDn > 0 {
		r.Traffic = &traffic{Out: e.BytesUp, In: e.BytesDn}
	}
	if e.Method != "" {
		r.HTTPRequest = &httpRequest{e.Method, url{"http", e.Host, e.Port, e.Path}}
	}
}

func refClassOf(e *core.Event) refClass {
	switch {
	case e.Kind == core.EventConnection && e.Method != "":
		return refHTTP
	case e.Kind == core.EventConnection || e.Kind == core.EventBypass:
		return refNetwork
	case e.Kind == core.EventWorkload:
		return refProcess
	case e.Kind == core.EventFinding:
		return refFinding
	default:
		return refLifecycle
	}
}

func refActivity(e *core.Event, c refClass) (uint32, string) {
	switch {
	case c == refNetwork && e.Verdict == core.Allow:
		return 1, "Open"
	case c == refNetwork:
		return 5, "Refuse"
	case c == refProcess && e.Reason == ReasonLaunched:
		return 1, "Launch"
	case c == refProcess && e.Reason == ReasonExited:
		return 2, "Terminate"
	case c == refFinding:
		return 1, "Create"
	default:
		return 99, "Other"
	}
}

func refRuleType(e *core.Event) string {
	switch e.Stage {
	case core.StageBypass:
		return "nftables"
	case core.StageSSRF:
		return "ssrf"
	case core.StageListen:
		return "http-parser"
	default:
		return "opa"
	}
}

func refDestination(e *core.Event) *endpoint {
	if _, err := netip.ParseAddr(e.Host); err == nil {
		return &endpoint{IP: e.Host, Port: e.Port}
	}
	return &endpoint{Domain: e.Host, Port: e.Port}
}

// chain renders the program and its ancestors, nearest first, as nested parents.
func refChain(e *core.Event) *proc {
	if e.Program.Path == "" && e.Process.PID == 0 {
		return nil
	}
	top := &proc{Name: e.Program.Path, PID: e.Process.PID, UID: fmt.Sprint(e.UID), SHA256: e.Program.SHA256}
	last := top
	for _, a := range e.Ancestors {
		last.Parent = &proc{Name: a.Path, SHA256: a.SHA256}
		last = last.Parent
	}
	return top
}

var refSeverityNames = [...]string{"Unknown", "Informational", "Low", "Medium", "High", "Critical"}

func refSeverityName(s core.Severity) string {
	if int(s) < len(refSeverityNames) {
		return refSeverityNames[s]
	}
	return refSeverityNames[0]
}

// message is the sentence of a record: what was done to whom.
func message(e *core.Event) string {
	var b strings.Builder
	switch e.Kind {
	case core.EventConnection, core.EventBypass:
		verb := "denied"
		if e.Verdict == core.Allow {
			verb = "allowed"
		}
		what := e.Method
		if what == "" {
			what = strings.ToUpper(string(e.Stage))
		}
		fmt.Fprintf(&b, "%s %s", what, verb)
		if e.Host != "" {
			fmt.Fprintf(&b, " %s:%d", e.Host, e.Port)
		}
		fmt.Fprintf(&b, " (%s)", e.Reason)
	default:
		b.WriteString(e.Kind.String())
		if e.Reason != "" {
			fmt.Fprintf(&b, " %s", e.Reason)
		}
	}
	return b.String()
}
