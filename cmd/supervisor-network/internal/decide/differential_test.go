package decide

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// slow decides by walking the whole policy, without index, module or cache.
func slow(doc *policy.Document, who *core.Identity, host string, port uint16) (rules []string) {
	for name, r := range doc.Network {
		program := slices.ContainsFunc(r.Binaries, func(b policy.Binary) bool {
			return slices.ContainsFunc(append([]core.Program{who.Program}, who.Ancestors...), func(p core.Program) bool {
				if !strings.Contains(b.Path, "*") {
					return b.Path == p.Path
				}
				g, err := glob.Compile(b.Path, '/')
				return err == nil && g.Match(p.Path)
			})
		})
		endpoint := slices.ContainsFunc(r.Endpoints, func(e policy.Endpoint) bool {
			h, err := glob.CompileHost(e.Host)
			return err == nil && slices.Contains(e.Ports, port) && h.Match(host)
		})
		if program && endpoint {
			rules = append(rules, name)
		}
	}
	slices.Sort(rules)
	return rules
}

var (
	labels   = []string{"a", "b", "api", "x-y", "com", "org", "*", "**", "a*", "*b", "a*b"}
	tails    = []string{".b.com", ".com", ".a.org"}
	programs = []string{"/bin/a", "/bin/b", "/usr/bin/a", "/usr/bin/a/c", "/usr/**", "/bin/*", "/**/a"}
)

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

func randomPolicy(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("version: 1\nnetwork_policies:\n")
	for i := range 1 + r.IntN(5) {
		fmt.Fprintf(&b, "  r%d:\n    endpoints:\n", i)
		for range 1 + r.IntN(3) {
			host := []string{}
			for range 1 + r.IntN(3) {
				host = append(host, pick(r, labels))
			}
			fmt.Fprintf(&b, "      - {host: %q, port: %d}\n", strings.Join(host, ".")+pick(r, tails), 1+r.IntN(2))
		}
		fmt.Fprintf(&b, "    binaries: [{path: %q}]\n", pick(r, programs))
	}
	return b.String()
}

func TestModuleAgreesWithASlowWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	policies, allowed := 0, 0
	for range 6000 {
		text := randomPolicy(r)
		doc, _, err := policy.Parse("policy.yaml", []byte(text))
		if err != nil {
			continue // some random hosts are no hosts
		}
		s, err := Compile(t.Context(), doc, Options{})
		if err != nil {
			t.Fatal(err)
		}
		policies++
		for range 20 {
			var host []string
			for range 1 + r.IntN(3) {
				host = append(host, pick(r, []string{"a", "b", "ab", "api", "x-y", "com", "org", "axb"}))
			}
			who := known(pick(r, programs[:4]), pick(r, programs[:4]))
			name, port := strings.Join(host, ".")+pick(r, tails), uint16(1+r.IntN(2))
			want := slow(doc, who, name, port)
			permit, denial := s.Connection(t.Context(), Question{who, name, port})
			if (denial == nil) != (len(want) > 0) || len(want) > 0 && permit.Rule() != want[0] {
				t.Fatalf("%s\n%s:%d as %v: got %+v %+v, want %v", text, name, port, who, permit, denial, want)
			}
			if denial == nil {
				allowed++
			}
		}
	}
	if policies < 300 || allowed < 300 {
		t.Fatalf("only %d policies and %d allowed questions were tried", policies, allowed)
	}
}

func manyEndpoints(n int, pattern string) string {
	var b strings.Builder
	b.WriteString("version: 1\nnetwork_policies:\n")
	for i := range n / 10 {
		fmt.Fprintf(&b, "  r%d:\n    binaries: [{path: /usr/bin/p%d}, {path: /usr/bin/curl}]\n    endpoints:\n", i, i)
		for j := range 10 {
			fmt.Fprintf(&b, "      - {host: %q, port: 443}\n", fmt.Sprintf(pattern, i*10+j))
		}
	}
	return b.String()
}

func BenchmarkUncached(b *testing.B) {
	for _, bb := range []struct {
		name    string
		n       int
		pattern string
		host    string
	}{
		{"exact/10", 10, "h%d.example.com", "h5.example.com"},
		{"exact/1000", 1000, "h%d.example.com", "h500.example.com"},
		{"suffix/1000", 1000, "*.h%d.example.com", "api.h500.example.com"},
		{"denied/1000", 1000, "h%d.example.com", "other.example.com"},
		{"oneSuffix/1000", 1000, "h%d-*.example.com", "h500-x.example.com"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := compile(b, manyEndpoints(bb.n, bb.pattern), Options{})
			f := facts{host: bb.host, port: 443, program: "/usr/bin/curl", ancestors: []core.Program{{Path: "/bin/bash"}, {Path: "/usr/bin/node"}}}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok := s.evaluate(b.Context(), &f, nil); !ok {
					b.Fatal("not evaluated")
				}
			}
		})
	}
}

func BenchmarkCached(b *testing.B) {
	s := compile(b, manyEndpoints(1000, "h%d.example.com"), Options{})
	q := Question{known("/usr/bin/curl", "/bin/bash", "/usr/bin/node"), "h500.example.com", 443}
	b.ReportAllocs()
	for b.Loop() {
		if _, denial := s.Connection(b.Context(), q); denial != nil {
			b.Fatal(denial)
		}
	}
}

func TestCachedDecisionDoesNotAllocate(t *testing.T) {
	s := compile(t, example, Options{})
	q := Question{known("/usr/bin/git", "/bin/bash"), "api.github.com", 443}
	denied := Question{known("/usr/bin/git", "/bin/bash"), "nowhere.example", 443}
	ctx := t.Context()
	s.Connection(ctx, q)
	s.Connection(ctx, denied)
	if n := testing.AllocsPerRun(100, func() { s.Connection(ctx, q); s.Connection(ctx, denied) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCompile(b *testing.B) {
	doc := parse(b, manyEndpoints(1000, "h%d.example.com"))
	for b.Loop() {
		if _, err := Compile(b.Context(), doc, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
