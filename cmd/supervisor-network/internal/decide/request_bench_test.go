package decide

import (
	"fmt"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// manyRules is a policy of n endpoints with 60 rules that allow and 60 that deny each.
// A file cannot be as long.
func manyRules(tb testing.TB, n int) *Snapshot {
	tb.Helper()
	doc := &policy.Document{Version: 1, Network: map[string]policy.Rule{}}
	for i := range n {
		e := policy.Endpoint{Host: fmt.Sprintf("h%d.example.com", i), Ports: []uint16{443}, Protocol: policy.ProtocolREST, Enforce: true}
		for j := range 60 {
			path := fmt.Sprintf("/v1/things/%d/*/details", j)
			if j%10 == 0 {
				path = fmt.Sprintf("/**/part%d/*", j)
			}
			e.Allow = append(e.Allow, policy.Matcher{Method: "GET", Path: path})
			e.Deny = append(e.Deny, policy.Matcher{Method: "GET", Path: "/no" + path})
		}
		e.Allow[59].Query = map[string][]string{"tag": {"prod-*"}}
		doc.Network[fmt.Sprintf("r%04d", i)] = policy.Rule{Endpoints: []policy.Endpoint{e}}
	}
	s, err := build(tb.Context(), doc, Options{Generation: 7, IgnoreBinaries: true})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func hostPermit(tb testing.TB, s *Snapshot, host string) Permit {
	tb.Helper()
	p, denial := s.Connection(tb.Context(), Question{&core.Identity{}, host, 443})
	if denial != nil {
		tb.Fatal(denial)
	}
	return p
}

var benchRequests = []struct {
	name    string
	request string
	allowed bool
}{
	{"first", "GET /v1/things/1/a/details", true},
	{"last", "GET /v1/things/59/some-longer-name/details?a=b&tag=prod-1&c=d", true},
	{"refused", "GET /v1/things/60/a/details", false},
	{"denied", "GET /no/v1/things/59/a/details", false},
}

func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{10, 1000} {
		s := manyRules(b, n)
		for _, bb := range benchRequests {
			b.Run(fmt.Sprintf("%d/%s", n, bb.name), func(b *testing.B) {
				p, r := hostPermit(b, s, "h5.example.com"), line(bb.request)
				e, _ := s.Endpoint(p, r.Path)
				b.ReportAllocs()
				for b.Loop() {
					if s.Request(p, e, r).Allowed != bb.allowed {
						b.Fatal("another ruling")
					}
				}
			})
		}
	}
}

func BenchmarkRequestByModule(b *testing.B) {
	s := inspected(b, scoped)
	p, r := permitted(b, s), line("GET /loose/strict/x")
	for b.Loop() {
		if _, err := module(b, s).request(b.Context(), &p, r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllowedRequestsDoNotAllocate(t *testing.T) {
	s := manyRules(t, 10)
	p := hostPermit(t, s, "h5.example.com")
	for _, l := range []string{"GET /v1/things/59/a/details?a=b&tag=prod-1", "head /v1/things/7/a/details", "GET /x/part50/y"} {
		r := line(l)
		if n := testing.AllocsPerRun(100, func() {
			e, _ := s.Endpoint(p, r.Path)
			if got := s.Request(p, e, r); !got.Allowed {
				t.Fatal(got.Detail)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", l, n)
		}
	}
}

// 10 000 rules on one endpoint: ordinary ones, and patterns that all need their
// automaton for a path as long as paths may be.
func BenchmarkRequestOfTenThousandRules(b *testing.B) {
	for _, bb := range []struct{ name, pattern, path string }{
		{"ordinary", "/v1/things/%d/*", "/v1/things/9999/a"},
		{"worst", "/**/a?/{z,%d}*", "/" + strings.Repeat("aa/", 1365) + "x"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			e := policy.Endpoint{Host: "api.example.com", Ports: []uint16{443}, Protocol: policy.ProtocolREST, Enforce: true}
			for j := range 10_000 {
				e.Allow = append(e.Allow, policy.Matcher{Method: "GET", Path: fmt.Sprintf(bb.pattern, j)})
			}
			s, err := build(b.Context(), &policy.Document{Network: map[string]policy.Rule{"r": {Endpoints: []policy.Endpoint{e}}}}, Options{IgnoreBinaries: true})
			if err != nil {
				b.Fatal(err)
			}
			p, r := permitted(b, s), &Request{Method: "GET", Path: bb.path}
			selected, _ := s.Endpoint(p, r.Path)
			b.ReportAllocs()
			for b.Loop() {
				s.Request(p, selected, r)
			}
		})
	}
}
