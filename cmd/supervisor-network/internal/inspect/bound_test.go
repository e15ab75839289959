package inspect

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// maxFactor is how many bytes are allocated for one byte of a body, at most. Most of
// it is the tree that the GraphQL parser builds.
const maxFactor = 200

// TestMemoryIsBoundedByTheBody tries the bodies that cost most for their size.
func TestMemoryIsBoundedByTheBody(t *testing.T) {
	const size = 64 << 10
	graphQL, mcp := graphQL, mcp
	graphQL.MaxBody, mcp.MaxBody = 2*size, 2*size
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	document := func(s string) string { return `{"query":"` + s + `"}` }
	var keys strings.Builder
	for i := range size / 12 {
		fmt.Fprintf(&keys, `"%d":"",`, i)
	}
	tokens := func(s string, n int) string { return strings.Repeat(s, 19990/n) }
	for name, c := range map[string]struct {
		e    decide.Endpoint
		body string
	}{
		"fields":            {graphQL, document("{" + tokens("a ", 1) + "}")},
		"aliases":           {graphQL, document("{" + tokens("a:b ", 3) + "}")},
		"inline fragments":  {graphQL, document("{" + tokens("...{a}", 4) + "}")},
		"comments":          {graphQL, document("{a" + tokens(`#\n`, 1) + "}")},
		"too many tokens":   {graphQL, document("{" + fill("a ") + "}")},
		"a batch":           {graphQL, "[" + strings.Repeat(`{"query":"{a}"},`, 99) + `{"query":"{a}"}]`},
		"params":            {mcp, `{"jsonrpc":"2.0","method":"x","params":{` + keys.String() + `"x":""}}`},
		"keys in arguments": {mcp, `{"jsonrpc":"2.0","method":"x","params":[{` + keys.String() + `"x":""}]}`},
		"arrays":            {mcp, `{"jsonrpc":"2.0","method":"x","params":[` + fill("[],") + `1]}`},
		"escapes":           {mcp, `{"jsonrpc":"2.0","method":"` + fill(`\n`) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := Fill(c.e, head("POST", asJSON), []byte(c.body), &decide.Request{})
			runtime.ReadMemStats(&after)
			if (err != nil) != (name == "too many tokens") {
				t.Fatal(err)
			}
			used := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d bytes for %d, factor %d", used, len(c.body), used/uint64(len(c.body)))
			if used > maxFactor*uint64(len(c.body)) {
				t.Errorf("%d bytes allocated for %d", used, len(c.body))
			}
		})
	}
}
