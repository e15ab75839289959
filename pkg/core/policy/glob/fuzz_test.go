package glob

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// slowA is the definition of a Pattern by translation: the crate turns a glob into
// a regular expression, and so does this, one recursive rule per line of its
// grammar, without any of the code under test.
type slowA struct {
	in    string // mapped
	pos   int
	depth int
	sep   bool
}

func mapSlow(s string, d byte) string {
	if d == 0 || d == '/' {
		return s
	}
	s = strings.ReplaceAll(s, "/", "\x00")
	return strings.ReplaceAll(s, string(d), "/"+string(d)+"/")
}

// latin writes every byte as the rune of that number, so that a regular
// expression over runes works byte by byte.
func latin(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

func quote(b byte) string { return fmt.Sprintf(`\x{%x}`, b) }

func (p *slowA) peek(i int) byte {
	if p.pos+i < 0 || p.pos+i >= len(p.in) {
		return 0xff // never valid here
	}
	return p.in[p.pos+i]
}

func (p *slowA) isSep(i int) bool { return p.sep && p.peek(i) == '/' }

// list reads up to the end of the pattern or of an alternative.
func (p *slowA) list() (parts []string, ok bool) {
	within := `[^/]`
	if !p.sep {
		within = `.`
	}
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		switch {
		case p.depth > 0 && (c == ',' || c == '}'):
			return parts, true
		case c == '}':
			return nil, false
		case c == '?':
			parts = append(parts, within)
			p.pos++
		case c == '\\':
			if p.pos+1 == len(p.in) {
				return nil, false
			}
			parts = append(parts, quote(p.in[p.pos+1]))
			p.pos += 2
		case c == '[':
			s, ok := p.bracket()
			if !ok {
				return nil, false
			}
			parts = append(parts, s)
		case c == '{':
			s, ok := p.brace()
			if !ok {
				return nil, false
			}
			parts = append(parts, s)
		case c == '*' && p.peek(1) == '*':
			parts = p.stars(parts, within)
		case c == '*':
			parts = append(parts, within+"*")
			p.pos++
		default:
			parts = append(parts, quote(c))
			p.pos++
		}
	}
	return parts, p.depth == 0
}

const (
	prefixRE = `(?:/?|.*/)`
	middleRE = `(?:/|/.*/)`
	suffixRE = `/.*`
)

func (p *slowA) stars(parts []string, within string) []string {
	end := p.pos+2 == len(p.in)
	if len(parts) == 0 {
		if end || p.isSep(2) {
			p.pos += 3
			return append(parts, prefixRE)
		}
		p.pos += 2
		return append(parts, within+"*")
	}
	last := parts[len(parts)-1]
	component := p.isSep(-1) && (last == quote('/') || last == prefixRE || last == middleRE)
	closes := end || p.depth > 0 && (p.peek(2) == ',' || p.peek(2) == '}')
	with := ""
	switch {
	case component && closes:
		with, p.pos = suffixRE, p.pos+2
	case component && p.isSep(2):
		with, p.pos = middleRE, p.pos+3
	default:
		p.pos += 2
		return append(parts, within+"*")
	}
	if last != prefixRE {
		parts[len(parts)-1] = with
	}
	return parts
}

func (p *slowA) brace() (string, bool) {
	p.pos++
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > MaxDepth {
		return "", false
	}
	var choices []string
	for {
		parts, ok := p.list()
		if !ok || p.pos >= len(p.in) {
			return "", false
		}
		if s := strings.Join(parts, ""); s != "" {
			choices = append(choices, s)
		}
		p.pos++
		if p.in[p.pos-1] == '}' {
			break
		}
	}
	if len(choices) == 0 {
		return "", true
	}
	return "(?:" + strings.Join(choices, "|") + ")", true
}

func (p *slowA) bracket() (string, bool) {
	rest := p.in[p.pos+1:]
	not := ""
	if rest != "" && (rest[0] == '!' || rest[0] == '^') {
		not, rest = "^", rest[1:]
	}
	if rest == "" {
		return "", false
	}
	n := strings.IndexByte(rest[1:], ']')
	if n < 0 {
		return "", false
	}
	body := rest[:n+1]
	p.pos = len(p.in) - len(rest) + n + 2
	type ends struct{ lo, hi byte }
	var set []ends
	pending := false
	for i := range len(body) {
		switch c := body[i]; {
		case c >= 0x80:
			return "", false
		case pending:
			if set[len(set)-1].hi = c; c < set[len(set)-1].lo {
				return "", false
			}
			pending = false
		case c == '-' && i > 0:
			pending = true
		default:
			set = append(set, ends{c, c})
		}
	}
	if pending {
		set = append(set, ends{'-', '-'})
	}
	var b strings.Builder
	for _, e := range set {
		b.WriteString(quote(e.lo) + "-" + quote(e.hi))
	}
	return "[" + not + b.String() + "]", true
}

// slowCompile returns nil for a pattern that is not valid.
func slowCompile(pattern string, d byte) *regexp.Regexp {
	if !utf8.ValidString(pattern) || strings.Contains(pattern, "\x00") || len(pattern) > MaxLength {
		return nil
	}
	p := &slowA{in: mapSlow(pattern, d), sep: d != 0}
	parts, ok := p.list()
	if !ok || p.pos < len(p.in) {
		return nil
	}
	re := strings.Join(parts, "")
	if len(parts) == 1 && parts[0] == prefixRE {
		re = ".*"
	}
	c, err := regexp.Compile(`(?s)\A(?:` + re + `)\z`)
	if err != nil {
		return nil
	}
	return c
}

func seedPatterns(add func(pattern, text string, delimiter byte)) int {
	n := 0
	for d, rows := range map[byte][]table{'.': append(hostTable, nameTable...), '/': pathTable, 0: pathTable} {
		for _, tt := range rows {
			for _, s := range append(tt.yes, tt.no...) {
				add(tt.pattern, s, d)
				n++
			}
		}
	}
	return n
}

func agreeA(t *testing.T, pattern, text string, delimiter byte) {
	t.Helper()
	p, err := Compile(pattern, delimiter)
	if err == errStates {
		return
	}
	slow := slowCompile(pattern, delimiter)
	if (err == nil) != (slow != nil) {
		t.Fatalf("Compile(%q, %q): %v, the reference says valid: %v", pattern, delimiter, err, slow != nil)
	}
	if err != nil {
		return
	}
	want := slow.MatchString(latin(mapSlow(text, delimiter)))
	if delimiter != 0 && strings.Contains(text, "\x00") {
		want = false
	}
	if got := p.Match(text); got != want {
		t.Fatalf("%q (delimiter %q) on %q: %v, the reference says %v", pattern, delimiter, text, got, want)
	}
	deny, err := CompileDeny(pattern, delimiter)
	if err == nil && want && !deny.Match(text) {
		t.Fatalf("%q denies less than it allows: %q", pattern, text)
	}
	if lit, ok := p.Literal(); ok && !strings.Contains(lit, "\x00") && !p.Match(lit) {
		t.Fatalf("%q does not match its own text %q", pattern, lit)
	}
}

func FuzzPattern(f *testing.F) {
	n := seedPatterns(func(p, s string, d byte) { f.Add(p, s, d) })
	if n < 100 {
		f.Fatalf("only %d seeds", n)
	}
	f.Add("{a,**/b}/**/{c/**,d}[!a-z]", "x/b/q/c/1", byte('/'))
	f.Add("{\\,**}", ",x", byte('/'))
	f.Add("**/**/a.**.{b,**.c}", "a..b", byte('.'))
	f.Fuzz(func(t *testing.T, pattern, text string, d byte) {
		if len(pattern) > 64 || len(text) > 256 {
			t.Skip()
		}
		agreeA(t, pattern, text, []byte{0, '.', '/'}[d%3])
	})
}

// TestPatternAgreesWithTheReference goes through every short text for patterns
// made of the pieces that interact.
func TestPatternAgreesWithTheReference(t *testing.T) {
	pieces := []string{"a", "/", ".", "*", "**", "?", "[!a]", "{a,/**}", "{**/a,}", "\\."}
	texts := []string{""}
	for _, p := range texts[:1] {
		texts = grow(p, "ab/.", 4, texts)
	}
	n := 0
	var build func(prefix string, left int)
	build = func(prefix string, left int) {
		for _, d := range []byte{0, '.', '/'} {
			slow := slowCompile(prefix, d)
			p, err := Compile(prefix, d)
			if (slow == nil) != (err != nil) {
				t.Fatalf("%q: %v", prefix, err)
			}
			for _, s := range texts {
				if n++; p.Match(s) != slow.MatchString(latin(mapSlow(s, d))) {
					t.Fatalf("%q (%q) on %q: %v", prefix, d, s, p.Match(s))
				}
			}
		}
		if left > 0 {
			for _, piece := range pieces {
				build(prefix+piece, left-1)
			}
		}
	}
	build("", 2)
	for _, p := range []string{"a/**/", "/**/a", "**/a/", "*.**.", "**.**"} {
		build(p, 1)
	}
	if n < 10000 {
		t.Fatalf("only %d comparisons", n)
	}
}

func grow(prefix, alphabet string, left int, out []string) []string {
	if left == 0 {
		return out
	}
	for _, c := range alphabet {
		out = append(out, prefix+string(c))
		out = grow(prefix+string(c), alphabet, left-1, out)
	}
	return out
}

// slowB is a Scope by plain recursion.
func slowB(pattern, path string) bool {
	if pattern == "" || pattern == "**" || pattern == "/**" || pattern == path {
		return true
	}
	if x, ok := strings.CutSuffix(pattern, "/**"); ok {
		return path == x || strings.HasPrefix(path, x+"/")
	}
	if !validB(pattern) {
		return false
	}
	return slowGlobB([]rune(pattern), []rune(path), true)
}

func validB(pattern string) bool {
	p := []rune(pattern)
	for i := 0; i < len(p); {
		switch p[i] {
		case '*':
			from := i
			for i < len(p) && p[i] == '*' {
				i++
			}
			if n := i - from; n > 2 || n == 2 && (from > 0 && p[from-1] != '/' || i < len(p) && p[i] != '/') {
				return false
			}
		case '[':
			n := classLen(p[i:])
			if n == 0 {
				return false
			}
			i += n
		default:
			i++
		}
	}
	return utf8.ValidString(pattern)
}

// classLen is the length of the class that p starts with, 0 if it has no end.
func classLen(p []rune) int {
	from := 2
	if len(p) > 1 && p[1] == '!' {
		from = 3
	}
	for i := from; i < len(p); i++ {
		if p[i] == ']' {
			return i + 1
		}
	}
	return 0
}

func slowGlobB(p, s []rune, start bool) bool {
	switch {
	case len(p) == 0:
		return len(s) == 0
	case len(p) >= 2 && p[0] == '*' && p[1] == '*':
		if len(p) == 2 {
			return true
		}
		for i := 0; i <= len(s); i++ {
			if (i == 0 || s[i-1] == '/') && slowGlobB(p[3:], s[i:], true) {
				return true
			}
		}
		return false
	case p[0] == '*':
		for i := 0; i <= len(s); i++ {
			if slowGlobB(p[1:], s[i:], false) {
				return true
			}
		}
		return false
	case len(s) == 0:
		return false
	case p[0] == '?':
		return slowGlobB(p[1:], s[1:], false)
	case p[0] == '[':
		n := classLen(p)
		return inClassB(p[1:n-1], s[0]) && slowGlobB(p[n:], s[1:], false)
	}
	return p[0] == s[0] && slowGlobB(p[1:], s[1:], false)
}

func inClassB(body []rune, r rune) bool {
	not := body[0] == '!'
	if not {
		body = body[1:]
	}
	for i := 0; i < len(body); {
		if i+2 < len(body) && body[i+1] == '-' {
			if body[i] <= r && r <= body[i+2] {
				return !not
			}
			i += 3
			continue
		}
		if body[i] == r {
			return !not
		}
		i++
	}
	return not
}

func FuzzScope(f *testing.F) {
	for _, tt := range scopeTable {
		for _, s := range append(tt.yes, tt.no...) {
			f.Add(tt.pattern, s, "/v1/*")
		}
	}
	f.Add("/a/**/**/b", "/a/x/b", "/a/[!x]*")
	f.Fuzz(func(t *testing.T, pattern, path, other string) {
		if len(pattern) > 24 || len(path) > 48 || len(other) > 24 {
			t.Skip()
		}
		s, o := CompileScope(pattern), CompileScope(other)
		got, want := s.Match(path), slowB(pattern, path)
		if got != want {
			t.Fatalf("%q on %q: %v, the reference says %v", pattern, path, got, want)
		}
		if got && o.Match(path) && !s.Overlaps(o) {
			t.Fatalf("%q and %q share %q but are said not to overlap", pattern, other, path)
		}
		if s.Overlaps(o) != o.Overlaps(s) {
			t.Fatalf("overlap of %q and %q is not symmetric", pattern, other)
		}
	})
}

// slowC is a Selector by plain recursion over labels.
func slowC(pattern, host string) bool {
	return labelsC(strings.Split(lower(pattern), "."), strings.Split(lower(host), "."))
}

func labelsC(p, h []string) bool {
	for _, l := range h {
		if l == "" {
			return false
		}
	}
	if len(p) == 0 || len(h) == 0 {
		return len(p) == len(h)
	}
	if p[0] == "**" {
		for n := 1; n <= len(h); n++ {
			if labelsC(p[1:], h[n:]) {
				return true
			}
		}
		return false
	}
	return labelC(p[0], h[0]) && labelsC(p[1:], h[1:])
}

func labelC(p, l string) bool {
	switch {
	case p == "":
		return l == ""
	case p[0] == '*':
		return labelC(p[1:], l) || l != "" && labelC(p, l[1:])
	}
	return l != "" && p[0] == l[0] && labelC(p[1:], l[1:])
}

func FuzzSelector(f *testing.F) {
	for _, tt := range selectorTable {
		for _, s := range append(tt.yes, tt.no...) {
			f.Add(tt.pattern, s, "*.example.com")
		}
	}
	f.Fuzz(func(t *testing.T, pattern, host, policyHost string) {
		if len(pattern) > 24 || len(host) > 48 || len(policyHost) > 32 {
			t.Skip()
		}
		s, err := CompileSelector(pattern)
		if err != nil {
			return
		}
		got := s.Match(host)
		if want := slowC(pattern, host); got != want {
			t.Fatalf("%q on %q: %v, the reference says %v", pattern, host, got, want)
		}
		h, err := CompileHost(policyHost)
		if err == nil && got && hostFits(policyHost, host) && !s.MayCover(h) {
			t.Fatalf("%q and %q share %q but are said not to", pattern, policyHost, host)
		}
	})
}

func FuzzHostsOverlap(f *testing.F) {
	f.Add("*.example.com", "**.example.com", "a.example.com")
	f.Add("a-*.example.com", "*-b.example.com", "a-b.example.com")
	f.Add("{a,b}*.c", "*[!x].c", "ab.c")
	f.Fuzz(func(t *testing.T, a, b, host string) {
		if len(a) > 32 || len(b) > 32 || len(host) > 64 {
			t.Skip()
		}
		if hostFits(a, host) && hostFits(b, host) && !hostsOverlap(a, b) {
			t.Fatalf("%q and %q share %q but are said not to overlap", a, b, host)
		}
		if h, err := CompileHost(a); err == nil && h.Match(host) != hostFits(a, host) {
			t.Fatalf("Host %q on %q is not %v", a, host, hostFits(a, host))
		}
		if hostsOverlap(a, b) != hostsOverlap(b, a) {
			t.Fatalf("overlap of %q and %q is not symmetric", a, b)
		}
	})
}

// hostFits is how a policy's host pattern is applied to a connection.
func hostFits(pattern, host string) bool {
	pattern, host = lower(pattern), lower(host)
	if !strings.Contains(pattern, "*") {
		return pattern == "" || pattern == host
	}
	p, err := Compile(pattern, '.')
	return err == nil && p.Match(host)
}
