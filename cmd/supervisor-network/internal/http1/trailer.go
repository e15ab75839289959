package http1

import (
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// trailers reads the fields behind the last chunk, and the empty line that ends them.
func (c *copier) trailers() (fields Fields, err error) {
	for left := maxTrailerBytes; left > 0; {
		line, err := c.line(left)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, fmt.Errorf("%w: a trailer is a field", ErrBody)
		}
		fields = append(fields, Field{name, trim(value)})
		left -= len(line) + len("\r\n")
	}
	return nil, fmt.Errorf("%w: too many trailers", ErrBody)
}

// Trails reports whether a field of an answer may stand behind its body: one that frames,
// addresses or authenticates is none that a client may find there (RFC 9110 section
// 6.5.1), also where it takes an underscore for a hyphen. Nor does one pass that ends at
// this proxy.
func Trails(name string) bool {
	name = strings.ReplaceAll(name, "_", "-")
	return isToken(name) && !HopByHop(name) && !named(notBehind, name) && httpguts.ValidTrailerHeader(name)
}

// notBehind is what the library's list of forbidden trailers lacks, lower-case.
var notBehind = []string{"set-cookie", "alt-svc", "proxy-authentication-info"}

// Follows reports whether a field of a request may stand behind its body. Nobody judges it
// there, so it is none that an origin that takes it for one of the head would act on (RFC
// 9110 section 6.5.1): none that frames, addresses, authorizes or modifies, also AsVariable.
func Follows(name string) bool {
	read := AsVariable(name)
	return isToken(name) && !HopByHop(read) && !Forwarding(read) && !named(headOnly, read) && httpguts.ValidTrailerHeader(read)
}

// headOnly is what the library's list lacks for requests, lower-case.
var headOnly = []string{"cookie", "x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url", "script-name", "x-script-name", "mcp-method", "mcp-name"}

// What a request may not announce: a field that does not Follow, and more than MaxTrailers.
var (
	ErrTrailer  = bad("a trailer does not frame, address, authorize or modify its request")
	ErrTrailers = bad("a request announces at most 32 trailers")
)

// announced are the names in Trailer of what passes behind a request's body. What Connection
// names is of this hop there, too (RFC 9110 section 7.6.1).
func (f Fields) announced() (names []string, err error) {
	if _, n := f.Get("Trailer"); n == 0 {
		return nil, nil
	}
	hop := f.nominated()
	for i := range f {
		if !f[i].Is("Trailer") {
			continue
		}
		for name := range strings.SplitSeq(f[i].Value, ",") {
			switch name = trim(name); {
			case name == "", hop.has(name), named(names, name):
			case !Follows(name):
				return nil, ErrTrailer
			case len(names) == MaxTrailers:
				return nil, ErrTrailers
			default:
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Trailing are the names in Trailer of what passes behind the content of an answer.
func (f Fields) Trailing() (names []string) {
	for i := range f {
		if !f[i].Is("Trailer") {
			continue
		}
		for name := range strings.SplitSeq(f[i].Value, ",") {
			if name = trim(name); len(names) < MaxTrailers && Trails(name) && !named(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Announce is the field that announces those names; none where there are none.
func Announce(names []string) Fields {
	if len(names) == 0 {
		return nil
	}
	return Fields{{"Trailer", strings.Join(names, ", ")}}
}

// TakesTrailers reports whether the client of a request has said that it reads what
// stands behind a body (RFC 9110 section 10.1.4): others may not tell it from the head.
func (r *Request) TakesTrailers() bool { return r.Minor == 1 && r.Fields.Has("TE", "trailers") }

// AppendTrailers writes the end of a body in chunks, and what of the fields may stand
// there.
func AppendTrailers(b []byte, fields Fields) []byte {
	b = append(b, "0\r\n"...)
	for i := range fields {
		if f := &fields[i]; Trails(f.Name) {
			b = appendField(b, f)
		}
	}
	return append(b, "\r\n"...)
}
