package glob

import (
	"errors"
	"strings"
	"testing"
)

// table is a pattern with texts that match it and texts that do not.
type table struct {
	pattern string
	yes, no []string
}

func words(s ...string) []string { return s }

var hostTable = []table{
	{"*.example.com", words("api.example.com", ".example.com"), words("example.com", "a.b.example.com", "api.example.com.", "evilexample.com", "api.Example.com")},
	{"**.example.com", words("api.example.com", "a.b.example.com", ".example.com"), words("example.com", "evilexample.com", "a.example.com.")},
	{"*-aiplatform.googleapis.com", words("us-central1-aiplatform.googleapis.com", "-aiplatform.googleapis.com"), words("a.b-aiplatform.googleapis.com", "aiplatform.googleapis.com")},
	{"*.s3.*.amazonaws.com", words("bucket.s3.us-east-1.amazonaws.com"), words("bucket.s3.amazonaws.com", "a.b.s3.x.amazonaws.com", "b.s3.x.y.amazonaws.com")},
	{"api.example.com", words("api.example.com"), words("apixexample.com", "api.example.co", "xapi.example.com")},
}

var pathTable = []table{
	{"/repos/*/issues", words("/repos/acme/issues", "/repos//issues"), words("/repos/acme/widgets/issues", "/repos/issues")},
	{"/repos/*", words("/repos/", "/repos/a"), words("/repos", "/repos/a/b")},
	{"/repos/**", words("/repos/", "/repos/a/b"), words("/repos", "/repository")},
	{"/**", words("/", "/a/b"), words("", "a")},
	{"/*", words("/", "/a"), words("/a/b", "")},
	{"*", words("", "a"), words("/a", "/")},
	{"**", words("", "/", "a", "/a/b", "a.b"), nil},
	{"/**/info/refs*", words("/o/r.git/info/refs", "/info/refs", "/info/refs?x"), words("info/refs", "/xinfo/refs", "/info/refs/x")},
	{"**/issues", words("/repos/a/issues", "issues", "/issues", "a/issues"), words("xissues", "/repos/xissues", "issues/a")},
	{"/a/**/b", words("/a/b", "/a/x/y/b", "/a//b"), words("/ab", "/a/xb", "/ax/b")},
	{"/a**", words("/abc", "/a"), words("/abc/d", "/a/")},
	{"/v?/x", words("/v1/x"), words("/v12/x", "/v//x", "/v/x")},
	{"/v?x", words("/vax"), words("/v/x", "/vx")},
	{"/v[0-9]/x", words("/v7/x"), words("/va/x", "/v77/x")},
	{"/v[!0]x", words("/vax", "/v/x"), words("/v0x", "/vx")},
	{"/v[^0]x", words("/vax"), words("/v0x")},
	{"/{a,b}/x", words("/a/x", "/b/x"), words("/c/x", "/a,b/x", "//x")},
	{"/Repos", words("/Repos"), words("/repos")},
	{"/usr/bin/*", words("/usr/bin/x"), words("/usr/bin/x/y", "/usr/bin")},
	{"/usr/**", words("/usr/bin/x/y"), words("/usr", "/usrx")},
	{"/opt/**/node", words("/opt/node", "/opt/a/b/node"), words("/opt/xnode", "/opt/a/nodes")},
	{"/sandbox/.vscode-server/**", words("/sandbox/.vscode-server/bin/x"), words("/sandbox/.vscode-server")},
	{`/a\*b`, words("/a*b"), words("/axb", `/a\*b`)},
	{`/a\{b`, words("/a{b"), words("/ab")},
	{"/x{a/**,b}", words("/xa/", "/xa/q/r", "/xb"), words("/xa", "/xc")},
	{"/x{**/a,b}", words("/xa", "/x/a", "/xq/a", "/xb"), words("/xqa")},
	{"/a{,.txt}", words("/a.txt"), words("/a")},
	{"/a{}b", words("/ab"), words("/a{}b")},
	{"/{a,{b,c}d}", words("/a", "/bd", "/cd"), words("/ad", "/b")},
	{"/a/**/**/b", words("/a/b", "/a/x/b"), words("/ab")},
	{"**/**", words("", "/", "a/b"), nil},
	{"/[]]", words("/]"), words("/[]]", "/")},
	{"/[a-]", words("/a", "/-"), words("/b")},
	{"/a,b", words("/a,b"), words("/a")},
	{"/é?", words("/éx"), words("/é", "/éé")},
}

var nameTable = []table{
	{"*", words("", "foo", "a/b"), words("a.b", ".")},
	{"**", words("", "a.b", "a/b", "..."), nil},
	{"foo-*", words("foo-bar", "foo-", "foo-a/b"), words("foo-a.b", "foo")},
	{"1.*", words("1.2", "1."), words("1.2.3", "1")},
	{"1.**", words("1.2.3", "1.2", "1."), words("1", "12")},
	{"a/*", words("a/b/c", "a/"), words("a/b.c", "a")},
	{"tools/*", words("tools/call"), words("tools/a.b", "tools")},
	{"fs.*", words("fs.read"), words("fs.read.all", "fsxread")},
	{"*", words("read_file"), words("fs.read")},
	{"delete*", words("delete_all"), words("delete.all")},
	{"a.**.b", words("a.x.b", "a.x.y.b", "a..b"), words("a.b", "axb")},
	{"a[!x]b", words("ayb", "a/b"), words("axb", "a.b")},
	{`a\.b`, words("a.b"), words("axb")},
}

func (tt table) check(t *testing.T, match func(string) bool) {
	t.Helper()
	for _, s := range tt.yes {
		if !match(s) {
			t.Errorf("%q does not match %q", tt.pattern, s)
		}
	}
	for _, s := range tt.no {
		if match(s) {
			t.Errorf("%q matches %q", tt.pattern, s)
		}
	}
}

func mustCompile(t testing.TB, pattern string, delimiter byte) *Pattern {
	t.Helper()
	p, err := Compile(pattern, delimiter)
	if err != nil {
		t.Fatalf("Compile(%q): %v", pattern, err)
	}
	return p
}

func TestPatternFollowsTheReferenceTables(t *testing.T) {
	for _, group := range []struct {
		name      string
		delimiter byte
		rows      []table
	}{{"hosts", '.', hostTable}, {"paths", '/', pathTable}, {"names", '.', nameTable}} {
		t.Run(group.name, func(t *testing.T) {
			for _, tt := range group.rows {
				tt.check(t, mustCompile(t, tt.pattern, group.delimiter).Match)
			}
		})
	}
}

func TestPatternWithoutDelimiterCrossesEverything(t *testing.T) {
	for _, tt := range []table{
		{"*", words("", "a.b", "/a", "a\x00b"), nil},
		{"delete*", words("delete_all", "delete.all", "delete/x"), words("xdelete")},
		{"a?b", words("a.b", "a/b"), words("ab")},
		{"**.x", words("a.x", "a/b.x"), words("x")},
	} {
		tt.check(t, mustCompile(t, tt.pattern, 0).Match)
	}
}

func TestDenyPatternIsNotEvadedByTheDelimiter(t *testing.T) {
	for _, tt := range []table{
		{"delete*", words("delete_all", "delete.all", "delete.all.now"), words("undelete")},
		{"fs.?", words("fs.a", "fs.."), words("fs", "fs.ab")},
		{"**.x", words("a.x", ".x", "a\x00.x"), words("x.y")},
	} {
		p, err := CompileDeny(tt.pattern, '.')
		if err != nil {
			t.Fatal(err)
		}
		tt.check(t, p.Match)
	}
}

func TestPatternNeverMatchesNUL(t *testing.T) {
	for _, p := range []string{"**", "*", "a*", "a?b", "[!x]"} {
		for _, d := range []byte{'.', '/'} {
			if c := mustCompile(t, p, d); c.Match("a\x00b") || c.Match("\x00") {
				t.Errorf("%q with %q matches a NUL", p, d)
			}
		}
	}
}

func TestPatternSyntaxErrorsNameThePlace(t *testing.T) {
	for _, tt := range []struct{ pattern, want string }{
		{"/a[", "at character 3: this [ is never closed; write [[] for the character itself"},
		{"/a[]", "at character 3: this [ is never closed; write [[] for the character itself"},
		{"/a{b", `at character 3: this { is never closed; write \{ for the character itself`},
		{"/a}b", `at character 3: this } closes nothing; write \} for the character itself`},
		{`/a\`, `at character 3: there is nothing after this \ to take literally`},
		{"/[z-a]", "at character 5: the range z-a is backwards"},
		{"/[é]", "at character 3: a class can hold ASCII only; write {…,…} instead"},
		{"/a\x00", "at character 3: a pattern cannot contain a NUL"},
		{"/\xff", "at character 1: the pattern is not valid UTF-8"},
		{strings.Repeat("{", MaxDepth+1) + strings.Repeat("}", MaxDepth+1), "at character 9: alternatives may be nested 8 deep"},
		{strings.Repeat("a", MaxLength+1), "at character 4097: a pattern may have 4096 bytes"},
	} {
		_, err := Compile(tt.pattern, '/')
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || err.Error() != tt.want {
			t.Errorf("Compile(%.20q) = %v, want %s", tt.pattern, err, tt.want)
		}
	}
}

func TestPatternLimits(t *testing.T) {
	if _, err := Compile(strings.Repeat("a", MaxLength), '/'); err != nil {
		t.Errorf("longest literal: %v", err)
	}
	nested := strings.Repeat("{", MaxDepth) + "a" + strings.Repeat("}", MaxDepth)
	if p := mustCompile(t, nested, '/'); !p.Match("a") {
		t.Error("deepest nesting does not match")
	}
	if _, err := Compile(strings.Repeat("?", maxStates), '/'); err != nil {
		t.Errorf("largest automaton: %v", err)
	}
	if _, err := Compile(strings.Repeat("?", maxStates+1), '/'); !errors.Is(err, errStates) {
		t.Errorf("too large an automaton: %v", err)
	}
	if _, err := Compile("{"+strings.Repeat("a,", 2000)+"}", '/'); !errors.Is(err, errStates) {
		t.Errorf("too many alternatives: %v", err)
	}
}

// TestPatternDoesNotBacktrack would not end with a backtracking matcher.
func TestPatternDoesNotBacktrack(t *testing.T) {
	text := strings.Repeat("a", 8192)
	for _, p := range []string{
		strings.Repeat("*a", 400) + "b",
		strings.Repeat("{a,aa,*}", 60) + "b",
		strings.Repeat("**/", 100) + "b",
		strings.Repeat("*?", 400) + "b",
	} {
		if mustCompile(t, p, '/').Match(text) {
			t.Errorf("%.20q matches", p)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	host := mustCompile(t, "*.s3.*.amazonaws.com", '.')
	deny, _ := CompileDeny("delete*", '.')
	scope := CompileScope("/v1/*/x")
	selector, _ := CompileSelector("*.example.com")
	if n := testing.AllocsPerRun(100, func() {
		host.Match("bucket.s3.us-east-1.amazonaws.com")
		deny.Match("delete.all")
		scope.Match("/v1/a/b/x")
		selector.Match("API.example.com")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestZeroValuesMatchNothing(t *testing.T) {
	for _, s := range []string{"", "a", "/"} {
		if new(Pattern).Match(s) || new(Scope).Match(s) || new(Selector).Match(s) {
			t.Errorf("a zero matcher matches %q", s)
		}
	}
}

func TestLiteralIsKnown(t *testing.T) {
	if s, ok := mustCompile(t, `/a\*.b`, '.').Literal(); !ok || s != "/a*.b" {
		t.Errorf("Literal = %q, %v", s, ok)
	}
	if _, ok := mustCompile(t, "/a*", '/').Literal(); ok {
		t.Error("a wildcard is literal")
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, bb := range []struct{ name, pattern, text string }{
		{"host", "*.s3.*.amazonaws.com", "bucket.s3.us-east-1.amazonaws.com"},
		{"literal", "api.example.com", "api.example.com"},
		{"miss", "api-*.example.com", "www.example.com"},
		{"subtree", "/usr/**", "/usr/lib/git-core/git-remote-https"},
	} {
		d := byte('/')
		if bb.pattern[0] != '/' {
			d = '.'
		}
		p := mustCompile(b, bb.pattern, d)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Match(bb.text)
			}
		})
	}
}
