package websocket

import (
	"errors"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// extension is one entry of Sec-WebSocket-Extensions, RFC 6455 section 9.1.
type extension struct {
	name   string
	params []param
}

type param struct {
	name, value string
	valued      bool
}

// The names of RFC 7692 section 7. Names are compared without case, as other fields'
// tokens are; in writing they have this one.
const (
	deflateName      = "permessage-deflate"
	clientNoTakeover = "client_no_context_takeover"
	serverNoTakeover = "server_no_context_takeover"
	serverWindowBits = "server_max_window_bits"
	clientWindowBits = "client_max_window_bits"
)

const maxExtensions = 32 // entries, and parameters of one

var (
	errExtensions = errors.New("Sec-WebSocket-Extensions is not a list of extensions with their parameters")
	errProtocols  = errors.New("Sec-WebSocket-Protocol is not a list of different tokens")
)

// String is the entry in writing.
func (e *extension) String() string {
	var b strings.Builder
	b.WriteString(e.name)
	for _, p := range e.params {
		b.WriteString("; " + p.name)
		if p.valued {
			b.WriteString("=" + p.value)
		}
	}
	return b.String()
}

func (e *extension) has(name string) bool {
	return slices.ContainsFunc(e.params, func(p param) bool { return p.name == name })
}

// parseExtensions reads a list; the empty text is an empty one. A value in quotes must
// be a token, and so needs none.
func parseExtensions(text string) ([]extension, error) {
	if text == "" {
		return nil, nil
	}
	var out []extension
	for entry := range strings.SplitSeq(text, ",") {
		e, err := parseExtension(entry)
		if err != nil || len(out) == maxExtensions {
			return nil, errExtensions
		}
		out = append(out, e)
	}
	return out, nil
}

func parseExtension(entry string) (extension, error) {
	name, params, more := strings.Cut(entry, ";")
	e := extension{name: strings.ToLower(trim(name))}
	if !isToken(e.name) {
		return e, errExtensions
	}
	for more {
		var one string
		one, params, more = strings.Cut(params, ";")
		name, value, valued := strings.Cut(one, "=")
		p := param{strings.ToLower(trim(name)), unquote(trim(value)), valued}
		if !isToken(p.name) || valued && !isToken(p.value) || len(e.params) == maxExtensions {
			return e, errExtensions
		}
		e.params = append(e.params, p)
	}
	return e, nil
}

func unquote(s string) string {
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// reduce returns what is offered to the origin when frames are parsed: the first
// permessage-deflate of a client that will compress each message by itself, without
// any window size. An entry that demands a window of the server cannot be reduced.
func reduce(offers []extension) *extension {
	for i := range offers {
		if o := &offers[i]; o.name == deflateName && reducible(o) {
			out := &extension{name: deflateName, params: []param{{name: clientNoTakeover}}}
			if o.has(serverNoTakeover) {
				out.params = append(out.params, param{name: serverNoTakeover})
			}
			return out
		}
	}
	return nil
}

func reducible(o *extension) bool {
	for i, p := range o.params {
		for _, earlier := range o.params[:i] {
			if earlier.name == p.name {
				return false
			}
		}
		switch p.name {
		case clientNoTakeover, serverNoTakeover:
			if p.valued {
				return false
			}
		case clientWindowBits: // a hint of what the client can do, which nobody has to use
			if p.valued && !windowBits(p.value) {
				return false
			}
		default:
			return false
		}
	}
	return o.has(clientNoTakeover)
}

// windowBits are 8 to 15, without a leading zero.
func windowBits(s string) bool {
	return len(s) == 1 && (s[0] == '8' || s[0] == '9') || len(s) == 2 && s[0] == '1' && s[1] >= '0' && s[1] <= '5'
}

// accepted checks the origin's choice against the reduced offer and returns what the
// client is told: always that it compresses each message by itself, which it offered.
func accepted(offer *extension, chosen []extension) (*extension, error) {
	if offer == nil || len(chosen) != 1 || chosen[0].name != deflateName {
		return nil, wrong("the origin chose an extension that was not offered")
	}
	answer := &extension{name: deflateName, params: []param{{name: clientNoTakeover}}}
	seen := make(map[string]bool)
	for _, p := range chosen[0].params {
		switch {
		case seen[p.name]:
			return nil, wrong("the origin gives a parameter of permessage-deflate twice")
		case p.name == clientNoTakeover && !p.valued:
		case p.name == serverNoTakeover && !p.valued, p.name == serverWindowBits && p.valued && windowBits(p.value):
			answer.params = append(answer.params, p)
		default: // client_max_window_bits is one of these: it was not offered
			return nil, wrong("the origin gives permessage-deflate a parameter that it cannot have here")
		}
		seen[p.name] = true
	}
	if offer.has(serverNoTakeover) && !seen[serverNoTakeover] {
		return nil, wrong("the origin does not keep to server_no_context_takeover")
	}
	return answer, nil
}

// onlyOffered checks names alone: whoever does not parse the frames need not
// understand the parameters.
func onlyOffered(chosen, offered []extension) error {
	for _, c := range chosen {
		if !slices.ContainsFunc(offered, func(o extension) bool { return o.name == c.name }) {
			return wrong("the origin chose an extension that was not offered")
		}
	}
	return nil
}

// readProtocols reads the subprotocols, whose case counts. They are tokens, but for the
// slash in those of Kubernetes: kubectl port-forward asks for SPDY/3.1+portforward.k8s.io.
func readProtocols(f http1.Fields) ([]string, error) {
	var out []string
	for _, v := range values(f, "Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(v, ",") {
			if p = trim(p); !isToken(strings.ReplaceAll(p, "/", "")) || slices.Contains(out, p) || len(out) == maxExtensions {
				return nil, errProtocols
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// values returns the values of all fields of a name.
func values(f http1.Fields, name string) []string {
	var out []string
	for i := range f {
		if f[i].Is(name) {
			out = append(out, f[i].Value)
		}
	}
	return out
}

// lists reports whether a list field has the token, which is lower-case.
func lists(f http1.Fields, name, token string) bool {
	for _, v := range values(f, name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(trim(t), token) {
				return true
			}
		}
	}
	return false
}

func trim(s string) string { return strings.Trim(s, " \t") }

// isToken is RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
