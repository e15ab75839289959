package graphql

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
	"github.com/splitpod/splitpod/pkg/core"
)

func op(kind, name string, fields ...string) decide.Operation {
	return decide.Operation{Type: kind, Name: name, Fields: fields}
}

// expectRefusal fails unless err is a refusal with the given detail in it.
func expectRefusal(t *testing.T, err error, status int, detail string) {
	t.Helper()
	e, ok := errors.AsType[*content.Error](err)
	if !ok || e.Status != status || e.Reason != core.ReasonInvalidGraphQL || !strings.Contains(e.Detail, detail) {
		t.Fatalf("got %v, want a refusal with %q", err, detail)
	}
}

const two = `query Read { viewer } mutation Write { deleteRepo }`

var documents = []struct {
	name, text, operationName string
	want                      decide.Operation
	detail                    string // of a refusal
}{
	{"shorthand", `{ viewer { login } }`, "", op("query", "", "viewer"), ""},
	{"a named query", `query Q($a: [Int!]! = 1 @d) @dir { a(x: {y: [1, $a]}) b }`, "", op("query", "Q", "a", "b"), ""},
	{"a mutation", `mutation { deleteRepo(id: 1) { id } }`, "", op("mutation", "", "deleteRepo"), ""},
	{"a subscription", `subscription S { events }`, "", op("subscription", "S", "events"), ""},
	{"an alias does not hide the field", `{ viewer: deleteRepo }`, "", op("query", "", "deleteRepo"), ""},
	{"two aliases of one field", `{ a: x b: x x }`, "", op("query", "", "x"), ""},
	{"fields below the root are not the root's", `{ a { secret } }`, "", op("query", "", "a"), ""},
	{"an inline fragment", `{ a ... on Query { b ... { c } } }`, "", op("query", "", "a", "b", "c"), ""},
	{"a spread", `{ ...F } fragment F on Query { secret }`, "", op("query", "", "secret"), ""},
	{"spreads in spreads", `{ ...A } fragment A on Query { a ...B } fragment B on Query { b }`, "", op("query", "", "a", "b"), ""},
	{"one spread twice", `{ ...A ...A ...B } fragment A on Q { a } fragment B on Q { ...A b }`, "", op("query", "", "a", "b"), ""},
	{"a fragment that nobody spreads", `{ a } fragment F on Query { secret }`, "", op("query", "", "a"), ""},
	{"include does not hide a field", `{ a @include(if: false) ...F @skip(if: true) ... @include(if: $x) { c } } fragment F on Q { b }`, "",
		op("query", "", "a", "b", "c"), ""},
	{"introspection is fields", `{ __schema { types { name } } __typename }`, "", op("query", "", "__schema", "__typename"), ""},
	{"the first of two", two, "Read", op("query", "Read", "viewer"), ""},
	{"the second of two", two, "Write", op("mutation", "Write", "deleteRepo"), ""},
	{"the only one, by its name", `query A { a }`, "A", op("query", "A", "a"), ""},
	{"a comment hides what it hides", "{ a # } mutation { b }\n c }", "", op("query", "", "a", "c"), ""},
	{"CR ends a comment", "{ a # x\r b }", "", op("query", "", "a", "b"), ""},
	{"a text hides what it hides", `{ a(x: "} b {", y: "\"} c {") }`, "", op("query", "", "a"), ""},
	{"a block hides what it hides", `{ a(x: """ "} b { "" \""" } c { """) }`, "", op("query", "", "a"), ""},
	{"an empty block", `{ a(x: """""") b }`, "", op("query", "", "a", "b"), ""},
	{"separators of lines in a text", "{ a(x: \"\u2028\") }", "", op("query", "", "a"), ""},
	{"keywords are names too", `query query { query fragment on mutation }`, "", op("query", "query", "query", "fragment", "on", "mutation"), ""},
	{"commas are white space", `,,{,a,,b,},`, "", op("query", "", "a", "b"), ""},

	{"nothing", "", "", op("", ""), "contains an operation"},
	{"only a fragment", `fragment F on Q { a }`, "", op("", ""), "contains an operation"},
	{"one of several is not selected", two, "", op("", ""), "operationName selects"},
	{"an unknown name", two, "Other", op("", ""), "names an operation"},
	{"another case of a name", two, "read", op("", ""), "names an operation"},
	{"a name for the only one, which has another", `query A { a }`, "B", op("", ""), "names an operation"},
	{"a name for the only one, which has none", `{ a }`, "B", op("", ""), "names an operation"},
	{"one without a name among others", `{ a } query B { b }`, "B", op("", ""), "alone"},
	{"one name twice", `query A { a } mutation A { b }`, "A", op("", ""), "stands once"},
	{"one fragment twice", `{ ...F } fragment F on Q { a } fragment F on Q { secret }`, "", op("", ""), "stands once"},
	{"an unknown fragment", `{ ...F }`, "", op("", ""), "is in the document"},
	{"a fragment in itself", `{ ...F } fragment F on Q { a ...F }`, "", op("", ""), "contain itself"},
	{"fragments in each other", `{ ...A } fragment A on Q { ...B } fragment B on Q { x ... { ...A } }`, "", op("", ""), "contain itself"},
	{"an empty selection", `{ }`, "", op("", ""), "syntax error in line 1"},
	{"no end", `{ a`, "", op("", ""), "syntax error"},
	{"something behind", `{ a } }`, "", op("", ""), "syntax error"},
	{"a definition of a type", `{ a } type T { x: Int }`, "", op("", ""), "syntax error"},
	{"a description", `"""d""" query { a }`, "", op("", ""), "syntax error"},
	{"letters that are not ASCII", "{ \u0430 }", "", op("", ""), "ASCII outside"},
	{"a byte order mark", "\ufeff{ a }", "", op("", ""), "ASCII outside"},
	{"a byte order mark inside", "{ a \ufeff b }", "", op("", ""), "ASCII outside"},
	{"a no-break space", "{ a\u00a0b }", "", op("", ""), "ASCII outside"},
	{"a control character", "{ a \x00 b }", "", op("", ""), "ASCII outside"},
	{"a line separator in a comment", "{ a # \u2028 secret\n }", "", op("", ""), "CR and LF"},
	{"a paragraph separator in a comment", "{ a # \u2029 secret\n }", "", op("", ""), "CR and LF"},
	{"four quotation marks behind a block", `{ a(x: """y"""") secret(z: """") }`, "", op("", ""), "exactly three"},
	{"five quotation marks behind a block", `{ a(x: """y""""") }`, "", op("", ""), "exactly three"},
	{"seven quotation marks", `{ a(x: """"""") }`, "", op("", ""), "exactly three"},
	{"a block without end", `{ a(x: """ "" }`, "", op("", ""), "three quotation marks"},
	{"a text without end", `{ a(x: "b\") }`, "", op("", ""), "ends with a quotation mark"},
	{"a text over two lines", "{ a(x: \"b\n\") }", "", op("", ""), "in its line"},
}

func TestDocumentsSayWhatTheyExecute(t *testing.T) {
	for _, tt := range documents {
		t.Run(tt.name, func(t *testing.T) {
			got, err := operation(tt.text, tt.operationName)
			if tt.detail != "" {
				expectRefusal(t, err, 400, tt.detail)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// chain is n fragments, each of which spreads the next.
func chain(n int) string {
	var b strings.Builder
	b.WriteString("{...f0}")
	for i := range n {
		fmt.Fprintf(&b, " fragment f%d on Q{x%d ...f%d}", i, i, i+1)
	}
	fmt.Fprintf(&b, " fragment f%d on Q{end}", n)
	return b.String()
}

func TestLimitsOfADocument(t *testing.T) {
	braces := func(n int) string { return strings.Repeat("{a", n) + strings.Repeat("}", n) }
	lists := func(n int) string { return "{a(x:" + strings.Repeat("[", n) + strings.Repeat("]", n) + ")}" }
	types := func(n int) string {
		return "query(" + "$a:" + strings.Repeat("[", n) + "Int" + strings.Repeat("]", n) + "){a}"
	}
	for _, tt := range []struct{ name, text, detail string }{
		{"depth at its limit", braces(MaxDepth), ""},
		{"depth behind its limit", braces(MaxDepth + 1), "128 deep"},
		{"depth of values at its limit", lists(MaxDepth - 2), ""},
		{"depth of values behind its limit", lists(MaxDepth - 1), "128 deep"},
		{"depth of types at its limit", types(MaxDepth - 1), ""},
		{"depth of types behind its limit", types(MaxDepth), "128 deep"},
		{"a tower", strings.Repeat("{a", 1<<20), "128 deep"},
		{"tokens at their limit", "{" + strings.Repeat("a ", MaxTokens-2) + "}", ""},
		{"tokens behind their limit", "{" + strings.Repeat("a ", MaxTokens-1) + "}", "20000 tokens"},
		{"aliases at their limit", "{" + strings.Repeat("a:b ", (MaxTokens-2)/3) + "}", ""},
		{"aliases behind their limit", "{" + strings.Repeat("a:b ", MaxTokens/3+1) + "}", "20000 tokens"},
		{"comments count", "{a" + strings.Repeat("#\n", MaxTokens-3) + "}", ""},
		{"comments count behind their limit", "{a" + strings.Repeat("#\n", MaxTokens-2) + "}", "20000 tokens"},
		{"a chain of fragments", chain(2000), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := operation(tt.text, "")
			if tt.detail != "" {
				expectRefusal(t, err, 400, tt.detail)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestManyFieldsAreAllFoundOnce(t *testing.T) {
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, " f%d", i%1000)
	}
	got, err := operation("{"+b.String()+"}", "")
	if err != nil || len(got.Fields) != 1000 || got.Fields[999] != "f999" {
		t.Errorf("got %d fields, %v", len(got.Fields), err)
	}
}

func BenchmarkRead(b *testing.B) {
	h := post("")
	body := []byte(`{"query":"query Repo($n: String!) { repository(name: $n) { id issues(first: 10) { nodes { title } } } }",` +
		`"operationName":"Repo","variables":{"n":"splitpod"}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(h, body); err != nil {
			b.Fatal(err)
		}
	}
}
