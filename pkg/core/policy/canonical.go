package policy

import (
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// checkCanonical refuses what no canonical path contains. Rules are compared with
// canonical paths, so such a pattern would never match, and one that denies would let
// through what it names. Characters in brackets are left alone.
func checkCanonical(v strictyaml.Value, s string, encodedSlash bool) {
	if strings.Contains(literalBrackets.Replace(s), "[") {
		return
	}
	text := redacted.Replace(s)
	for i, c := range text {
		brace := (c == '{' || c == '}') && i > 0 && text[i-1] == '\\'
		if c <= ' ' || c >= 0x7f || strings.ContainsRune("\"<>#;^`|[]", c) || brace {
			v.Fail("%s would never match, no path has a %q; write it as an escape, such as %%20 for a space", strictyaml.Quoted(s), text[i:i+len(string(c))])
			return
		}
	}
	switch {
	case strings.Contains(s, "//"):
		v.Fail("%s would never match, double slashes are one slash; write one", strictyaml.Quoted(s))
	case strings.Contains(s+"/", "/./") || strings.Contains(s+"/", "/../"):
		v.Fail("%s would never match, dots are resolved before rules are read; write the path without them", strictyaml.Quoted(s))
	case strings.Contains(s, "?") && strings.Contains(s, "="):
		v.Warn("? is any one character of the path, which does not include the query; write query")
	}
	checkEscapes(v, s, encodedSlash)
}

// literalBrackets takes out the brackets of a pattern that mean themselves.
var literalBrackets = strings.NewReplacer(`\[`, "", "[[]", "")

// redacted takes out what rules see of a placeholder in a path. Nobody else can write it
// there: brackets that are sent are escaped.
var redacted = strings.NewReplacer(`\[CREDENTIAL\]`, "", `\[CREDENTIAL]`, "", `[[]CREDENTIAL\]`, "", "[[]CREDENTIAL]", "")

// checkEscapes refuses percent escapes that a path is never spelt with.
func checkEscapes(v strictyaml.Value, s string, encodedSlash bool) {
	for i := 0; i+2 < len(s); i++ {
		if s[i] != '%' || !hexDigit(s[i+1]) || !hexDigit(s[i+2]) {
			continue
		}
		escape := s[i : i+3]
		c := unhex(s[i+1])<<4 | unhex(s[i+2])
		switch {
		case escape != strings.ToUpper(escape):
			v.Fail("%s would never match, escapes are in upper case; write %s", strictyaml.Quoted(s), strings.ToUpper(escape))
			return
		case c == '/' && !encodedSlash:
			v.Fail("%s would never match, paths with %%2F are refused; write allow_encoded_slash: true as well", strictyaml.Quoted(s))
			return
		case plainInPath(c):
			v.Fail("%s would never match, %s is spelt %c; write that", strictyaml.Quoted(s), escape, c)
			return
		}
	}
}

func hexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// plainInPath reports whether a character is never escaped in a path (RFC 3986,
// section 3.3). A semicolon is: without its escape it begins a parameter.
func plainInPath(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,=:@", c) >= 0
}

// checkInScope refuses the path of a rule that the endpoint's own path leaves out.
func (mr matcherReader) checkInScope() {
	v, ok := mr.Fields["path"]
	scope := glob.CompileScope(mr.e.PathScope)
	if !ok || scope.Err() != nil || scope.Meets(mr.m.Path) {
		return
	}
	v.Fail("%s would never match, the endpoint takes %s only; make them fit", strictyaml.Quoted(mr.m.Path), strictyaml.Quoted(mr.e.PathScope))
}
