package decide

import (
	"context"
	"fmt"
)

// Where the workload asks for models: this daemon itself answers there, whatever DNS says
// of the name. A policy with an endpoint for it says by that who may ask for what; without
// one every program may that is identified, because an operator has configured the routes
// for this workload.
const (
	InferenceHost = "inference.local"
	InferencePort = 443
)

// InferenceRule is what Permit.Rule says when no endpoint of the policy is about
// InferenceHost.
const InferenceRule = "(inference)"

// Inference reports whether this daemon itself answers what the Permit is for. It is no
// right to open a connection.
func (p Permit) Inference() bool { return isInference(p.host, p.port) }

// Read reports whether requests are read one by one: rules judge them, or this daemon
// itself answers them.
func (p Permit) Read() bool { return p.inspected || p.Inference() }

func isInference(host string, port uint16) bool {
	return host == InferenceHost && port == InferencePort
}

// models is the Permit for asking for models, where the policy leaves that open.
func (s *Snapshot) models() Permit {
	return Permit{valid: true, host: InferenceHost, port: InferencePort, rule: InferenceRule, generation: s.generation}
}

// governs reports whether an endpoint of the policy is about asking for models.
func (s *Snapshot) governs(ctx context.Context) (bool, error) {
	d, err := s.evaluator.evaluate(ctx, &facts{host: InferenceHost, port: InferencePort}, true)
	if err != nil {
		return false, fmt.Errorf("decide about %s: %w", InferenceHost, err)
	}
	return len(d.granted) > 0, nil
}
