package glob

import (
	"strings"
	"testing"
)

var scopeTable = []table{
	{"", words("", "/", "/a/b"), nil},
	{"**", words("", "/", "/a/b"), nil},
	{"/**", words("", "/", "/a/b"), nil},
	{"/graphql", words("/graphql"), words("/graphql/", "/graphqlx", "/Graphql", "/")},
	{"/v1/**", words("/v1", "/v1/", "/v1/a/b", "/v1/**"), words("/v1x", "/v", "/v2/a")},
	{"/repos/*/issues", words("/repos/x/issues", "/repos/a/b/issues", "/repos//issues"), words("/repos/issues", "/repos/x/issues/1")},
	{"/v1/*", words("/v1/a", "/v1/a/b", "/v1/"), words("/v1", "/v2/a")},
	{"/{a,b}", words("/{a,b}"), words("/a", "/b")},
	{"/v?/x", words("/v1/x", "/v//x", "/vé/x"), words("/v/x", "/v12/x")},
	{"/v[0-9]", words("/v7", "/v[0-9]"), words("/va", "/v77")},
	{"/v[!0-9]", words("/va", "/v/"), words("/v7")},
	{"/[]]", words("/]"), words("/")},
	{"/a/**/b", words("/a/b", "/a/x/y/b"), words("/a/xb", "/ab")},
	{"/v*/**", words("/v*", "/v*/x"), words("/v1", "/v1/x")},
	{"/a**", words("/a**"), words("/ab", "/a")},
	{"/a[", words("/a["), words("/a")},
	{"/***", words("/***"), words("/a")},
}

func TestScopeFollowsTheReferenceTable(t *testing.T) {
	for _, tt := range scopeTable {
		tt.check(t, CompileScope(tt.pattern).Match)
	}
}

func TestScopeSaysWhenItIsPlainText(t *testing.T) {
	for pattern, want := range map[string]string{
		"/a**":                               "at character 3: ** must be a whole path component; write * which crosses / as well",
		"/é/[":                               "at character 5: this [ is never closed; write [[] for the character itself",
		"/***":                               "at character 2: ** must be a whole path component; write * which crosses / as well",
		"/" + strings.Repeat("a", MaxLength): "at character 4097: a pattern may have 4096 bytes",
	} {
		if err := CompileScope(pattern).Err(); err == nil || err.Error() != want {
			t.Errorf("%.20q: %v, want %s", pattern, err, want)
		}
	}
	if err := CompileScope("/a/**/b").Err(); err != nil {
		t.Error(err)
	}
}

func TestSpecificityCountsWhatIsNotAStar(t *testing.T) {
	for pattern, want := range map[string]int{"": 0, "**": 0, "/**": 1, "/v1/**": 4, "/v1/a": 5, "/é*": 2} {
		if got := CompileScope(pattern).Specificity(); got != want {
			t.Errorf("%q: %d, want %d", pattern, got, want)
		}
	}
}

var selectorTable = []table{
	{"api.example.com", words("API.example.com", "api.example.com"), words("x.api.example.com", "api.example.com.", "api.example")},
	{"*.example.com", words("a.example.com"), words("a.b.example.com", "a.example.com.", ".example.com", "example.com")},
	{"**.example.com", words("a.b.example.com", "a.example.com"), words("example.com", ".example.com", "a..example.com")},
	{"api.**", words("api.example.com", "api.x"), words("api", "api.", "xapi.x")},
	{"a*.example.com", words("abc.example.com", "a.example.com"), words("ba.example.com", "a.b.example.com")},
	{"a.**.b", words("a.x.b", "a.x.y.b"), words("a.b", "a..b")},
	{"**", words("a", "a.b"), words("", ".", "a.")},
	{"*.Example.com", words("a.example.com"), words("a.example.org")},
}

func TestSelectorFollowsTheReferenceTable(t *testing.T) {
	for _, tt := range selectorTable {
		s, err := CompileSelector(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		tt.check(t, s.Match)
	}
}

func TestSelectorRefusesWhatNoHostCanBe(t *testing.T) {
	const letters = "only letters, digits, - and _ may stand here, with * for a part of a label and ** for labels"
	for pattern, want := range map[string]string{
		"":                             "at character 1: a label is empty; remove the extra dot",
		"a..b":                         "at character 3: a label is empty; remove the extra dot",
		"a.b.":                         "at character 5: a label is empty; remove the extra dot",
		"{a,b}.com":                    "at character 1: " + letters,
		"a b.com":                      "at character 2: " + letters,
		"bücher.com":                   "at character 2: " + letters,
		"a.b**.com":                    "at character 3: ** must be a whole label; write * for a part of one",
		"***.com":                      "at character 1: ** must be a whole label; write * for a part of one",
		strings.Repeat("a", maxHost+1): "at character 254: a host selector may have 253 characters",
	} {
		if _, err := CompileSelector(pattern); err == nil || err.Error() != want {
			t.Errorf("%.20q: %v, want %s", pattern, err, want)
		}
	}
	if _, err := CompileSelector(strings.Repeat("a", maxHost)); err != nil {
		t.Error(err)
	}
}

// hostsOverlap reports whether two host patterns overlap; invalid ones do.
func hostsOverlap(a, b string) bool {
	ha, errA := CompileHost(a)
	hb, errB := CompileHost(b)
	return errA != nil || errB != nil || ha.Overlaps(hb)
}

func TestHostsOverlap(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"api.example.com", "API.example.com", true},
		{"api.example.com", "www.example.com", false},
		{"*.example.com", "api.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "**.example.com", true},
		{"*.example.com", "*.example.org", false},
		{"a-*.example.com", "b-*.example.com", false},
		{"a-*.example.com", "*-b.example.com", true},
		{"*.a.example.com", "**.example.com", true},
		{"*.*.example.com", "*.example.com", false},
		{"*.s3.*.amazonaws.com", "x.*.eu.amazonaws.com", true},
		{"", "api.example.com", true},
		{"*.[a.example.com", "*.example.com", true},
	} {
		if hostsOverlap(tt.a, tt.b) != tt.want || hostsOverlap(tt.b, tt.a) != tt.want {
			t.Errorf("overlap of (%q, %q) is not %v", tt.a, tt.b, tt.want)
		}
	}
}

func TestScopesOverlap(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "/v1", true},
		{"/v1", "/v1", true},
		{"/v1", "/v2", false},
		{"/v1/**", "/v1", true},
		{"/v1/**", "/v1/x/**", true},
		{"/v1/**", "/v2/**", false},
		{"/v1/**", "/v1x/**", false},
		{"/*/a", "/b/*", true},
		{"/v[0-4]", "/v[5-9]", false},
		{"/v[0-5]", "/v[5-9]", true},
		{"/v[!0-5]", "/v[5-9]", true},
		{"/v[!0-9]", "/v?", true},
		{"/a/**/b", "/a/*c", false},
		{"/a/**/b", "/a/**", true},
	} {
		a, b := CompileScope(tt.a), CompileScope(tt.b)
		if a.Overlaps(b) != tt.want || b.Overlaps(a) != tt.want {
			t.Errorf("%q and %q: overlap is not %v", tt.a, tt.b, tt.want)
		}
	}
}

func TestSelectorMayCover(t *testing.T) {
	for _, tt := range []struct {
		selector, host string
		want           bool
	}{
		{"*.example.com", "api.example.com", true},
		{"*.example.com", "a.b.example.com", false},
		{"**.example.com", "*.b.example.com", true},
		{"*.example.com", "*.b.example.com", false},
		{"api.**", "*.example.com", true},
		{"api.example.com", "", true},
		{"api.example.com", "*.example.org", false},
	} {
		s, err := CompileSelector(tt.selector)
		if err != nil {
			t.Fatal(err)
		}
		h, err := CompileHost(tt.host)
		if err != nil {
			t.Fatal(err)
		}
		if s.MayCover(h) != tt.want {
			t.Errorf("%q may cover %q is not %v", tt.selector, tt.host, tt.want)
		}
	}
}

func TestMatchesSomePath(t *testing.T) {
	for pattern, want := range map[string]bool{
		"/": true, "/*": true, "**": true, "**/git": true, "{/a,b}": true, "[!x]a": true,
		"": false, "*": false, "git": false, "{a,b}/c": false, "a/**": false,
	} {
		if MatchesSomePath(pattern) != want {
			t.Errorf("MatchesSomePath(%q) is not %v", pattern, want)
		}
	}
}

func TestHostWithoutStarIsLiteral(t *testing.T) {
	for _, tt := range []table{
		{"API.example.com", words("api.example.com", "api.EXAMPLE.com"), words("api.example.com.", "xapi.example.com")},
		{"a?.example.com", words("a?.example.com"), words("ab.example.com")},
		{"*.Example.com", words("API.Example.COM"), words("example.com")},
		{"", words("", "a"), nil},
	} {
		h, err := CompileHost(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		tt.check(t, h.Match)
	}
	if _, err := CompileHost("*.[a"); err == nil {
		t.Error("an open class is accepted")
	}
	if new(Host).Match("") || new(Host).Overlaps(new(Host)) {
		t.Error("the zero Host matches")
	}
}

// A scope meets a pattern exactly if some path is in both: every short path is tried.
func TestScopeMeetsARulesPattern(t *testing.T) {
	scopes := []string{"", "/a", "/a/**", "/*", "/a/*", "/?", "/a*b", "/**/b", "/[ab]"}
	patterns := []string{"/a", "/b", "/a/*", "/a/**", "/**", "**", "/*/b", "/**/b", "/{a,b}", "/[!a]", "/a?b", "*", "/c"}
	var paths []string
	for level := []string{"/"}; len(level[0]) < 7; {
		paths = append(paths, level...)
		var next []string
		for _, p := range level {
			for _, c := range []string{"a", "b", "/"} {
				next = append(next, p+c)
			}
		}
		level = next
	}
	for _, scope := range scopes {
		s := CompileScope(scope)
		for _, pattern := range patterns {
			p, err := Compile(pattern, '/')
			if err != nil {
				t.Fatal(err)
			}
			want := false
			for _, path := range paths {
				want = want || s.Match(path) && p.Match(path)
			}
			got := s.Meets(pattern)
			if want && !got || !want && got && s.kind != scopeAny && pattern != "/[!a]" && pattern != "/c" {
				t.Errorf("%q and %q: %v, want %v", scope, pattern, got, want)
			}
		}
	}
	if !CompileScope("/é/*").Meets("/a") || !CompileScope("/a*").Meets("/[") {
		t.Error("what is not known is a no")
	}
}
