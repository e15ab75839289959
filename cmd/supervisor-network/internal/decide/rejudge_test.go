package decide

import (
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
)

// later is another policy, as one that took over.
func later(t *testing.T, rules string) *Snapshot {
	t.Helper()
	s, err := build(t.Context(), parse(t, "version: 1\nnetwork_policies:\n"+rules), Options{Generation: 8, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestALiveRequestIsJudgedByTheNewPolicy(t *testing.T) {
	before := inspected(t, one("protocol: rest, access: full"))
	held := permitted(t, before)
	treated, _ := before.Endpoint(held, "/a")
	q := Question{&core.Identity{}, "api.example.com", 443}
	for _, tt := range []struct {
		name, rules string
		reason      core.Reason // "" if it goes on
		audited     bool
	}{
		{"the same", one("protocol: rest, access: full"), "", false},
		{"another rule that allows it", one(`protocol: rest, rules: [{allow: {method: POST, path: /a}}]`), "", false},
		{"another that only records", "  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: rest, access: read-only}]}\n", "", true},
		{"its method is gone", one("protocol: rest, access: read-only"), core.ReasonPolicyDenied, false},
		{"its path is denied", one("protocol: rest, access: full, deny_rules: [{method: POST, path: /a}]"), core.ReasonPolicyDenied, false},
		{"no endpoint takes its path", one("protocol: rest, access: full, path: /b"), core.ReasonPolicyDenied, false},
		{"its host is gone", `  r: {binaries: [{path: /x}], endpoints: [{host: b.example.com, port: 443}]}` + "\n", core.ReasonPolicyDenied, false},
		{"not inspected any more", `  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443}]}` + "\n", core.ReasonPolicyChanged, false},
		{"other addresses", one("protocol: rest, access: full, allowed_ips: [10.0.0.0/8]"), core.ReasonPolicyChanged, false},
		{"any host of a domain", `  r: {binaries: [{path: /x}], endpoints: [{host: "*.example.com", port: 443, enforcement: enforce, protocol: rest, access: full}]}` + "\n", core.ReasonPolicyChanged, false},
		{"another protocol", one("protocol: mcp, mcp: {allow_all_known_mcp_methods: true}"), core.ReasonPolicyDenied, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := later(t, tt.rules)
			permit, e, ruling := s.Again(t.Context(), q, held, treated, line("POST /a"))
			if tt.reason != "" {
				if ruling.Allowed || ruling.ReasonOf() != tt.reason || ruling.Detail == "" || permit.Valid() || e != (Endpoint{}) {
					t.Fatalf("got %+v %+v", ruling, permit)
				}
				return
			}
			if !ruling.Allowed || ruling.Audited != tt.audited || !permit.Valid() || permit.Generation() != 8 || e.Protocol != "rest" {
				t.Fatalf("got %+v %+v", ruling, permit)
			}
			if next := s.Request(permit, e, line("POST /a")); !next.Allowed {
				t.Errorf("the new permit does not serve: %+v", next)
			}
		})
	}
	var nothing *Snapshot
	if _, _, ruling := nothing.Again(t.Context(), q, held, treated, line("POST /a")); ruling.Allowed || ruling.ReasonOf() != core.ReasonNotReady {
		t.Errorf("without a policy: %+v", ruling)
	}
}

func TestALiveWebSocketKeepsTheKindOfItsMessages(t *testing.T) {
	before := inspected(t, one("protocol: websocket, access: full"))
	held := permitted(t, before)
	treated, _ := before.Endpoint(held, "/p")
	q := Question{&core.Identity{}, "api.example.com", 443}
	r := &Request{Method: "GET", Path: "/p", Upgrade: true}
	if _, _, ruling := later(t, one("protocol: websocket, access: read-only")).Again(t.Context(), q, held, treated, r); !ruling.Allowed {
		t.Errorf("got %+v", ruling)
	}
	graphQL := later(t, one("protocol: websocket, access: full, deny_rules: [{operation_type: mutation}]"))
	if _, _, ruling := graphQL.Again(t.Context(), q, held, treated, r); ruling.Allowed || ruling.ReasonOf() != core.ReasonPolicyChanged {
		t.Errorf("got %+v", ruling)
	}
}

func TestRawProtocolsAreOpaque(t *testing.T) {
	tcp := inspected(t, "  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: tcp}]}\n")
	plain := inspected(t, "  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443}]}\n")
	a, b := permitted(t, tcp), permitted(t, plain)
	if !a.Opaque() || b.Opaque() || a.SameTerms(b) {
		t.Errorf("%+v %+v", a, b)
	}
}
