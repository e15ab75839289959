package propose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// matchers are the rules that allow what was sampled, each once, by method and path.
// What no rule can say is left out.
func matchers(samples []aggregate.Sample) []policy.Matcher {
	var out []policy.Matcher
	for _, s := range samples {
		m, ok := matcher(s.Method, s.Path)
		if ok && !slices.ContainsFunc(out, func(have policy.Matcher) bool { return have.Method == m.Method && have.Path == m.Path }) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b policy.Matcher) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return out
}

// matcher is the rule that allows a request and its like; false if there is none. A
// path with an escaped slash is left to people.
func matcher(method, path string) (policy.Matcher, bool) {
	path, _, _ = strings.Cut(path, "?")
	if strings.Contains(strings.ToUpper(path), "%2F") {
		return policy.Matcher{}, false
	}
	return MatcherWithSlash(method, path)
}

// MatcherWithSlash is matcher for an endpoint that allows escaped slashes.
func MatcherWithSlash(method, path string) (policy.Matcher, bool) {
	path, _, _ = strings.Cut(path, "?")
	m := policy.Matcher{Method: strings.ToUpper(method), Path: Generalise(path)}
	if m.Method == "" || len(m.Method) > 32 || strings.Trim(m.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "" || !canonical(path) {
		return m, false
	}
	_, err := glob.Compile(m.Path, '/')
	return m, err == nil
}

// canonical reports whether a path is in the one spelling that rules are compared with:
// no other can be in a rule, and one bad path shall not cost the others theirs.
func canonical(path string) bool {
	path = strings.ReplaceAll(path, HiddenCredential, "x")
	for i := range len(path) {
		c := path[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/-._~!$&'()*+,=:@%", c) >= 0) {
			return false
		}
	}
	dots := strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../")
	return strings.HasPrefix(path, "/") && !strings.Contains(path, "//") && !dots
}

// Generalise makes a pattern of a request path: what looks like an identifier or a
// secret becomes a star for its segment, everything else stands for itself.
func Generalise(path string) string {
	path, _, _ = strings.Cut(path, "?")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if identifier(s) {
			segments[i] = "*"
		} else {
			segments[i] = Literal(s)
		}
	}
	return strings.Join(segments, "/")
}

// HiddenCredential is what a placeholder in a path is recorded as.
const HiddenCredential = "[CREDENTIAL]"

// identifier reports whether a segment names one thing of many: a number, a UUID, a
// hash, a token.
func identifier(s string) bool {
	digits, hexes, letters := 0, 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
			hexes++
		case c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			hexes++
			letters++
		case c >= 'g' && c <= 'z', c >= 'G' && c <= 'Z':
			letters++
		}
	}
	switch n := len(s); {
	case strings.Contains(s, HiddenCredential):
		return true
	case n >= 2 && digits == n:
		return true
	case strings.Contains(s, "-") && hexes >= 24:
		return true
	case n >= 16 && hexes == n:
		return true
	default:
		return n >= 32 && digits >= 4 && letters >= 4
	}
}

// special are the characters that mean something in a pattern.
const special = `*?[]{}\`

// LiteralBinary is Literal for a program, whose path is a pattern only with a star.
func LiteralBinary(s string) string {
	if !strings.Contains(s, "*") {
		return s
	}
	return Literal(s)
}

// Literal is a pattern that a text, and nothing else, matches.
func Literal(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
