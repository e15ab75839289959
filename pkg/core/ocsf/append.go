package ocsf

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/splitpod/splitpod/pkg/core"
)

// Encoder encodes the records of one daemon instance. Make it with NewEncoder. Safe
// for concurrent use.
type Encoder struct {
	common [len(classes)]string // by class: the members that every record has, encoded
	proxy  string               // the proxy's end of a connection, encoded
	app    string               // the daemon as a product, encoded
	name   string               // of the daemon, for lines
}

// NewEncoder makes an Encoder.
func NewEncoder(c Context) *Encoder {
	product := optional(member(nil, `{"name":`, c.Build.Component), `,"vendor_name":`, vendor)
	product = append(member(product, `,"version":`, c.Build.Version), '}')
	x := &Encoder{app: `,"app":` + string(product), name: c.Build.Component}
	if c.Proxy.IsValid() {
		x.proxy = string(appendEndpoint(nil, `,"proxy_endpoint":`, c.Proxy))
	}
	if c.SandboxUID == "" {
		c.SandboxUID = string(c.Instance)
	}
	if c.Sandbox == "" {
		c.Sandbox = c.Hostname
	}
	for _, class := range classes {
		b := member(nil, `,"metadata":{"version":`, Version)
		b = append(append(b, `,"product":`...), product...)
		b = append(append(b, `,"profiles":`...), class.profiles...)
		b = optional(b, `,"uid":`, c.SandboxUID)
		b = append(member(b, `,"log_source":`, c.Build.Component), '}')
		b = optional(append(b, `,"device":{"os":{"name":"Linux"}`...), `,"hostname":`, c.Hostname)
		b = member(b, `},"container":{"name":`, c.Sandbox)
		b = optional(b, `,"uid":`, c.SandboxUID)
		if c.Image != "" {
			b = append(member(b, `,"image":{"name":`, c.Image), '}')
		}
		x.common[class.index] = string(append(b, '}'))
	}
	return x
}

// Append appends the event as one line of JSON, newline included.
func (x *Encoder) Append(b []byte, e *core.Event) []byte {
	s := shapeOf(e)
	b = append(b, s.head...)
	b = strconv.AppendInt(b, e.Time.UnixMilli(), 10)
	b = appendSeverity(b, e.Severity)
	b = appendStatus(b, e, s)
	b = optional(b, `,"status_detail":`, e.Detail)
	b = append(appendMessage(append(b, `,"message":"`...), e), '"')
	if e.Count > 1 {
		b = number(b, `,"count":`, e.Count)
	}
	if ms := e.Duration.Milliseconds(); ms != 0 {
		b = signed(b, `,"duration":`, ms)
	}
	b = append(b, x.common[s.class.index]...)
	switch s.class {
	case networkClass, httpClass:
		b = x.appendTraffic(b, e)
	case processClass:
		b = appendLife(b, e)
	case findingClass:
		b = appendFinding(b, e)
	case sshClass:
		b = append(b, sshDisposition(s, e)...)
	case apiClass, modelClass:
		b = x.appendCall(b, e)
	case baseClass:
	case configClass:
		id, word := stateOf(e.Reason)
		b = member(number(b, `,"state_id":`, id), `,"state":`, word)
	default:
		b = append(b, x.app...)
	}
	return append(appendUnmapped(b, e), '}', '\n')
}

func appendSeverity(b []byte, s core.Severity) []byte {
	if int(s) < len(severityText) {
		return append(b, severityText[s]...)
	}
	return append(b, severityText[core.SeverityUnknown]...)
}

// appendStatus appends whether what the event tells of went well, where that is a
// question.
func appendStatus(b []byte, e *core.Event, s *shape) []byte {
	well := true
	switch {
	case e.Kind == core.EventBypass || s.class == findingClass || s.class == baseClass || s == processOther:
		return b
	case s.class == apiClass || s.class == modelClass:
		well = apiWell(e)
	case e.Kind == core.EventConnection:
		well = e.Verdict == core.Allow && e.Reason == core.ReasonAllowed
	case s == processEnd:
		well = e.ExitCode == 0
	case s.class == sshClass:
		well = s != sshFail && s != sshRefuse
	case e.Stage == core.StageGateway:
		well = s != networkFail && s != networkRefuse
	}
	if well {
		return append(b, `,"status_id":1,"status":"Success"`...)
	}
	return append(b, `,"status_id":2,"status":"Failure"`...)
}

// appendTraffic appends what is about connections and requests.
func (x *Encoder) appendTraffic(b []byte, e *core.Event) []byte {
	if e.Source.IsValid() {
		b = appendEndpoint(b, `,"src_endpoint":`, e.Source)
	}
	b = appendDestination(b, e)
	b = append(b, x.proxy...)
	if e.Program.Path != "" || e.Process.PID != 0 {
		b = append(appendProcess(append(b, `,"actor":{"process":`...), e), '}')
	}
	if e.Method != "" && e.Kind == core.EventConnection {
		b = appendHTTP(b, e)
	}
	b = member(b, `,"firewall_rule":{"name":`, ruleOf(e))
	b = append(member(b, `,"type":`, engineOf(e)), '}')
	if e.Protocol != "" {
		b = append(member(b, `,"connection_info":{"protocol_name":`, e.Protocol), '}')
	}
	if e.BytesUp > 0 || e.BytesDn > 0 {
		b = number(b, `,"traffic":{"bytes_out":`, e.BytesUp)
		b = append(number(b, `,"bytes_in":`, e.BytesDn), '}')
	}
	b = append(b, dispositionOf(e)...)
	if e.Kind == core.EventBypass {
		b = append(b, `,"observation_point_id":3`...)
	} else if e.Method != "" {
		b = append(b, `,"observation_point_id":2`...)
	}
	return append(b, `,"is_src_dst_assignment_known":true`...)
}

// appendCall appends what is about a call of one of the daemons' APIs, or of a model.
func (x *Encoder) appendCall(b []byte, e *core.Event) []byte {
	switch {
	case e.Source.IsValid():
		b = appendEndpoint(b, `,"src_endpoint":`, e.Source)
	case e.Host == "":
		b = append(b, `,"src_endpoint":{"name":"admin socket"}`...)
	default: // the daemon itself called
		b = append(member(b, `,"src_endpoint":{"name":`, x.name), '}')
	}
	b = appendDestination(b, e)
	switch {
	case e.Program.Path != "" || e.Process.PID != 0:
		b = append(appendProcess(append(b, `,"actor":{"process":`...), e), '}')
	case e.UID == core.NoUID || e.Kind != core.EventLifecycle:
		b = append(b, `,"actor":{"user":{"name":"unknown"}}`...)
	default:
		b = append(number(b, `,"actor":{"user":{"uid":"`, uint64(e.UID)), `"}}`...)
	}
	if e.Method != "" {
		b = appendHTTP(b, e)
	}
	b = append(b, `,"api":{"operation":"`...)
	if e.Method != "" {
		b = append(escape(b, e.Method), ' ')
	}
	b = append(escape(b, e.Path), `"}`...)
	if e.Kind == core.EventInference {
		b = member(b, `,"ai_model":{"name":`, cmp.Or(visible(e.Model), "unknown"))
		b = append(member(b, `,"ai_provider":`, cmp.Or(visible(e.Provider), "unknown")), '}')
	}
	return b
}

// visible is the name of a model or a provider without its control characters.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

func appendHTTP(b []byte, e *core.Event) []byte {
	b = member(b, `,"http_request":{"http_method":`, e.Method)
	scheme := `,"url":{"scheme":"http","hostname":`
	if e.Kind == core.EventInference {
		scheme = `,"url":{"scheme":"https","hostname":`
	}
	b = member(b, scheme, e.Host)
	b = member(b, `,"path":`, e.Path)
	b = append(number(b, `,"port":`, uint64(e.Port)), `}}`...)
	if e.Status != 0 {
		b = append(signed(b, `,"http_response":{"code":`, int64(e.Status)), '}')
	}
	return b
}

func appendEndpoint(b []byte, name string, a netip.AddrPort) []byte {
	b = append(append(b, name...), `{"ip":"`...)
	at := len(b)
	b = a.Addr().Unmap().AppendTo(b)
	if zone := a.Addr().Zone(); zone != "" {
		b = escape(b[:at], a.Addr().Unmap().String())
	}
	return append(number(append(b, '"'), `,"port":`, uint64(a.Port())), '}')
}

func appendDestination(b []byte, e *core.Event) []byte {
	if e.Host == "" {
		return b
	}
	name := `,"dst_endpoint":{"domain":`
	if isAddress(e.Host) {
		name = `,"dst_endpoint":{"ip":`
	}
	b = member(b, name, e.Host)
	if e.Port != 0 {
		b = number(b, `,"port":`, uint64(e.Port))
	}
	return append(b, '}')
}

// isAddress reports whether a host is an IP address. Most are names, which have no
// colon and do not both begin and end with a digit.
func isAddress(host string) bool {
	if !(digit(host[0]) && digit(host[len(host)-1])) && strings.IndexByte(host, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// appendLife appends what is about the workload's process.
func appendLife(b []byte, e *core.Event) []byte {
	b = appendProcess(append(b, `,"process":`...), e)
	switch e.Reason {
	case core.EventExited:
		return signed(b, `,"exit_code":`, int64(e.ExitCode))
	case core.EventLaunched:
		return append(append(b, `,"launch_type_id":1,"launch_type":"Spawn"`...), dispositionAllowed...)
	default:
		return b
	}
}

// appendProcess appends the program and its ancestors, nearest first, as nested
// parents. The pids of ancestors are not known.
func appendProcess(b []byte, e *core.Event) []byte {
	name := e.Program.Path
	if name == "" {
		name = "unknown"
	}
	b = signed(member(b, `{"name":`, name), `,"pid":`, int64(e.Process.PID))
	b = append(number(b, `,"user":{"uid":"`, uint64(e.UID)), `"}`...)
	b = appendFile(b, &e.Program)
	for i := range e.Ancestors {
		b = append(member(b, `,"parent_process":{"name":`, e.Ancestors[i].Path), `,"pid":0`...)
		b = appendFile(b, &e.Ancestors[i])
	}
	for range e.Ancestors {
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendFile(b []byte, p *core.Program) []byte {
	if p.SHA256 == "" {
		return b
	}
	b = member(b, `,"file":{"name":`, p.Path[strings.LastIndexByte(p.Path, '/')+1:])
	b = member(append(b, `,"type_id":1,"type":"Regular File"`...), `,"hashes":[{"algorithm_id":3,"algorithm":"SHA-256","value":`, p.SHA256)
	return append(b, `}]}`...)
}

// appendFinding appends what a finding found. Its identity is the reason, so that
// equal ones can be counted together.
func appendFinding(b []byte, e *core.Event) []byte {
	b = member(b, `,"finding_info":{"uid":`, string(e.Reason))
	b = append(appendTitle(append(b, `,"title":"`...), e.Reason), '"')
	b = append(optional(b, `,"desc":`, e.Detail), '}')
	if e.Host != "" || e.Program.Path != "" {
		b = member(b, `,"evidences":[{"data":{"binary":`, e.Program.Path)
		b = optional(b, `,"dst_addr":`, e.Host)
		if e.Port != 0 {
			b = append(number(b, `,"dst_port":"`, uint64(e.Port)), '"')
		}
		b = append(optional(b, `,"proto":`, e.Protocol), `}}]`...)
	}
	if e.Severity >= core.SeverityHigh {
		b = append(b, `,"is_alert":true`...)
	}
	if advice := remediation[e.Reason]; advice != "" {
		b = append(member(b, `,"remediation":{"desc":`, advice), '}')
	}
	return append(b, `,"confidence_id":3,"confidence":"High"`...)
}

// appendTitle appends a reason in words.
func appendTitle(b []byte, r core.Reason) []byte {
	at := len(b)
	b = escape(b, string(r))
	for i, c := range b[at:] {
		if c == '_' {
			b[at+i] = ' '
		}
	}
	return b
}

func appendUnmapped(b []byte, e *core.Event) []byte {
	b = member(b, `,"unmapped":{"kind":`, e.Kind.String())
	b = optional(b, `,"request_id":`, string(e.RequestID))
	if e.RequestID.Valid() {
		b = append(append(append(b, `,"trace_id":"`+core.TracePrefix...), e.RequestID...), '"')
	}
	b = optional(b, `,"linked_traceparent":`, e.TraceParent)
	b = optional(b, `,"producer":`, string(e.Instance))
	b = optional(b, `,"stage":`, string(e.Stage))
	b = optional(b, `,"reason":`, string(e.Reason))
	b = optional(b, `,"application":`, string(e.Application))
	if e.Generation != 0 {
		b = number(b, `,"policy_generation":`, uint64(e.Generation))
	}
	if e.Kind == core.EventInference {
		b = appendUsage(b, e)
	}
	return append(optional(b, `,"dialed_address":`, e.Address), '}')
}

// appendUsage appends what a model call took, under the names that OpenShell gives it.
func appendUsage(b []byte, e *core.Event) []byte {
	b = signed(b, `,"latency_ms":`, e.Duration.Milliseconds())
	if e.TokensIn != 0 {
		b = number(b, `,"input_tokens":`, e.TokensIn)
	}
	if e.TokensOut != 0 {
		b = number(b, `,"output_tokens":`, e.TokensOut)
	}
	return b
}

// appendMessage appends the sentence of a record: what was done to whom.
func appendMessage(b []byte, e *core.Event) []byte {
	if e.Kind != core.EventConnection && e.Kind != core.EventBypass {
		b = escape(b, e.Kind.String())
		if e.Reason != "" {
			b = escape(append(b, ' '), string(e.Reason))
		}
		return b
	}
	if e.Method != "" {
		b = escape(b, e.Method)
	} else {
		b = upper(b, string(e.Stage))
	}
	if e.Verdict == core.Allow {
		b = append(b, " allowed"...)
	} else {
		b = append(b, " denied"...)
	}
	if e.Host != "" {
		b = escape(append(b, ' '), e.Host)
		b = number(b, ":", uint64(e.Port))
	}
	return append(escape(append(b, " ("...), string(e.Reason)), ')')
}

// upper appends a word of a closed set in capitals.
func upper(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return escape(b[:len(b)-i], strings.ToUpper(s)) // not of one
		}
		b = append(b, s[i]-'a'+'A')
	}
	return b
}

// member appends a name, with what stands before it, and a string.
func member(b []byte, name, value string) []byte {
	return append(escape(append(append(b, name...), '"'), value), '"')
}

// optional is member, or nothing for the empty string.
func optional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return member(b, name, value)
}

func number(b []byte, name string, n uint64) []byte {
	return strconv.AppendUint(append(b, name...), n, 10)
}

func signed(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}
