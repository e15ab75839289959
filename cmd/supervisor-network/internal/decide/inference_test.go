package decide

import (
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// TestWhoMayAskForModels: everybody who is identified, until an endpoint of the policy is
// about it; and never because a policy is learned.
func TestWhoMayAskForModels(t *testing.T) {
	known := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: "/usr/bin/agent"}}
	for name, tc := range map[string]struct {
		endpoints string
		who       *core.Identity
		host      string
		port      uint16
		rule      string // empty: denied
	}{
		"silent":              {"{host: a.example.com, port: 443}", known, InferenceHost, InferencePort, InferenceRule},
		"not identified":      {"{host: a.example.com, port: 443}", &core.Identity{}, InferenceHost, InferencePort, ""},
		"another port":        {"{host: a.example.com, port: 443}", known, InferenceHost, 80, ""},
		"another name":        {"{host: a.example.com, port: 443}", known, "x." + InferenceHost, InferencePort, ""},
		"another program's":   {"{host: inference.local, port: 443}", known, InferenceHost, InferencePort, ""},
		"another port's rule": {"{host: inference.local, port: 80}", known, InferenceHost, InferencePort, InferenceRule},
	} {
		doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  models: {endpoints: ["+tc.endpoints+"], binaries: [{path: /usr/bin/other}]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		for _, learning := range []time.Time{{}, time.Now().Add(time.Hour)} {
			s, err := Compile(t.Context(), doc, Options{Generation: 7, LearnUntil: learning})
			if err != nil {
				t.Fatal(err)
			}
			permit, denial := s.Connection(t.Context(), Question{tc.who, tc.host, tc.port})
			learned := !learning.IsZero() && tc.host != InferenceHost || !learning.IsZero() && tc.port != InferencePort
			switch {
			case learned && denial == nil && permit.Learned():
			case (denial == nil) != (tc.rule != ""), permit.Valid() != (tc.rule != ""), permit.Rule() != tc.rule, permit.Valid() && permit.Generation() != 7:
				t.Errorf("%s, learning %t: %+v, %+v", name, !learning.IsZero(), permit, denial)
			case permit.Valid() && (!permit.Inference() || !permit.Read() || permit.Inspected()):
				t.Errorf("%s: %+v", name, permit)
			}
		}
	}
	var none *Snapshot
	if _, denial := none.Connection(t.Context(), Question{known, InferenceHost, InferencePort}); denial == nil {
		t.Error("without a policy it is allowed")
	}
}
