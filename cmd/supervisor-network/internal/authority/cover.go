package authority

import (
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// covers reports whether everything that b grants is granted by g.
func (g *grant) covers(b atom) bool {
	return slices.Contains(g.endpoint.Ports, b.port) &&
		g.coversBinary(b.binary) &&
		coversHost(g, b.grant) &&
		coversAddresses(g.endpoint, b.endpoint) &&
		g.coversRequests(b.grant)
}

func (g *grant) coversBinary(binary string) bool {
	return slices.ContainsFunc(g.binaries, func(have string) bool { return coversBinary(have, binary) })
}

// coversBinary: without a star, a binary is plain text.
func coversBinary(have, want string) bool {
	switch {
	case have == want:
		return true
	case !strings.Contains(have, "*"):
		return false
	case !strings.Contains(want, "*"):
		return matches(have, want, '/')
	default:
		return coversPattern(have, want, '/')
	}
}

func matches(pattern, text string, delimiter byte) bool {
	p, err := glob.Compile(pattern, delimiter)
	return err == nil && p.Match(text)
}

// special are the characters that make a text a pattern.
const special = `*?[]{}\`

// coversPattern compares patterns as far as that is simple.
func coversPattern(have, want string, delimiter byte) bool {
	switch {
	case have == want, have == "**":
		return true
	case !strings.ContainsAny(want, special):
		return matches(have, want, delimiter)
	}
	if prefix, star := strings.CutSuffix(have, "*"); star && !strings.ContainsAny(prefix, special) && strings.HasPrefix(want, prefix) {
		// Behind the same text, a star takes whatever does not cross the delimiter.
		rest := want[len(prefix):]
		if strings.IndexByte(rest, delimiter) < 0 && !strings.Contains(rest, "**") && !strings.ContainsAny(rest, `[]{}\`) {
			return true
		}
	}
	prefix, tree := strings.CutSuffix(have, string(delimiter)+"**")
	return tree && !strings.ContainsAny(prefix, special) && strings.HasPrefix(want, prefix+string(delimiter)) &&
		!strings.ContainsAny(want[:len(prefix)+1], special)
}

func coversHost(g, b *grant) bool {
	have, want := g.endpoint.Host, b.endpoint.Host
	if have == "" || have == want {
		return true
	}
	if exact, ok := b.host.Exact(); ok {
		return g.host.Match(exact)
	}
	suffix, deep := strings.CutPrefix(have, "**.")
	return deep && !strings.Contains(suffix, "*") && strings.HasSuffix(want, "."+suffix)
}

func coversAddresses(have, want *policy.Endpoint) bool {
	switch h, w := addressesOf(have), addressesOf(want); {
	case h == listed && w == listed:
		for _, p := range prefixes(want) {
			inside := func(a policy.AllowedIP) bool { return a.Prefix.Bits() <= p.Bits() && a.Prefix.Contains(p.Addr()) }
			if !slices.ContainsFunc(have.AllowedIPs, inside) {
				return false
			}
		}
		return true
	case h == listed:
		return false
	case h == internal:
		return true
	default:
		return w == public
	}
}

func (g *grant) coversRequests(b *grant) bool {
	switch {
	case g.carried != judged:
		return g.carried >= b.carried
	case b.carried != judged || g.endpoint.Protocol != b.endpoint.Protocol || !coversScope(g.endpoint.PathScope, b.endpoint.PathScope):
		return false
	case g.endpoint.Protocol == policy.ProtocolREST && b.endpoint.AllowEncodedSlash && !g.endpoint.AllowEncodedSlash:
		return false
	case b.known:
		return g.known
	case g.known:
		return false // some of these methods may be unknown
	default:
		return coversMatcher(g.endpoint.Protocol, &g.what, &b.what)
	}
}

func coversScope(have, want string) bool {
	s := glob.CompileScope(have)
	if have == "" || have == "**" || have == "/**" || have == want {
		return true
	}
	if !strings.ContainsAny(want, "*?[") {
		return want != "" && s.Match(want)
	}
	prefix, tree := strings.CutSuffix(have, "/**")
	return tree && !strings.ContainsAny(prefix, "*?[") && strings.HasPrefix(want, prefix+"/")
}

func coversMatcher(p policy.Protocol, have, want *policy.Matcher) bool {
	switch {
	case have.OperationType != "" || want.OperationType != "":
		return have.OperationType != "" && want.OperationType != "" &&
			(have.OperationType == "*" || have.OperationType == want.OperationType) &&
			coversName(have.OperationName, want.OperationName) && coversFields(have.Fields, want.Fields)
	case p == policy.ProtocolMCP || p == policy.ProtocolJSONRPC:
		return coversCall(have, want)
	default:
		return coversMethod(have.Method, want.Method) && coversPattern(have.Path, want.Path, '/') && coversQuery(have.Query, want.Query)
	}
}

func coversMethod(have, want string) bool {
	return have == "*" || strings.EqualFold(have, want) || strings.EqualFold(have, "GET") && strings.EqualFold(want, "HEAD")
}

// coversName: no name is any name.
func coversName(have, want string) bool {
	return have == "" || want != "" && coversPattern(have, want, '.')
}

func coversFields(have, want []string) bool {
	if len(have) == 0 {
		return true
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h string) bool { return coversPattern(h, w, '.') }) {
			return false
		}
	}
	return len(want) > 0
}

// coversQuery: what a rule does not name may be anything.
func coversQuery(have, want map[string][]string) bool {
	for key, hs := range have {
		ws, ok := want[key]
		if !ok || !coversFields(hs, ws) {
			return false
		}
	}
	return true
}

func coversCall(have, want *policy.Matcher) bool {
	hm, hp := callOf(have)
	wm, wp := callOf(want)
	if hm != "*" && !coversPattern(hm, wm, '.') {
		return false
	}
	for key, h := range hp {
		if w, ok := wp[key]; !ok || !coversPattern(h, w, '.') {
			return false
		}
	}
	return true
}

// callOf is the method and parameters of a rule about calls, as decide reads it.
func callOf(m *policy.Matcher) (method string, params map[string]string) {
	method, params = m.Method, m.Params
	if m.Tool != "" {
		params = map[string]string{"name": m.Tool}
	}
	if method == "" {
		method = "tools/call"
	}
	return method, params
}
