package app

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
)

// TestAReplacedValueGoesInAnew: a value that is replaced between sealing and sending
// fails no request. Everything is made anew of what came, and noted once; what has no
// value any more is refused.
func TestAReplacedValueGoesInAnew(t *testing.T) {
	v, g := keys(t), grantFor(t, ", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true")
	s := &session{p: &path{vault: v}, grant: g, ev: &record.Entry{}, defaultPort: 443, tunnel: true}
	body := `{"k":"` + marker + `"}`
	req := &http1.Request{Method: "POST", Target: "/" + marker + "?q=" + marker, Minor: 1, Framing: sized(len(body)),
		Fields: http1.Fields{{Name: "Authorization", Value: "Bearer " + marker}, {Name: "Content-Type", Value: "application/json"}}}
	in := &incoming{method: "POST", path: "/[CREDENTIAL]", held: holding{of: newBodies(maxHeldBodies)}}
	in.endpoint, _ = g.snap.Endpoint(g.permit, in.path)
	target := http1.Target{Host: "api.test", Port: 443, Path: "/" + marker, Query: "?q=" + marker}
	sent, refused := s.seal(t.Context(), req, &target, in, func(int) ([]byte, error) { return []byte(body), nil })
	if refused != nil {
		t.Fatal(refused)
	}
	check := func(sent *http1.Request, target http1.Target, refused *refusal, value string) {
		t.Helper()
		if refused != nil {
			t.Fatal(refused)
		}
		auth, _ := sent.Fields.Get("Authorization")
		if diff := cmp.Diff([]string{"Bearer " + value, "/" + value, "?q=" + value, `{"k":"` + value + `"}`}, []string{auth, target.Path, target.Query, string(in.content)}); diff != "" {
			t.Error(diff)
		}
		if cleaned, n := in.sealed.filter.Fields(http1.Fields{{Name: "X", Value: value}}); n != 1 || strings.Contains(cleaned[0].Value, value) {
			t.Errorf("an echo of %s is not found", value)
		}
	}
	check(sent, target, nil, "REALvalue12345")
	file := v.current().List()[0].Source
	for _, value := range []string{"REALother12345", "REALthird12345"} {
		write(t, file, value)
		v.store.Reload()
		again, anew, refused := s.renewed(t.Context(), sent, target, in)
		check(again, anew, refused, value)
		before := in.sealed
		if _, _, refused = s.renewed(t.Context(), again, anew, in); refused != nil || in.sealed != before {
			t.Errorf("what did not change is made anew, %v", refused)
		}
		sent, target = again, anew
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	v.store.Reload()
	if _, _, refused := s.renewed(t.Context(), sent, target, in); answered(refused) != 500 {
		t.Errorf("without a value: %v", refused)
	}
}
