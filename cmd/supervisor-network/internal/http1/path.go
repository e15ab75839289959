package http1

import (
	"strings"
	"unicode/utf8"
)

// CanonicalPath gives every path one spelling, which both the rules and the origin
// see: no path parameters, no dot segments, no empty segments, no escape of a
// character that needs none, one of every character that does, escapes in upper case.
// Nothing is decoded twice. It fails for a path that origins read in different ways: that climbs above
// its root, hides a control character, a dot segment behind an encoded separator, or
// bytes that are no UTF-8. Encoded slashes fail unless slash is true; then they stay.
//
// A semicolon that is escaped stays escaped, so that the origin finds no parameter
// that was not judged. Source: RFC 3986 sections 2.3, 3.3, 5.2.4, 6.2.2.
func CanonicalPath(path string, slash bool) (string, error) {
	if path == "" || path[0] != '/' {
		return "", badTarget("a path starts with a slash")
	}
	if isCanonical(path) {
		return path, nil
	}
	out := make([]byte, 0, len(path))
	starts := make([]int, 0, 16) // of the segments in out, behind their slashes
	last := ""
	for segment := range strings.SplitSeq(path[1:], "/") {
		segment, _, _ = strings.Cut(segment, ";")
		text, err := canonicalSegment(segment, slash)
		if err != nil {
			return "", err
		}
		switch last = text; text {
		case "", ".":
		case "..":
			if len(starts) == 0 {
				return "", badTarget("a path does not climb above its root")
			}
			out = out[:starts[len(starts)-1]-1]
			starts = starts[:len(starts)-1]
		default:
			out = append(out, '/')
			starts = append(starts, len(out))
			out = append(out, text...)
		}
	}
	if last == "" || last == "." || last == ".." {
		out = append(out, '/')
	}
	return string(out), nil
}

// isCanonical recognises most paths of the world at once.
func isCanonical(path string) bool {
	for i := range len(path) {
		c := path[i]
		if !plainByte(c) || i+1 < len(path) && c == '/' && (path[i+1] == '/' || path[i+1] == '.') {
			return false
		}
	}
	return true
}

// plainByte reports whether a byte means itself in a path, whatever stands around it
// but a dot behind a slash.
func plainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/-._~!$&'()*+,=:@", c) >= 0
}

func canonicalSegment(s string, slash bool) (string, error) {
	if !strings.ContainsAny(s, "%\\#\"<>[]^`{|}") {
		return s, nil
	}
	var out, decoded []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' || c == '#':
			return "", badTarget("a path has no backslash and no fragment")
		case c != '%' && plainByte(c):
			out, decoded = append(out, c), append(decoded, c)
			continue
		case c != '%': // many clients do not escape it, and many origins do not mind
			out, decoded = append(out, '%', upperHex[c>>4], upperHex[c&15]), append(decoded, c)
			continue
		case i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]):
			return "", badTarget("a percent sign in a path is followed by two hexadecimal digits")
		}
		c = unhex(s[i+1])<<4 | unhex(s[i+2])
		i += 2
		switch {
		case c < ' ' || c == 0x7f:
			return "", badTarget("a path has no control character, encoded or not")
		case c == '/' && !slash:
			return "", badTarget("a path has no encoded slash (%2F) here; allow_encoded_slash permits it")
		case plainByte(c) && c != '/':
			out = append(out, c)
		default:
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		}
		decoded = append(decoded, c)
	}
	if !utf8.Valid(decoded) {
		return "", badTarget("the escapes of a path are UTF-8")
	}
	if hidesDots(string(decoded)) {
		return "", badTarget("a path has no dot segment behind an encoded separator")
	}
	return string(out), nil
}

// hidesDots finds a dot segment between what some origin takes for separators, that of a
// segment and its parameters included: the proxy of an origin may have decoded them.
func hidesDots(decoded string) bool {
	if !strings.ContainsAny(decoded, "/\\;") {
		return false
	}
	for part := range strings.FieldsFuncSeq(decoded, func(c rune) bool { return c == '/' || c == '\\' }) {
		part, _, _ = strings.Cut(part, ";")
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

const upperHex = "0123456789ABCDEF"

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}

// Origin reads the target of a request inside a tunnel to host and port: a path, or
// an absolute form that names the same. Its Host field has to name them too.
func (r *Request) Origin(host string, port, defaultPort uint16, slash bool) (Target, error) {
	return r.origin(Target{Host: host, Port: port}, defaultPort, func(path string) (string, error) { return CanonicalPath(path, slash) })
}

// OriginVerbatim is Origin where no rule is about paths: then the origin gets the path
// as it was sent, with whatever escapes and empty segments mean something to it.
func (r *Request) OriginVerbatim(host string, port, defaultPort uint16) (Target, error) {
	return r.origin(Target{Host: host, Port: port}, defaultPort, VerbatimPath)
}

// VerbatimPath takes any path of visible ASCII.
func VerbatimPath(path string) (string, error) {
	if path == "" || path[0] != '/' || strings.IndexFunc(path, notVisibleASCII) >= 0 || strings.Contains(path, "#") {
		return "", badTarget("a path starts with a slash and is visible ASCII without a fragment")
	}
	return path, nil
}

func (r *Request) origin(t Target, defaultPort uint16, readPath func(string) (string, error)) (Target, error) {
	tail := r.Target
	if !strings.HasPrefix(tail, "/") {
		scheme, rest, ok := strings.Cut(tail, "://")
		if !ok || asciiLower(scheme) != "http" && asciiLower(scheme) != "https" {
			return Target{}, badTarget("the request target is a path")
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			rest, end = rest+"/", len(rest)
		}
		named, err := parseAuthority(rest[:end], defaultPort)
		if err != nil {
			return Target{}, err
		}
		if named.Host != t.Host || named.Port != t.Port {
			return Target{}, mismatch()
		}
		if tail = rest[end:]; tail[0] == '?' {
			tail = "/" + tail
		}
	}
	if err := r.namesHost(t, defaultPort); err != nil {
		return Target{}, err
	}
	if err := r.checkNested(); err != nil {
		return Target{}, err
	}
	path, query, asked := strings.Cut(tail, "?")
	var err error
	if t.Path, err = readPath(path); err != nil {
		return Target{}, err
	}
	if asked {
		if strings.Contains(query, "#") {
			return Target{}, badTarget("a request target has no fragment")
		}
		t.Query = tail[len(path):]
	}
	return t, nil
}

// namesHost requires the Host field, when there is one, to name the tunnel's target.
func (r *Request) namesHost(t Target, defaultPort uint16) error {
	value, n := r.Fields.Get("Host")
	if n == 0 {
		return nil // HTTP/1.0
	}
	if n == 1 && value == t.Host && t.Port == defaultPort && strings.IndexByte(value, ':') < 0 {
		return nil // what nearly every client sends
	}
	named, err := parseAuthority(value, defaultPort)
	if err != nil {
		return bad("the Host field is a host, with or without a port")
	}
	if named.Host != t.Host || named.Port != t.Port {
		return mismatch()
	}
	return nil
}

// SameAuthority reports whether an authority, as HTTP/2 names it, is host and port.
func SameAuthority(authority, host string, port, defaultPort uint16) bool {
	named, err := parseAuthority(authority, defaultPort)
	return err == nil && named.Host == host && named.Port == port
}
