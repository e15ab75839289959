package propose

import (
	"maps"
	"slices"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Align gives a rule made of denials the settings of an endpoint of the policy for the
// same host and port, where two endpoints have to agree: otherwise the rule could not
// join the policy. What it takes over is the policy's own, and shown like the rest.
func Align(r *policy.Rule, doc *policy.Document) {
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		if have := endpointFor(doc, e); have != nil {
			e.AllowedIPs = slices.Clone(have.AllowedIPs)
			if have.Protocol == policy.ProtocolREST && e.Protocol == policy.ProtocolREST {
				e.AllowEncodedSlash = have.AllowEncodedSlash
			}
		}
	}
}

func endpointFor(doc *policy.Document, e *policy.Endpoint) *policy.Endpoint {
	var found *policy.Endpoint
	for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
		r := doc.Network[name]
		for i := range r.Endpoints {
			have := &r.Endpoints[i]
			if have.Host == e.Host && slices.Contains(have.Ports, e.Ports[0]) && (found == nil || found.Protocol != e.Protocol && have.Protocol == e.Protocol) {
				found = have
			}
		}
	}
	return found
}
