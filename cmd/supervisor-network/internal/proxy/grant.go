package proxy

import (
	"context"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/pkg/core"
)

// grant is an allowed connection to one host and port: the question, the answer, and
// the policy that gave it.
type grant struct {
	question decide.Question
	snap     *decide.Snapshot
	permit   decide.Permit
}

// ask asks the policy of this moment.
func (p *Path) ask(ctx context.Context, q decide.Question) (grant, *decide.Denial) {
	snap := p.Policy.Current()
	permit, denial := snap.Connection(ctx, q)
	return grant{q, snap, permit}, denial
}

// renew asks again when the policy has changed. A grant on other terms is none: what
// was checked by the old terms is not checked again.
func (p *Path) renew(ctx context.Context, g *grant) *decide.Denial {
	snap := p.Policy.Current()
	if snap == g.snap {
		return nil
	}
	permit, denial := snap.Connection(ctx, g.question)
	if denial == nil && !permit.SameTerms(g.permit) {
		denial = &decide.Denial{Reason: core.ReasonPolicyChanged, Detail: "the policy changed while the connection was open; connect again"}
	}
	if denial == nil {
		g.snap, g.permit = snap, permit
	}
	return denial
}

// enter makes an allowed connection known to those that watch the policy, and
// records that it is allowed. The policy may have changed in between: then it is
// asked again.
func (p *Path) enter(ctx context.Context, ev *record.Entry, stage core.Stage, g *grant) (context.Context, *liveEntry, *decide.Denial) {
	ctx, entry := p.Live.add(ctx, g.question, g.permit)
	if denial := p.renew(ctx, g); denial != nil {
		entry.leave()
		return ctx, nil, denial
	}
	ev.Allow(stage, g.permit.Rule(), g.permit.Generation())
	return ctx, entry, nil
}
