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

// Learning reports whether a time of learning goes on. It is over by whichever clock says
// so: the monotonic one, which nobody sets back, or the wall's, which goes on while the
// machine sleeps and is the end that people were told.
func Learning(now, until time.Time) bool {
	return now.Before(until) && now.Round(0).Before(until.Round(0))
}

// learn turns the answer that no rule allows a connection into a Permit, while that is
// asked for. It leaves every other denial alone, and the Permit is for public addresses
// only and belongs to no endpoint. The time is looked at with every question, and no
// such answer is remembered: learning ends by itself.
func (s *Snapshot) learn(f *facts, p Permit, d *Denial) (Permit, *Denial) {
	if d == nil || d.Reason != core.ReasonPolicyDenied || !Learning(time.Now(), s.learnUntil) {
		return p, d
	}
	return Permit{valid: true, host: strings.Clone(f.host), port: f.port, rule: LearnedRule, mode: AddressPublic,
		generation: s.generation, learned: true}, nil
}
