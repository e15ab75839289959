package http1

import (
	"strings"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// Field is one header field. Name has the case it was sent in.
type Field struct{ Name, Value string }

// Is reports whether the field has that name, in whatever case. Most others differ in
// their length or first letter.
func (f *Field) Is(name string) bool { return len(f.Name) == len(name) && same(f.Name, name) }

// same reports whether two names of one length are one, in whatever case.
func same(a, b string) bool {
	return a == "" || a[0]|0x20 == b[0]|0x20 && strings.EqualFold(a, b)
}

// Fields are header fields in order.
type Fields []Field

// Get returns the first value of the field, and how many fields have that name.
func (f Fields) Get(name string) (value string, count int) {
	for i := range f {
		if f[i].Is(name) {
			if count == 0 {
				value = f[i].Value
			}
			count++
		}
	}
	return value, count
}

// Without returns the fields whose name is not in the list (lower-case names), in a
// slice of its own with room for a few more.
func (f Fields) Without(names ...string) Fields {
	out := make(Fields, 0, len(f)+4)
	for _, field := range f {
		if !named(names, field.Name) {
			out = append(out, field)
		}
	}
	return out
}

// named reports whether a name, in any case, is in a list.
func named(names []string, name string) bool {
	for _, n := range names {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// Request is a request head.
type Request struct {
	Method  string
	Target  string // as sent
	Minor   int    // HTTP/1.Minor, 0 or 1
	Fields  Fields // without those that Connection names, which nobody behind this proxy will see
	Framing Framing
	Trailer []string // names of the fields that are announced to come behind a body in chunks
}

// ParseRequest reads one request head, its final empty line included.
func ParseRequest(head []byte) (*Request, error) {
	r := &Request{}
	if err := r.Parse(head); err != nil {
		return nil, err
	}
	return r, nil
}

// Parse is ParseRequest into r, of which nothing but the memory of its fields is used
// again. When it fails, r is no request.
func (r *Request) Parse(head []byte) (err error) {
	line, fields, plain := plainHead(head, r.Fields)
	rest := ""
	if !plain {
		if !utf8.Valid(head) { // of a response Latin-1 is nobody's risk, and some origins' habit
			return bad("a message head is UTF-8")
		}
		if line, rest, err = splitHead(head); err != nil {
			return err
		}
	}
	*r = Request{Fields: fields}
	if err := r.parseLine(line); err != nil {
		return err
	}
	if !plain {
		if r.Fields, err = parseFields(rest); err != nil {
			return err
		}
	}
	if _, n := r.Fields.Get("Host"); n > 1 || n == 0 && r.Minor == 1 {
		return bad("an HTTP/1.1 request has exactly one Host field")
	}
	if r.Framing, err = requestFraming(r.Fields, r.Minor); err != nil {
		return err
	}
	if r.Framing.Kind == Chunked {
		if r.Trailer, err = r.Fields.announced(); err != nil {
			return err
		}
	}
	r.Fields = r.Fields.settled()
	return nil
}

// splitHead checks what holds for every head and separates its first line.
func splitHead(head []byte) (line, rest string, err error) {
	s := string(head)
	if !strings.HasSuffix(s, "\r\n\r\n") {
		return "", "", bad("a message head ends with an empty line")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", "", bad("a message head contains no NUL")
	}
	lines := 0
	for i := 0; ; lines++ {
		n := strings.IndexByte(s[i:], '\n')
		if n < 0 {
			break
		}
		if i += n + 1; i < 2 || s[i-2] != '\r' {
			return "", "", bad("a line ends with CR LF, not with a bare LF")
		}
	}
	if strings.Count(s, "\r") != lines {
		return "", "", bad("CR stands only before LF")
	}
	line, rest, _ = strings.Cut(s, "\r\n")
	return line, rest, nil
}

func (r *Request) parseLine(line string) error {
	method, after, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(after, " ")
	switch {
	case !ok || !ok2:
		return bad("the request line is METHOD SP target SP HTTP/1.1")
	case len(method) > MaxMethodBytes || !isToken(method):
		return bad("the method is a token of at most 32 characters")
	case len(target) > MaxTargetBytes:
		return &SyntaxError{Status: 414, Reason: core.ReasonInvalidTarget, Detail: "the request target is at most 4096 bytes long"}
	case version == "HTTP/1.1":
		r.Minor = 1
	case version == "HTTP/1.0":
		r.Minor = 0
	default:
		return &SyntaxError{Status: 505, Reason: core.ReasonBadRequest, Detail: "the version is HTTP/1.0 or HTTP/1.1, after single spaces"}
	}
	if target == "" || strings.IndexFunc(target, notVisibleASCII) >= 0 {
		return badTarget("the request target is visible ASCII")
	}
	r.Method, r.Target = method, target
	return nil
}

func notVisibleASCII(c rune) bool { return c <= ' ' || c >= 0x7f }

func parseFields(block string) (Fields, error) {
	fields := make(Fields, 0, min(strings.Count(block, "\n"), MaxFields))
	for block != "\r\n" {
		line, rest, _ := strings.Cut(block, "\r\n")
		block = rest
		if len(fields) == MaxFields {
			return nil, &SyntaxError{Status: 431, Reason: core.ReasonHeaderTooLarge, Detail: "a head has at most 200 fields"}
		}
		if line == "" {
			return nil, bad("a message head has one empty line, at its end")
		}
		if line[0] == ' ' || line[0] == '\t' {
			return nil, bad("a field is not continued on the next line")
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, bad("a field is a token, a colon directly behind it, and a value")
		}
		if looksLikeFraming(name) {
			return nil, bad("a field that frames or addresses a message is written with hyphens")
		}
		value = trim(value)
		if hasControlByte(value) {
			return nil, bad("a field value contains no control character")
		}
		if len(name) == len("Connection") && strings.EqualFold(name, "Connection") {
			if err := checkConnection(value); err != nil {
				return nil, err
			}
		}
		fields = append(fields, Field{name, value})
	}
	return fields, nil
}

// AsVariable is a field's name as those read it to whom a server hands fields on as
// variables, in which many signs become one: the underscore everywhere (CGI, WSGI), the dot
// in PHP, everything but letters and digits in lighttpd. That one is a hyphen here.
func AsVariable(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, name)
}

// looksLikeFraming reports whether name is one of the fields this package acts on, but only
// AsVariable.
func looksLikeFraming(name string) bool {
	read := AsVariable(name)
	if read == name {
		return false
	}
	switch strings.ToLower(read) {
	case "content-length", "transfer-encoding", "proxy-authorization", "proxy-connection", "keep-alive":
		return true
	default:
		return false
	}
}

// trim takes the white space off a field value (OWS, RFC 9110 section 5.6.3).
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// hasControlByte reports whether a field value has a control character other than TAB.
func hasControlByte(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func controlByte(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// checkConnection refuses a Connection field that would take away what frames or
// addresses the message.
func checkConnection(value string) error {
	for option := range strings.SplitSeq(value, ",") {
		option = strings.Trim(option, " \t")
		if option == "" && value == "" {
			return nil
		}
		if !isToken(option) {
			return bad("Connection lists tokens")
		}
		switch strings.ToLower(option) {
		case "host", "content-length", "transfer-encoding":
			return bad("Connection does not name Host, Content-Length or Transfer-Encoding")
		}
	}
	return nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

// tokenBytes are tchar of RFC 9110 section 5.6.2.
var tokenBytes = func() (t [256]bool) {
	for c := range 128 {
		b := byte(c)
		t[c] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
	}
	return t
}()
