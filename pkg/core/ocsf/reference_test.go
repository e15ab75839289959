package ocsf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
)

// reference encodes an event the slow way: structs and encoding/json. It shares with
// the encoder only the tables of what a record says, not how it is written.
func reference(e *core.Event, c Context) []byte {
	line, err := json.Marshal(build(e, c))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(line, '\n')
}

type (
	record struct {
		ClassUID     uint32          `json:"class_uid"`
		ClassName    string          `json:"class_name"`
		CategoryUID  uint32          `json:"category_uid"`
		CategoryName string          `json:"category_name"`
		ActivityID   uint32          `json:"activity_id"`
		ActivityName string          `json:"activity_name"`
		TypeUID      uint32          `json:"type_uid"`
		TypeName     string          `json:"type_name"`
		Time         int64           `json:"time"`
		SeverityID   uint32          `json:"severity_id"`
		Severity     string          `json:"severity"`
		StatusID     uint32          `json:"status_id,omitempty"`
		Status       string          `json:"status,omitempty"`
		StatusDetail string          `json:"status_detail,omitempty"`
		Message      string          `json:"message"`
		Count        uint64          `json:"count,omitempty"`
		Duration     int64           `json:"duration,omitempty"`
		Metadata     metadata        `json:"metadata"`
		Device       device          `json:"device"`
		Container    container       `json:"container"`
		Src          *endpoint       `json:"src_endpoint,omitempty"`
		Dst          *endpoint       `json:"dst_endpoint,omitempty"`
		Proxy        *endpoint       `json:"proxy_endpoint,omitempty"`
		Actor        *actor          `json:"actor,omitempty"`
		HTTPRequest  *httpRequest    `json:"http_request,omitempty"`
		HTTPResponse *httpResponse   `json:"http_response,omitempty"`
		Rule         *rule           `json:"firewall_rule,omitempty"`
		Connection   *connection     `json:"connection_info,omitempty"`
		Traffic      *traffic        `json:"traffic,omitempty"`
		Process      *proc           `json:"process,omitempty"`
		ExitCode     *int            `json:"exit_code,omitempty"`
		LaunchID     uint32          `json:"launch_type_id,omitempty"`
		Launch       string          `json:"launch_type,omitempty"`
		ActionID     uint32          `json:"action_id,omitempty"`
		Action       string          `json:"action,omitempty"`
		Disposition  uint32          `json:"disposition_id,omitempty"`
		DispName     string          `json:"disposition,omitempty"`
		Observed     uint32          `json:"observation_point_id,omitempty"`
		Assigned     bool            `json:"is_src_dst_assignment_known,omitempty"`
		Finding      *findingInfo    `json:"finding_info,omitempty"`
		Evidences    []evidence      `json:"evidences,omitempty"`
		Alert        bool            `json:"is_alert,omitempty"`
		Remediation  *advice         `json:"remediation,omitempty"`
		ConfidenceID uint32          `json:"confidence_id,omitempty"`
		Confidence   string          `json:"confidence,omitempty"`
		StateID      uint32          `json:"state_id,omitempty"`
		State        *string         `json:"state,omitempty"`
		App          *product        `json:"app,omitempty"`
		API          *call           `json:"api,omitempty"`
		Model        *model          `json:"ai_model,omitempty"`
		Unmapped     unmappedMembers `json:"unmapped"`
	}
	metadata struct {
		Version   string   `json:"version"`
		Product   product  `json:"product"`
		Profiles  []string `json:"profiles"`
		UID       string   `json:"uid,omitempty"`
		LogSource string   `json:"log_source"`
	}
	product struct {
		Name    string `json:"name"`
		Vendor  string `json:"vendor_name"`
		Version string `json:"version"`
	}
	device struct {
		OS struct {
			Name string `json:"name"`
		} `json:"os"`
		Hostname string `json:"hostname,omitempty"`
	}
	container struct {
		Name  string `json:"name"`
		UID   string `json:"uid,omitempty"`
		Image *image `json:"image,omitempty"`
	}
	image struct {
		Name string `json:"name"`
	}
	endpoint struct {
		Name   string  `json:"name,omitempty"`
		Domain string  `json:"domain,omitempty"`
		IP     string  `json:"ip,omitempty"`
		Port   *uint16 `json:"port,omitempty"`
	}
	actor struct {
		Process *proc `json:"process,omitempty"`
		User    *user `json:"user,omitempty"`
	}
	proc struct {
		Name   string `json:"name"`
		PID    int    `json:"pid"`
		User   *user  `json:"user,omitempty"`
		File   *file  `json:"file,omitempty"`
		Parent *proc  `json:"parent_process,omitempty"`
	}
	user struct {
		Name string `json:"name,omitempty"`
		UID  string `json:"uid,omitempty"`
	}
	call struct {
		Operation string `json:"operation"`
	}
	model struct {
		Name     string `json:"name"`
		Provider string `json:"ai_provider"`
	}
	file struct {
		Name   string   `json:"name"`
		TypeID uint32   `json:"type_id"`
		Type   string   `json:"type"`
		Hashes []digest `json:"hashes"`
	}
	digest struct {
		AlgorithmID uint32 `json:"algorithm_id"`
		Algorithm   string `json:"algorithm"`
		Value       string `json:"value"`
	}
	httpRequest struct {
		Method string `json:"http_method"`
		URL    url    `json:"url"`
	}
	url struct {
		Scheme   string `json:"scheme"`
		Hostname string `json:"hostname"`
		Path     string `json:"path"`
		Port     uint16 `json:"port"`
	}
	httpResponse struct {
		Code int `json:"code"`
	}
	rule struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	connection struct {
		Protocol string `json:"protocol_name"`
	}
	traffic struct {
		Out uint64 `json:"bytes_out"`
		In  uint64 `json:"bytes_in"`
	}
	advice struct {
		Desc string `json:"desc"`
	}
	findingInfo struct {
		UID   string `json:"uid"`
		Title string `json:"title"`
		Desc  string `json:"desc,omitempty"`
	}
	evidence struct {
		Data evidenceData `json:"data"`
	}
	evidenceData struct {
		Binary string `json:"binary"`
		Addr   string `json:"dst_addr,omitempty"`
		Port   string `json:"dst_port,omitempty"`
		Proto  string `json:"proto,omitempty"`
	}
	unmappedMembers struct {
		Kind        string           `json:"kind"`
		RequestID   core.RequestID   `json:"request_id,omitempty"`
		Trace       string           `json:"trace_id,omitempty"`
		Linked      string           `json:"linked_traceparent,omitempty"`
		Producer    core.InstanceID  `json:"producer,omitempty"`
		Stage       core.Stage       `json:"stage,omitempty"`
		Reason      core.Reason      `json:"reason,omitempty"`
		Application core.Application `json:"application,omitempty"`
		Generation  core.Generation  `json:"policy_generation,omitempty"`
		Latency     *int64           `json:"latency_ms,omitempty"`
		TokensIn    uint64           `json:"input_tokens,omitempty"`
		TokensOut   uint64           `json:"output_tokens,omitempty"`
		Address     string           `json:"dialed_address,omitempty"`
	}
)

// head is what a shape's beginning says.
func (r *record) head(s *shape) {
	if err := json.Unmarshal([]byte(s.head+"0}"), r); err != nil {
		panic("BUG: " + err.Error())
	}
}

func build(e *core.Event, c Context) *record {
	r := &record{Message: message(e), StatusDetail: e.Detail, Unmapped: unmappedMembers{
		Kind: e.Kind.String(), RequestID: e.RequestID, Trace: e.RequestID.Trace(), Linked: e.TraceParent, Producer: e.Instance,
		Stage: e.Stage, Reason: e.Reason, Application: e.Application, Generation: e.Generation, Address: e.Address,
	}}
	s := shapeOf(e)
	r.head(s)
	r.Time, r.Duration = e.Time.UnixMilli(), e.Duration.Milliseconds()
	severity := []string{"Unknown", "Informational", "Low", "Medium", "High", "Critical"}
	r.Severity = severity[0]
	if int(e.Severity) < len(severity) {
		r.Severity, r.SeverityID = severity[e.Severity], uint32(e.Severity)
	}
	if e.Count > 1 {
		r.Count = e.Count
	}
	r.common(c, s)
	r.status(e, s)
	switch s.class {
	case networkClass, httpClass:
		r.traffic(e, c)
	case processClass:
		r.process(e)
	case findingClass:
		r.finding(e)
	case sshClass:
		switch e.Reason {
		case core.EventSSHOpened:
			r.allowed()
		case core.EventSSHRefused:
			r.ActionID, r.Action, r.Disposition, r.DispName = 2, "Denied", 2, "Blocked"
		case core.EventSSHUnsupported:
			r.ActionID, r.Action, r.Disposition, r.DispName = 2, "Denied", 25, "Rejected"
		}
	case apiClass:
		r.call(e, c)
	case modelClass:
		r.call(e, c)
		r.model(e)
	case baseClass:
	case configClass:
		id, word := stateOf(e.Reason)
		r.StateID, r.State = uint32(id), &word
	default:
		r.App = &r.Metadata.Product
	}
	return r
}

func (r *record) common(c Context, s *shape) {
	uid, name := c.SandboxUID, c.Sandbox
	if uid == "" {
		uid = string(c.Instance)
	}
	if name == "" {
		name = c.Hostname
	}
	r.Metadata = metadata{Version: Version, Product: product{c.Build.Component, "Splitpod", c.Build.Version}, UID: uid, LogSource: c.Build.Component}
	if err := json.Unmarshal([]byte(s.class.profiles), &r.Metadata.Profiles); err != nil {
		panic("BUG: " + err.Error())
	}
	r.Device.OS.Name, r.Device.Hostname = "Linux", c.Hostname
	r.Container = container{Name: name, UID: uid}
	if c.Image != "" {
		r.Container.Image = &image{c.Image}
	}
}

func (r *record) status(e *core.Event, s *shape) {
	switch {
	case e.Kind == core.EventInference && (e.Status < 200 || e.Status > 299 || e.Reason != "" && e.Reason != core.ReasonAllowed):
		r.StatusID, r.Status = 2, "Failure"
	case e.Kind == core.EventBypass, s.class == findingClass, s.class == baseClass, s == processOther:
	case s.class == apiClass && ((e.Reason == core.EventAdminDecided || e.Reason == core.EventTokenGranted) && e.Kind == core.EventLifecycle || e.Reason == core.ReasonAllowed && e.Kind == core.EventConnection && e.Status < 400):
		r.StatusID, r.Status = 1, "Success"
	case s.class == apiClass:
		r.StatusID, r.Status = 2, "Failure"
	case e.Kind == core.EventConnection && (e.Verdict != core.Allow || e.Reason != core.ReasonAllowed), s == processEnd && e.ExitCode != 0, s == sshFail, s == sshRefuse, e.Kind == core.EventLifecycle && (s == networkFail || s == networkRefuse):
		r.StatusID, r.Status = 2, "Failure"
	default:
		r.StatusID, r.Status = 1, "Success"
	}
}

func (r *record) traffic(e *core.Event, c Context) {
	if e.Source.IsValid() {
		r.Src = socket(e.Source)
	}
	if c.Proxy.IsValid() {
		r.Proxy = socket(c.Proxy)
	}
	r.Dst = destination(e)
	if e.Program.Path != "" || e.Process.PID != 0 {
		r.Actor = &actor{Process: chain(e)}
	}
	if e.Method != "" && e.Kind == core.EventConnection {
		r.HTTPRequest = &httpRequest{e.Method, url{"http", e.Host, e.Path, e.Port}}
		if e.Status != 0 {
			r.HTTPResponse = &httpResponse{e.Status}
		}
	}
	r.Rule = &rule{ruleOf(e), engineOf(e)}
	if e.Protocol != "" {
		r.Connection = &connection{e.Protocol}
	}
	if e.BytesUp > 0 || e.BytesDn > 0 {
		r.Traffic = &traffic{Out: e.BytesUp, In: e.BytesDn}
	}
	switch {
	case e.Verdict == core.Allow:
		r.allowed()
	case rejected(e.Reason):
		r.ActionID, r.Action, r.Disposition, r.DispName = 2, "Denied", 25, "Rejected"
	default:
		r.ActionID, r.Action, r.Disposition, r.DispName = 2, "Denied", 2, "Blocked"
	}
	switch {
	case e.Kind == core.EventBypass:
		r.Observed = 3
	case e.Method != "":
		r.Observed = 2
	}
	r.Assigned = true
}

func (r *record) call(e *core.Event, c Context) {
	r.Src = &endpoint{Name: "admin socket"}
	if e.Host != "" {
		r.Src.Name = c.Build.Component
	}
	if e.Source.IsValid() {
		r.Src = socket(e.Source)
	}
	r.Dst = destination(e)
	switch {
	case e.Program.Path != "" || e.Process.PID != 0:
		r.Actor = &actor{Process: chain(e)}
	case e.UID == core.NoUID || e.Kind == core.EventConnection || e.Kind == core.EventInference:
		r.Actor = &actor{User: &user{Name: "unknown"}}
	default:
		r.Actor = &actor{User: &user{UID: fmt.Sprint(e.UID)}}
	}
	r.API = &call{e.Path}
	if e.Method != "" {
		r.API.Operation = e.Method + " " + e.Path
		r.HTTPRequest = &httpRequest{e.Method, url{"http", e.Host, e.Path, e.Port}}
		if e.Status != 0 {
			r.HTTPResponse = &httpResponse{e.Status}
		}
	}
}

// model is what a call of a model has beyond one of an API of the daemons.
func (r *record) model(e *core.Event) {
	name := func(s string) string {
		var b strings.Builder
		for _, c := range s {
			if c >= ' ' && (c < 0x7f || c > 0x9f) {
				b.WriteRune(c)
			}
		}
		if b.Len() == 0 {
			return "unknown"
		}
		return b.String()
	}
	r.Model = &model{name(e.Model), name(e.Provider)}
	if r.HTTPRequest != nil {
		r.HTTPRequest.URL.Scheme = "https"
	}
	ms := e.Duration.Milliseconds()
	r.Unmapped.Latency, r.Unmapped.TokensIn, r.Unmapped.TokensOut = &ms, e.TokensIn, e.TokensOut
}

func (r *record) allowed() {
	r.ActionID, r.Action, r.Disposition, r.DispName = 1, "Allowed", 1, "Allowed"
}

func (r *record) process(e *core.Event) {
	r.Process = chain(e)
	switch e.Reason {
	case core.EventExited:
		r.ExitCode = &e.ExitCode
	case core.EventLaunched:
		r.LaunchID, r.Launch = 1, "Spawn"
		r.allowed()
	}
}

func (r *record) finding(e *core.Event) {
	r.Finding = &findingInfo{string(e.Reason), strings.ReplaceAll(string(e.Reason), "_", " "), e.Detail}
	if e.Host != "" || e.Program.Path != "" {
		d := evidenceData{Binary: e.Program.Path, Addr: e.Host, Proto: e.Protocol}
		if e.Port != 0 {
			d.Port = fmt.Sprint(e.Port)
		}
		r.Evidences = []evidence{{d}}
	}
	if text := remediation[e.Reason]; text != "" {
		r.Remediation = &advice{text}
	}
	r.Alert, r.ConfidenceID, r.Confidence = e.Severity >= core.SeverityHigh, 3, "High"
}

func socket(a netip.AddrPort) *endpoint {
	port := a.Port()
	return &endpoint{IP: a.Addr().Unmap().String(), Port: &port}
}

func destination(e *core.Event) *endpoint {
	if e.Host == "" {
		return nil
	}
	d := &endpoint{Domain: e.Host}
	if _, err := netip.ParseAddr(e.Host); err == nil {
		d = &endpoint{IP: e.Host}
	}
	if e.Port != 0 {
		d.Port = &e.Port
	}
	return d
}

func chain(e *core.Event) *proc {
	top := &proc{Name: e.Program.Path, PID: e.Process.PID, User: &user{UID: fmt.Sprint(e.UID)}, File: fileOf(e.Program)}
	if top.Name == "" {
		top.Name = "unknown"
	}
	last := top
	for _, a := range e.Ancestors {
		last.Parent = &proc{Name: a.Path, File: fileOf(a)}
		last = last.Parent
	}
	return top
}

func fileOf(p core.Program) *file {
	if p.SHA256 == "" {
		return nil
	}
	parts := strings.Split(p.Path, "/")
	return &file{parts[len(parts)-1], 1, "Regular File", []digest{{3, "SHA-256", p.SHA256}}}
}

func message(e *core.Event) string {
	if e.Kind != core.EventConnection && e.Kind != core.EventBypass {
		if e.Reason == "" {
			return e.Kind.String()
		}
		return e.Kind.String() + " " + string(e.Reason)
	}
	verb, what := "denied", e.Method
	if e.Verdict == core.Allow {
		verb = "allowed"
	}
	if what == "" {
		what = strings.ToUpper(string(e.Stage))
	}
	if e.Host != "" {
		verb += fmt.Sprintf(" %s:%d", e.Host, e.Port)
	}
	return fmt.Sprintf("%s %s (%s)", what, verb, e.Reason)
}
