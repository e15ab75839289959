package decide

import "context"

// Again judges, by this policy, a request that an earlier one allowed and that is still
// going on: the body of a response, a stream, the messages of a WebSocket. The first
// result permits what follows, the second says how to treat it. Neither is valid when
// the ruling refuses; then the connection has to end.
//
// It refuses also where the new policy would allow the request on other terms, which
// cannot be given to a connection that exists: other addresses, another protocol.
func (s *Snapshot) Again(ctx context.Context, q Question, held Permit, treated Endpoint, r *Request) (Permit, Endpoint, Ruling) {
	permit, denial := s.Connection(ctx, q)
	switch {
	case denial != nil:
		return Permit{}, Endpoint{}, Ruling{Detail: denial.Detail, reason: denial.Reason}
	case !permit.SameTerms(held):
		return Permit{}, Endpoint{}, stale
	case !permit.inspected:
		return permit, Endpoint{}, Ruling{Allowed: true, Rule: permit.rule}
	}
	e, _ := s.Endpoint(permit, r.Path)
	ruling := s.Request(permit, e, r)
	switch {
	case !ruling.Allowed:
		return Permit{}, Endpoint{}, ruling
	case e.Protocol != treated.Protocol || e.GraphQL != treated.GraphQL:
		return Permit{}, Endpoint{}, stale
	}
	return permit, e, ruling
}
