package ocsf

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
)

// Encoder encodes the records of one daemon instance. Make it with NewEncoder. Safe
// for concurrent use.
type Encoder struct {
	context string // the members that every record has, encoded
}

// NewEncoder makes an Encoder.
func NewEncoder(c Context) *Encoder {
	b := member(nil, `,"metadata":{"version":`, Version)
	b = optional(b, `,"uid":`, string(c.Instance))
	b = member(b, `,"product":{"name":`, c.Build.Component)
	b = append(b, `,"vendor_name":"Splitpod"`...)
	b = append(member(b, `,"version":`, c.Build.Version), `}}`...)
	if c.Hostname != "" {
		b = append(member(b, `,"device":{"hostname":`, c.Hostname), '}')
	}
	return &Encoder{string(b)}
}

// Append appends the event as one line, newline included.
func (x *Encoder) Append(b []byte, e *core.Event) []byte {
	b = append(b, shapeOf(e).head...)
	b = strconv.AppendInt(b, e.Time.UnixMilli(), 10)
	b = appendSeverity(b, e.Severity)
	connection := e.Kind == core.EventConnection || e.Kind == core.EventBypass
	if connection {
		b = appendStatus(b, e)
	}
	b = optional(b, `,"status_detail":`, e.Detail)
	b = appendMessage(append(b, `,"message":"`...), e)
	if e.Count > 1 {
		b = number(b, `,"count":`, e.Count)
	}
	if ms := e.Duration.Milliseconds(); ms != 0 {
		b = strconv.AppendInt(append(b, `,"duration":`...), ms, 10)
	}
	b = append(b, x.context...)
	b = appendDestination(b, e)
	b = appendProcess(b, e)
	if connection {
		b = appendConnection(b, e)
	}
	return append(appendUnmapped(b, e), '}', '\n')
}

func appendSeverity(b []byte, s core.Severity) []byte {
	if int(s) < len(severityText) {
		return append(b, severityText[s]...)
	}
	b = number(b, `,"severity_id":`, uint64(s))
	return append(b, `,"severity":"Unknown"`...)
}

func appendStatus(b []byte, e *core.Event) []byte {
	if e.Verdict == core.Allow && e.Reason == core.ReasonAllowed {
		return append(b, `,"status_id":1,"status":"Success"`...)
	}
	return append(b, `,"status_id":2,"status":"Failure"`...)
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

func appendProcess(b []byte, e *core.Event) []byte {
	known := e.Program.Path != "" || e.Process.PID != 0
	switch {
	case e.Kind == core.EventWorkload:
		if known {
			b = appendChain(append(b, `,"process":`...), e)
		}
		if e.Reason == ReasonExited {
			b = strconv.AppendInt(append(b, `,"exit_code":`...), int64(e.ExitCode), 10)
		}
	case known:
		b = append(appendChain(append(b, `,"actor":{"process":`...), e), '}')
	}
	return b
}

// appendChain appends the program and its ancestors, nearest first, as nested
// parents.
func appendChain(b []byte, e *core.Event) []byte {
	b = member(b, `{"name":`, e.Program.Path)
	if e.Process.PID != 0 {
		b = strconv.AppendInt(append(b, `,"pid":`...), int64(e.Process.PID), 10)
	}
	b = append(number(b, `,"user_uid":"`, uint64(e.UID)), '"')
	b = optional(b, `,"sha256":`, e.Program.SHA256)
	for i := range e.Ancestors {
		b = member(b, `,"parent_process":{"name":`, e.Ancestors[i].Path)
		b = optional(b, `,"sha256":`, e.Ancestors[i].SHA256)
	}
	for range e.Ancestors {
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendConnection(b []byte, e *core.Event) []byte {
	if e.Method != "" {
		b = member(b, `,"http_request":{"http_method":`, e.Method)
		b = member(b, `,"url":{"scheme":"http","hostname":`, e.Host)
		b = number(b, `,"port":`, uint64(e.Port))
		b = append(member(b, `,"path":`, e.Path), `}}`...)
	}
	rule := e.Rule
	if rule == "" {
		rule = "-"
	}
	b = member(b, `,"firewall_rule":{"name":`, rule)
	b = append(append(append(b, `,"type":"`...), ruleType(e)...), `"}`...)
	if e.Protocol != "" {
		b = append(member(b, `,"connection_info":{"protocol_name":`, e.Protocol), '}')
	}
	if e.BytesUp > 0 || e.BytesDn > 0 {
		b = number(b, `,"traffic":{"bytes_out":`, e.BytesUp)
		b = append(number(b, `,"bytes_in":`, e.BytesDn), '}')
	}
	if e.Verdict == core.Allow {
		return append(b, `,"action_id":1,"action":"Allowed","disposition_id":1,"disposition":"Allowed"`...)
	}
	return append(b, `,"action_id":2,"action":"Denied","disposition_id":2,"disposition":"Blocked"`...)
}

func appendUnmapped(b []byte, e *core.Event) []byte {
	b = member(b, `,"unmapped":{"kind":`, e.Kind.String())
	b = optional(b, `,"request_id":`, string(e.RequestID))
	b = optional(b, `,"producer":`, string(e.Instance))
	b = optional(b, `,"stage":`, string(e.Stage))
	b = optional(b, `,"reason":`, string(e.Reason))
	if e.Generation != 0 {
		b = number(b, `,"policy_generation":`, uint64(e.Generation))
	}
	return append(optional(b, `,"dialed_address":`, e.Address), '}')
}

// appendMessage appends the sentence of a record, what was done to whom, and the
// quotation mark behind it.
func appendMessage(b []byte, e *core.Event) []byte {
	if e.Kind != core.EventConnection && e.Kind != core.EventBypass {
		b = escape(b, e.Kind.String())
		if e.Reason != "" {
			b = escape(append(b, ' '), string(e.Reason))
		}
		return append(b, '"')
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
		b = strconv.AppendUint(append(b, ':'), uint64(e.Port), 10)
	}
	return append(escape(append(b, " ("...), string(e.Reason)), `)"`...)
}

// upper appends a stage in capitals.
func upper(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return escape(b[:len(b)-i], strings.ToUpper(s)) // none of ours
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
