package policy

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// wants parses a source and compares the problems, "" being none.
func wants(t *testing.T, source, want string) {
	t.Helper()
	if got := problemLines(t, source); got != want {
		t.Errorf("got  %.300s\nwant %.300s", got, want)
	}
}

func TestFileIsReadAsPlainVisibleUTF8(t *testing.T) {
	const ok = "version: 1\n"
	for _, tt := range []struct{ name, source, want string }{
		{"plain", ok, ""},
		{"windows line ends", "version: 1\r\nprocess: {}\r\n", ""},
		{"byte order mark in front", "\ufeffversion: 1\n", ""},
		{"byte order mark inside", "version: 1 # \ufeff\n", "1:14: there is an invisible character (U+FEFF) here; remove it\n"},
		{"NUL", ok + "a\x00", "2:2: there is a NUL here; remove it\n"},
		{"NUL as an escape", ok + `process: {run_as_user: "a\0"}`, "2:24: process.run_as_user: the text has an invisible character in it; remove it\n"},
		{"not UTF-8", ok + "# \xff", "2:3: the file is not UTF-8 here; save it as UTF-8\n"},
		{"UTF-16", "\xff\xfev\x00", "1:1: the file is not UTF-8 here; save it as UTF-8\n"},
		{"old Macintosh line ends", "version: 1\rprocess: {}\n", "1:11: there is a carriage return without a line feed here; end lines with a line feed\n"},
		{"next line", "version: 1 #\u0085\n", "1:13: there is an invisible character (U+0085) here; remove it\n"},
		{"line separator", "# \u2028\nversion: 1\n", "1:3: there is an invisible character (U+2028) here; remove it\n"},
		{"right to left override", "# \u202e\nversion: 1\n", "1:3: there is an invisible character (U+202E) here; remove it\n"},
		{"escape sequence", "# \x1b[2J\nversion: 1\n", "1:3: there is an invisible character (U+001B) here; remove it\n"},
	} {
		t.Run(tt.name, func(t *testing.T) { wants(t, tt.source, tt.want) })
	}
}

func TestLimitsHoldAtTheirEdge(t *testing.T) {
	pad := func(n int) string {
		const head = "version: 1\n#"
		return head + strings.Repeat("x", n-len(head))
	}
	wants(t, pad(strictyaml.MaxBytes), "")
	wants(t, pad(strictyaml.MaxBytes+1), "1:1: the file has more than 1048576 bytes\n")

	paths := func(n int) string {
		return "version: 1\nfilesystem_policy:\n  read_write: [/w]\n  read_only:\n" + strings.Repeat("  - /x\n", n-1)
	}
	wants(t, paths(MaxPaths), "")
	wants(t, paths(MaxPaths+1), "3:3: filesystem_policy: 257 paths are listed; 256 are allowed, name directories instead of what is in them\n")

	long := func(n int) string {
		return "version: 1\nfilesystem_policy: {read_only: [/" + strings.Repeat("x", n-1) + "]}\n"
	}
	wants(t, long(MaxPathLength), "")
	wants(t, long(MaxPathLength+1), "2:33: filesystem_policy.read_only[0]: the path has 4097 characters; 4096 are allowed\n")

	config := func(depth int) string {
		return "version: 1\nnetwork_middlewares: {a: {middleware: x, endpoints: {include: [a]}, config: {k: " +
			strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}}}\n"
	}
	wants(t, config(strictyaml.MaxDepth-3), "")
	wants(t, config(strictyaml.MaxDepth-2), "2:110: maps and lists may be nested 32 deep; this is deeper\n")

	size := func(n int) string {
		return "version: 1\nnetwork_middlewares: {a: {middleware: x, endpoints: {include: [a]}, config: {k: " +
			strings.Repeat("v", n-1) + "}}}\n"
	}
	wants(t, size(MaxConfigBytes), "")
	wants(t, size(MaxConfigBytes+1), "2:77: network_middlewares.a.config: the config has 65537 bytes; 65536 are allowed\n")
}

func TestProblemsAreCountedBeyondTheirLimit(t *testing.T) {
	source := func(n int) string {
		return "version: 1\nfilesystem_policy:\n  read_only:\n" + strings.Repeat("  - x\n", n)
	}
	count := func(n int) (int, string) {
		_, _, err := Parse("f", []byte(source(n)))
		lines := strings.Split(err.Error(), "\n")
		return len(lines), lines[len(lines)-1]
	}
	// One more problem says that there are too many paths.
	if n, _ := count(strictyaml.MaxProblems - 1); n != strictyaml.MaxProblems {
		t.Errorf("%d problems", n)
	}
	n, last := count(strictyaml.MaxProblems + 4)
	if n != strictyaml.MaxProblems+1 || !strings.HasSuffix(last, "5 more problems are not shown") {
		t.Errorf("%d problems, the last is %s", n, last)
	}
}

// TestBombsEnd would not end, or not in memory, if structure were followed before
// it is checked.
func TestBombsEnd(t *testing.T) {
	var aliases strings.Builder
	aliases.WriteString("version: 1\na0: &a0 [x]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&aliases, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	for name, source := range map[string]string{
		"aliases":       aliases.String(),
		"alias of self": "version: 1\nnetwork_policies: &a {x: *a}\n",
		"deep flow":     "version: 1\na: " + strings.Repeat("[", 900_000),
		"deep block":    "version: 1\na:\n " + strings.Repeat("- ", 500_000),
		"deep maps":     strings.Repeat("{a: ", 250_000),
		"many keys":     "version: 1\n" + strings.Repeat("k: 1\n", 200_000),
		"many comments": strings.Repeat("#\n", 500_000) + "version: 2\n",
		"long key":      "? " + strings.Repeat("k", 1_000_000) + "\n: 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			if len(source) > strictyaml.MaxBytes {
				t.Fatalf("the bomb has %d bytes and is refused for that", len(source))
			}
			if got := problemLines(t, source); got == "" {
				t.Error("no problem is reported")
			}
		})
	}
}

// TestManyEndpointsAreCompared fills a file with endpoints that all have to be
// compared with each other.
func TestManyEndpointsAreCompared(t *testing.T) {
	policy := func(n int, host string) string {
		var b strings.Builder
		b.WriteString("version: 1\nnetwork_policies: {r: {binaries: [{path: /x}], endpoints: [\n")
		for i := range n {
			tls := "''"
			if i%2 == 0 {
				tls = "skip"
			}
			fmt.Fprintf(&b, "{host: '"+host+"', port: 443, tls: %s},\n", i, tls)
		}
		return b.String() + "]}}\n"
	}
	const tooMany = "2:19: network_policies: there are too many endpoints with wildcards and different settings to compare them; use fewer wildcards on one port\n"
	wants(t, policy(1000, "*.h%d.example.com"), "")
	wants(t, policy(10_000, "h%d.example.com"), "")
	wants(t, policy(10_000, "*"+strings.Repeat("a", 30)+"*%d.*.*.*.*.*.example.com"), tooMany)
}

// TestAllProblemsAtOnce has one file with problems in every section.
func TestAllProblemsAtOnce(t *testing.T) {
	source, err := os.ReadFile("testdata/many.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, warnings, err := Parse("policies/many.yaml", source)
	if doc != nil || err == nil {
		t.Fatal("the file is accepted")
	}
	got := err.Error() + "\n" + strictyaml.Problems(warnings).Error() + "\n"
	if *update {
		write(t, "many.golden", []byte(got))
		return
	}
	want, err := os.ReadFile("testdata/many.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) || len(warnings) == 0 || strings.Count(got, "\n") < 20 {
		t.Errorf("got\n%s", got)
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	doc, _, err := Parse("f", []byte(`
version: 1
network_policies:
  r:
    binaries: [{path: /x}]
    endpoints: [{host: A.Example.com, port: 443, protocol: mcp, mcp: {allow_all_known_mcp_methods: true}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	e := doc.Network["r"].Endpoints[0]
	switch {
	case doc.Filesystem.Present || !doc.Filesystem.IncludeWorkdir || doc.Landlock.Compatibility != BestEffort:
		t.Errorf("static defaults are %+v %+v", doc.Filesystem, doc.Landlock)
	case doc.Network["r"].Name != "r" || e.Host != "a.example.com" || e.Enforce:
		t.Errorf("rule defaults are %+v", doc.Network["r"])
	case e.GraphQLMaxBodyBytes != 65536 || e.PersistedQueries != "deny" || e.JSONRPC != nil:
		t.Errorf("endpoint defaults are %+v", e)
	case *e.MCP != MCPOptions{MaxBodyBytes: 65536, StrictToolNames: true, AllowAllKnownMCPMethods: true}:
		t.Errorf("mcp defaults are %+v", *e.MCP)
	}
}

func TestMiddlewareConfigStaysOutOfMessages(t *testing.T) {
	const secret = "0b1101101"
	got := problemLines(t, "version: 1\nnetwork_middlewares: {a: {middleware: x, endpoints: {include: [a]}, config: {k: "+secret+"}}}\n")
	if got == "" || strings.Contains(got, secret) {
		t.Errorf("%s", got)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000, 5000} {
		var s strings.Builder
		s.WriteString("version: 1\nnetwork_policies:\n")
		for i := range n {
			fmt.Fprintf(&s, "  r%d:\n    binaries: [{path: /usr/bin/git}]\n    endpoints:\n      - {host: h%d.example.com, port: 443}\n", i, i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Parse("f", []byte(s.String())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
