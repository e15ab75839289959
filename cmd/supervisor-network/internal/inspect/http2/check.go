package http2

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

func refuse(status int, reason core.Reason, detail string) error {
	return &http1.SyntaxError{Status: status, Reason: reason, Detail: detail}
}

func bad(detail string) error { return refuse(http.StatusBadRequest, core.ReasonBadRequest, detail) }

func badTarget(detail string) error {
	return refuse(http.StatusBadRequest, core.ReasonInvalidTarget, detail)
}

// check takes a request as the library understood it and returns what it asks for, or
// why it has no single reading. No request comes to it whose section malformed refuses:
// it relies on that for the pseudo-fields, the Host field, the spelling of names, control
// characters in values, and the fields that HTTP/2 does not have.
func (o *Options) check(r *http.Request) (path, query string, err error) {
	if why, refused := r.Header[http.CanonicalHeaderKey(refusedName)]; refused {
		reason, method, _ := strings.Cut(why[0], " ")
		r.Method = method
		return "", "", refusals[reason]
	}
	protocol, extended := r.Header[pseudoProtocol]
	switch {
	case r.Method == http.MethodConnect && !extended:
		return "", "", refuse(http.StatusForbidden, core.ReasonUnsupportedProtocol, "CONNECT is not available inside a tunnel")
	case len(r.Method) > http1.MaxMethodBytes || !isToken(r.Method):
		return "", "", bad("the method is a token of at most 32 characters")
	case extended && r.Method != http.MethodConnect:
		return "", "", bad(":protocol belongs to CONNECT")
	case extended && protocol[0] != ProtocolWebSocket:
		return "", "", refuse(http.StatusNotImplemented, core.ReasonUnsupportedProtocol, "the only protocol that CONNECT opens here is websocket")
	case r.TLS == nil:
		return "", "", bad("the scheme is https, as the connection is")
	}
	if err := o.checkAuthority(r); err != nil {
		return "", "", err
	}
	if path, query, err = o.checkPath(r.RequestURI); err != nil {
		return "", "", err
	}
	if err := checkFields(r.Header); err != nil {
		return "", "", err
	}
	maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return http1.Forwarding(name) })
	if err := checkTrailers(r.Trailer); err != nil {
		return "", "", err
	}
	if extended {
		return path, query, checkOpen(r)
	}
	return path, query, checkLength(r)
}

// pseudoProtocol is where the library leaves the pseudo-field of RFC 8441 section 4.
const pseudoProtocol = ":protocol"

// ProtocolWebSocket is the protocol of an extended CONNECT that opens a WebSocket.
const ProtocolWebSocket = "websocket"

// checkOpen: what an extended CONNECT opens has no length, and can be spoken on.
func checkOpen(r *http.Request) error {
	if _, ok := r.Header["Content-Length"]; ok {
		return bad("a CONNECT has no Content-Length")
	}
	if r.ContentLength == 0 {
		return bad("the stream of a WebSocket does not end with its fields")
	}
	return nil
}

// checkAuthority: a connection that was permitted for one host carries streams for
// no other, whatever names its certificate has.
func (o *Options) checkAuthority(r *http.Request) error {
	if !http1.SameAuthority(r.Host, o.Host, o.Port, 443) {
		return refuse(http.StatusMisdirectedRequest, core.ReasonAuthorityMismatch, "the request names another host than the tunnel it came through")
	}
	return nil
}

func (o *Options) checkPath(target string) (path, query string, err error) {
	if len(target) > http1.MaxTargetBytes {
		return "", "", refuse(http.StatusRequestURITooLong, core.ReasonInvalidTarget, "the request target is at most 4096 bytes long")
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return "", "", badTarget("the request target is visible ASCII without a fragment")
		}
	}
	path, query, asked := strings.Cut(target, "?")
	if o.Verbatim {
		path, err = http1.VerbatimPath(path)
	} else {
		path, err = http1.CanonicalPath(path, o.EncodedSlash)
	}
	if err != nil {
		return "", "", err
	}
	if asked {
		query = "?" + query
	}
	return path, query, nil
}

func checkFields(h http.Header) error {
	count := 0
	for name, values := range h {
		if hiddenFraming(name) {
			return bad("a field that frames or addresses a message is written with hyphens")
		}
		for _, v := range values {
			if err := checkValue(v); err != nil {
				return err
			}
		}
		if count += len(values); count > http1.MaxFields {
			return refuse(http.StatusRequestHeaderFieldsTooLarge, core.ReasonHeaderTooLarge, "a request has at most 200 fields")
		}
	}
	return nil
}

// checkTrailers looks at what is announced to come behind the body; what is not announced
// is left out.
func checkTrailers(announced http.Header) error {
	if len(announced) > http1.MaxTrailers {
		return http1.ErrTrailers
	}
	for name := range announced {
		if !http1.Follows(name) {
			return http1.ErrTrailer
		}
	}
	return nil
}

func checkValue(v string) error {
	if v == "" {
		return nil
	}
	if first, last := v[0], v[len(v)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return bad("a field value does not start or end with white space")
	}
	if !utf8.ValidString(v) {
		return bad("a field value is UTF-8")
	}
	return nil
}

// hiddenFraming reports whether name is a field of meaning to a peer that reads it as a
// variable.
func hiddenFraming(name string) bool {
	read := http1.AsVariable(name)
	if read == name {
		return false
	}
	switch strings.ToLower(read) {
	case "content-length", "transfer-encoding", "proxy-authorization", "proxy-connection", "keep-alive", "host", "connection", "upgrade":
		return true
	default:
		return false
	}
}

// checkLength: the library compares a declared length with the DATA frames, but takes
// the first of several, takes zero for one it cannot read, and compares nothing when
// the stream ends with its fields.
func checkLength(r *http.Request) error {
	values, ok := r.Header["Content-Length"]
	if !ok {
		return nil
	}
	if len(values) != 1 {
		return bad("there is one Content-Length at most")
	}
	for i := range len(values[0]) {
		if c := values[0][i]; c < '0' || c > '9' {
			return bad("Content-Length is a number")
		}
	}
	n, err := strconv.ParseInt(values[0], 10, 63)
	if err != nil || n != r.ContentLength {
		return bad("Content-Length is the length of the body")
	}
	return nil
}

// isToken is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
