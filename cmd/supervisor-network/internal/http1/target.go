package http1

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
)

// Target is where a request wants to go.
type Target struct {
	Host  string // lower-case; IPv6 without brackets
	Port  uint16
	Path  string // absolute-form only: starts with a slash, without query
	Query string // absolute-form only: with its question mark, verbatim
}

// Authority renders host and port as a Host field does; the port is left out when
// it is the scheme's own.
func (t Target) Authority(defaultPort uint16) string {
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.Port == defaultPort {
		return host
	}
	return host + ":" + strconv.Itoa(int(t.Port))
}

// Authority reads the authority-form target of a CONNECT and requires its Host
// field to say the same.
func (r *Request) Authority() (Target, error) {
	t, err := parseAuthority(r.Target, 0)
	if err != nil {
		return Target{}, err
	}
	if err := r.checkHostField(t, t.Port); err != nil {
		return Target{}, err
	}
	if r.Framing.Kind != NoBody {
		return Target{}, bad("a CONNECT has no body")
	}
	return t, nil
}

// checkHostField requires the Host field, when there is one, to name the target: a
// receiver that believes the field and one that believes the target must agree. It may
// name this proxy, as a client says that has connected to it and knows of no proxies
// (Node's http.request): nobody takes that for another origin, and origins are told the
// target (RFC 9112 section 3.2.2).
func (r *Request) checkHostField(t Target, defaultPort uint16) error {
	value, n := r.Fields.Get("Host")
	if n == 0 {
		return nil // HTTP/1.0
	}
	h, err := parseAuthority(value, defaultPort)
	if err == nil && (h.Host == t.Host && h.Port == t.Port || loopback(h.Host)) {
		return nil
	}
	return bad("the Host field names the same host and port as the request target, or this proxy")
}

// loopback reports whether a host is where the workload reaches this proxy, and no origin.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// Absolute reads the absolute-form target of a proxied request and requires its Host
// field to say the same.
func (r *Request) Absolute() (Target, error) {
	scheme, rest, ok := strings.Cut(r.Target, "://")
	if !ok {
		return Target{}, badTarget("this is a proxy: send CONNECT host:port, or an absolute http:// target")
	}
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		return Target{}, &SyntaxError{Status: 400, Reason: core.ReasonUnsupportedScheme, Detail: "https goes through CONNECT host:443"}
	default:
		return Target{}, &SyntaxError{Status: 400, Reason: core.ReasonUnsupportedScheme, Detail: "the proxy forwards http only; other schemes go through CONNECT"}
	}
	end := strings.IndexAny(rest, "/?#")
	authority, tail := rest, "/"
	if end >= 0 {
		authority, tail = rest[:end], rest[end:]
	}
	t, err := parseAuthority(authority, 80)
	if err != nil {
		return Target{}, err
	}
	if strings.HasPrefix(tail, "?") {
		tail = "/" + tail
	}
	if err := r.checkHostField(t, 80); err != nil {
		return Target{}, err
	}
	if err := r.checkNested(); err != nil {
		return Target{}, err
	}
	if err := t.setPath(tail); err != nil {
		return Target{}, err
	}
	return t, nil
}

// checkNested refuses a CONNECT that is no tunnel of this proxy's: where an origin takes
// it for one of its own, what follows is no request any more, whoever sends it.
func (r *Request) checkNested() error {
	if !strings.EqualFold(r.Method, "CONNECT") {
		return nil
	}
	return &SyntaxError{Status: 403, Reason: core.ReasonUnsupportedProtocol, Detail: "CONNECT is not available inside a tunnel, nor with a path"}
}

// setPath takes the path strictly; the query is the origin's own language and passes
// as it is.
func (t *Target) setPath(tail string) error {
	if strings.Contains(tail, "#") {
		return badTarget("a request target has no fragment")
	}
	path, query := tail, ""
	if i := strings.IndexByte(tail, '?'); i >= 0 {
		path, query = tail[:i], tail[i:]
	}
	if strings.Contains(path, "\\") {
		return badTarget("a path has no backslash")
	}
	for i := range len(path) {
		if path[i] == '%' && (i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2])) {
			return badTarget("a percent sign in a path is followed by two hexadecimal digits")
		}
	}
	t.Path, t.Query = path, query
	return nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// parseAuthority reads host:port, [v6]:port, or host alone when there is a default
// port.
func parseAuthority(s string, defaultPort uint16) (Target, error) {
	host, port := s, ""
	bracketed := strings.HasPrefix(s, "[")
	if bracketed {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return Target{}, badTarget("an IPv6 address stands in brackets")
		}
		host, port = s[1:end], s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	t := Target{Port: defaultPort}
	if port != "" || defaultPort == 0 {
		n, err := strconv.ParseUint(strings.TrimPrefix(port, ":"), 10, 16)
		if err != nil || n == 0 || !strings.HasPrefix(port, ":") || port[1] == '+' || port[1] == '0' {
			return Target{}, badTarget("the target is host:port, with a port from 1 to 65535")
		}
		t.Port = uint16(n)
	}
	var err error
	if t.Host, err = canonicalHost(host, bracketed); err != nil {
		return Target{}, err
	}
	return t, nil
}

// canonicalHost gives every host one spelling, so that the policy and the dialer see
// what the workload meant however it wrote it.
func canonicalHost(host string, bracketed bool) (string, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if bracketed {
			return "", badTarget("only an IPv6 address stands in brackets")
		}
		host = asciiLower(host)
		return host, checkName(host)
	}
	if addr.Zone() != "" {
		return "", badTarget("an address has no zone")
	}
	if addr.Is6() != bracketed {
		return "", badTarget("IPv6 addresses stand in brackets, others do not")
	}
	return addr.String(), nil
}

// asciiLower leaves everything but A to Z alone: to strings.ToLower the Kelvin sign
// is a k.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// checkName accepts names of lower-case letters, digits, hyphens and underscores.
// Whatever a resolver might read as a number is refused.
func checkName(host string) error {
	if len(host) == 0 || len(host) > 253 {
		return badTarget("a host name has 1 to 253 characters")
	}
	if len(host) > 1 && strings.HasSuffix(host, ".") {
		return badTarget("a host name is written without a dot at its end")
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if !isLabel(label) {
			return badTarget("a host name has labels of 1 to 63 letters, digits, hyphens or underscores; others in punycode")
		}
		last = label
	}
	if isNumeric(last) {
		return badTarget("a host name does not end in a number; write an IPv4 address in its four decimal parts")
	}
	return nil
}

func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s[0] != '-' && s[len(s)-1] != '-'
}

// isNumeric is what the URL standard calls a number: decimal, octal or hexadecimal.
func isNumeric(s string) bool {
	if digits := strings.TrimPrefix(s, "0x"); digits != s {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(s, "0123456789") == ""
}
