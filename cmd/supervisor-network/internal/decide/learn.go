package decide

import (
	"strings"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// LearnedRule is what Permit.Rule says of a destination that no rule allows and that is
// allowed for a time, so that it can be seen what a workload needs.
const LearnedRule = "(learned)"

// Learned reports whether no rule gave this Permit. Nothing that is bound to an endpoint
// may be used with it.
func (p Permit) Learned() bool { return p.learned }

// Learning reports whether the time of learning goes on. It is over as soon as either
// clock says so: the monotonic clock, which nobody can set back, or the wall clock,
// which goes on while the machine sleeps and shows the end that people were told.
func Learning(now, until time.Time) bool {
	return now.Before(until) && now.Round(0).Before(until.Round(0))
}

// learn turns the denial of a connection that no rule allows into a Permit, during the
// time of learning. Every other denial stays, and so does who may ask for models. The Permit is for public addresses only
// and belongs to no endpoint. The clock is read for every question, and such an answer
// is not remembered, so that learning ends by itself.
func (s *Snapshot) learn(f *facts, p Permit, d *Denial) (Permit, *Denial) {
	if d == nil || d.Reason != core.ReasonPolicyDenied || isInference(f.host, f.port) || !Learning(time.Now(), s.learnUntil) {
		return p, d
	}
	return Permit{valid: true, host: strings.Clone(f.host), port: f.port, rule: LearnedRule, mode: AddressPublic,
		generation: s.generation, learned: true}, nil
}
