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
