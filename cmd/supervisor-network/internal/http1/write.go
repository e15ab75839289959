package http1

import (
	"slices"
	"strconv"
	"strings"
)

// Outgoing is how this proxy wants a request or response to be framed and what it
// adds or leaves out. The zero value passes a message without a body.
type Outgoing struct {
	Framing    Framing
	ZeroLength bool   // says Content-Length: 0 where the framing is NoBody
	Close      bool   // Connection: close
	Via        string // this proxy's own entry, behind those that are there
	// Omit leaves out fields of these names, lower-case, beside those of one hop.
	Omit []string
	// Add are fields written behind all others.
	Add Fields
}

// Last reports whether a request has to be the last one on its connection: it has a body
// where none is expected (RFC 9110 section 9.3). An origin that does not look for one would
// take it for the next request, which nobody judged; told to close, it reads no other.
func Last(method string, f Framing) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "OPTIONS", "TRACE":
		return f.Kind != NoBody
	default:
		return false
	}
}

// AppendRequest writes a request head to t's origin anew. Fields that belong to one
// hop stay here (RFC 9110 section 7.6.1); Host comes first and from t alone.
func AppendRequest(b []byte, r *Request, t Target, defaultPort uint16, o Outgoing) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, t.Path...)
	b = append(b, t.Query...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, t.Authority(defaultPort)...)
	b = append(b, "\r\n"...)
	b = appendFields(b, r.Fields, &o, "host")
	if o.Via != "" {
		b = appendVia(b, r.Fields, o.Via)
	}
	return appendEnd(b, &o)
}

// AppendResponse writes a response head anew. Fields that belong to one hop stay
// here, and Alt-Svc with them: it would send the client to a protocol that does not
// pass this proxy.
func AppendResponse(b []byte, r *Response, o Outgoing) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	b = append(b, r.Phrase...)
	b = append(b, "\r\n"...)
	b = appendFields(b, r.Fields, &o, "alt-svc")
	return appendEnd(b, &o)
}

func appendFields(b []byte, fields Fields, o *Outgoing, own string) []byte {
	named := fields.nominated()
	for i := range fields {
		f := &fields[i]
		if HopByHop(f.Name) || f.Is("Content-Length") || f.Is(own) ||
			o.Via != "" && f.Is("Via") || named.has(f.Name) || omitted(o.Omit, f.Name) {
			continue
		}
		b = appendField(b, f)
	}
	for i := range o.Add {
		b = appendField(b, &o.Add[i])
	}
	return b
}

func appendField(b []byte, f *Field) []byte {
	b = append(b, f.Name...)
	b = append(b, ": "...)
	b = append(b, f.Value...)
	return append(b, "\r\n"...)
}

func omitted(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func appendVia(b []byte, fields Fields, own string) []byte {
	b = append(b, "Via: "...)
	for i := range fields {
		if f := &fields[i]; f.Is("Via") {
			b = append(b, f.Value...)
			b = append(b, ", "...)
		}
	}
	b = append(b, own...)
	return append(b, "\r\n"...)
}

func appendEnd(b []byte, o *Outgoing) []byte {
	switch {
	case o.Framing.Kind == Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case o.Framing.Kind == Length || o.ZeroLength:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, o.Framing.Length, 10)
		b = append(b, "\r\n"...)
	}
	if o.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}

// HopByHop reports whether a field is one that ends at every proxy, whatever its
// Connection field says.
func HopByHop(name string) bool {
	switch len(name) {
	case 2:
		return same(name, "TE")
	case 7:
		return same(name, "Trailer") || same(name, "Upgrade")
	case 10:
		return same(name, "Connection") || same(name, "Keep-Alive")
	case 14:
		return same(name, "HTTP2-Settings")
	case 16:
		return same(name, "Proxy-Connection")
	case 17:
		return same(name, "Transfer-Encoding")
	case 18:
		return same(name, "Proxy-Authenticate")
	case 19:
		return same(name, "Proxy-Authorization")
	default:
		return false
	}
}

// Forwarding reports whether a field, also AsVariable, is where proxies say whom
// they serve, and which host that one named: that of RFC 7239, and those that are older.
// An origin may believe it of whoever is near; a workload has nobody behind it.
func Forwarding(name string) bool {
	const prefix = "X-Forwarded-"
	if len(name) < len("X-Host") {
		return false
	}
	if first, last := name[0]|0x20, name[len(name)-1]|0x20; first != 'x' && first != 'f' && last != 'p' && last != '6' {
		return false
	}
	name = AsVariable(name)
	return len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) ||
		slices.ContainsFunc(forwarding[:], func(f string) bool { return strings.EqualFold(f, name) })
}

// forwarding are those that proxies and delivery networks set, and frameworks read. They
// begin with X or F, or end with P or 6.
var forwarding = [...]string{
	"Forwarded", "X-Real-IP", "X-Client-IP", "Client-IP", "True-Client-IP", "X-Cluster-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6",
	"Fastly-Client-IP", "X-Original-Forwarded-For", "X-Azure-ClientIP", "X-Remote-IP", "X-Remote-Addr", "WL-Proxy-Client-IP", "Proxy-Client-IP",
	"X-Host", "X-Original-Host", "X-HTTP-Host-Override",
}

// options are what Connection fields list, lower-case.
type options struct {
	few  []string
	many map[string]bool // a head can list thousands
}

func (o *options) has(name string) bool {
	if o.many != nil {
		return o.many[strings.ToLower(name)]
	}
	for _, n := range o.few {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// nominated collects the fields that Connection names. keep-alive and close name no
// field, and are what nearly every Connection says.
func (f Fields) nominated() (out options) {
	for i := range f {
		if !f[i].Is("Connection") {
			continue
		}
		for o := range strings.SplitSeq(f[i].Value, ",") {
			o = strings.Trim(o, " \t")
			if o == "" || strings.EqualFold(o, "keep-alive") || strings.EqualFold(o, "close") {
				continue
			}
			out.few = append(out.few, o)
		}
	}
	if len(out.few) > 8 {
		out.many = make(map[string]bool, len(out.few))
		for _, o := range out.few {
			out.many[strings.ToLower(o)] = true
		}
	}
	return out
}

// settled leaves out the fields that Connection names, and the options that named them,
// and those of Forwarding: a rule that is about such a field, and a credential that goes
// into it, would be about something that is not sent. Fields that end at every proxy stay,
// for this one.
func (f Fields) settled() Fields {
	named := f.nominated()
	if !slices.ContainsFunc(named.few, func(o string) bool { return !HopByHop(o) }) &&
		!slices.ContainsFunc(f, func(field Field) bool { return Forwarding(field.Name) }) {
		return f
	}
	out := make(Fields, 0, len(f))
	for _, field := range f {
		switch {
		case Forwarding(field.Name):
		case strings.EqualFold(field.Name, "Connection"):
			if field.Value = ownOptions(field.Value); field.Value != "" {
				out = append(out, field)
			}
		case HopByHop(field.Name) || !named.has(field.Name):
			out = append(out, field)
		}
	}
	return out
}

// ownOptions are the options of a Connection field that are about the connection alone.
func ownOptions(value string) string {
	var own []string
	for o := range strings.SplitSeq(value, ",") {
		if o = strings.Trim(o, " \t"); HopByHop(o) || strings.EqualFold(o, "close") {
			own = append(own, o)
		}
	}
	return strings.Join(own, ", ")
}

// EndToEnd returns the fields that do not belong to one hop: f itself where none does.
func (f Fields) EndToEnd() Fields {
	named := f.nominated()
	ends := func(field Field) bool { return HopByHop(field.Name) || named.has(field.Name) }
	if !slices.ContainsFunc(f, ends) {
		return f
	}
	return slices.DeleteFunc(slices.Clone(f), ends)
}

// Has reports whether a comma-separated field lists the token.
func (f Fields) Has(name, token string) bool {
	for i := range f {
		if !f[i].Is(name) {
			continue
		}
		for o := range strings.SplitSeq(f[i].Value, ",") {
			if strings.EqualFold(strings.Trim(o, " \t"), token) {
				return true
			}
		}
	}
	return false
}
