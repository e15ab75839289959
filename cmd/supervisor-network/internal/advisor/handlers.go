package advisor

import (
	"context"
	"errors"
	"net"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/admin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/remedy"
	"github.com/splitpod/splitpod/pkg/core"
)

// The commands of the admin socket.
const (
	List    = "proposals.list"
	Show    = "proposals.show"
	Approve = "proposals.approve"
	Reject  = "proposals.reject"
	Revoke  = "proposals.revoke"
	Export  = "proposals.export"
	Learned = "learn.export"
	Denial  = "denial.explain"
)

// Listener is the open admin socket of an Advisor.
type Listener struct {
	of     *Advisor
	socket *net.UnixListener
}

// Run answers on the socket, and does everything else that goes on beside requests,
// until ctx ends; then it makes what was counted last into proposals. It closes the
// socket.
func (l Listener) Run(ctx context.Context) error { return l.of.run(ctx, l) }

// Close closes a socket that is not run.
func (l Listener) Close() error { return l.socket.Close() }

// Text is the result of an export.
type Text struct {
	YAML string `json:"yaml"`
}

func (a *Advisor) handlers() map[string]admin.Handler {
	return map[string]admin.Handler{
		List:   func(context.Context, admin.Question) (any, error) { return a.store.List(), nil },
		Show:   func(_ context.Context, q admin.Question) (any, error) { return a.store.Review(q.ID) },
		Export: func(context.Context, admin.Question) (any, error) { return Text{string(a.store.Export())}, nil },
		Approve: func(ctx context.Context, q admin.Question) (any, error) {
			e, err := a.store.Approve(ctx, q.ID, q.Hash, q.By)
			return e, a.called(Approve, q.ID, q.By, err)
		},
		Reject: func(_ context.Context, q admin.Question) (any, error) {
			e, err := a.store.Reject(q.ID, q.Reason, q.By)
			return e, a.called(Reject, q.ID, q.By, err)
		},
		Revoke: func(ctx context.Context, q admin.Question) (any, error) {
			e, err := a.store.Revoke(ctx, q.ID, q.Reason, q.By)
			return e, a.called(Revoke, q.ID, q.By, err)
		},
		Learned: func(context.Context, admin.Question) (any, error) { return Text{string(a.book.Export())}, nil },
		Denial:  a.explain,
	}
}

// called leaves a record of a decision that was asked for, and returns err: of one that
// was not carried out there is no other.
func (a *Advisor) called(command, id string, by uint32, err error) error {
	ev := core.Event{Kind: core.EventLifecycle, Stage: core.StageAPI, Severity: core.SeverityInfo, Reason: core.EventAdminDecided,
		Path: command, UID: by, Detail: "proposal " + approve.OneLine(id, 64)}
	if err != nil {
		ev.Severity, ev.Reason = core.SeverityLow, core.EventAdminFailed
		ev.Detail += ": " + approve.OneLine(err.Error(), 500)
	}
	a.opt.Record(ev)
	return err
}

func (a *Advisor) explain(ctx context.Context, q admin.Question) (any, error) {
	ev, ok := a.recent.Find(core.RequestID(q.ID))
	if !ok {
		return nil, errors.New("no denial with this request id is known any more; the newest 256 are kept")
	}
	doc := a.policy.Load()
	if doc == nil {
		return nil, approve.ErrNoPolicy
	}
	return remedy.Explain(ctx, doc, ev, a.opt.IgnoreBinaries)
}
