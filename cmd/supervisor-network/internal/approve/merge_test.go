package approve

import (
	"testing"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// TestRulesJoinAPolicyThatAControlPlaneComposed: what only the system may say stays said.
func TestRulesJoinAPolicyThatAControlPlaneComposed(t *testing.T) {
	base, _, err := policy.ParseComposed("p", []byte("version: 1\nnetwork_policies: {_provider_x: {"+
		"endpoints: [{host: a.example.com, port: 443, advisor_proposed: true}], binaries: [{path: /x}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Merge(base, map[string]policy.Rule{"new": parse(t, file).Network["github"]})
	if err != nil {
		t.Fatal(err)
	}
	if r := doc.Network["_provider_x"]; len(doc.Network) != 2 || !r.Endpoints[0].AdvisorProposed {
		t.Errorf("%+v", doc.Network)
	}
}
