package app

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// errRevoked ends a connection that the current policy no longer allows.
var errRevoked = errors.New("the policy no longer allows this connection")

// live knows the allowed connections, so that a new policy ends exactly those it
// no longer allows. The zero value is ready to use.
type live struct {
	next    atomic.Uint64
	count   atomic.Int64
	entries sync.Map // uint64 → *liveEntry
}

type liveEntry struct {
	question decide.Question
	permit   decide.Permit
	end      context.CancelCauseFunc
}

// add registers an allowed connection and returns its context and what to call
// when it ends.
func (l *live) add(ctx context.Context, q decide.Question, permit decide.Permit) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	id := l.next.Add(1)
	l.entries.Store(id, &liveEntry{question: q, permit: permit, end: cancel})
	l.count.Add(1)
	return ctx, func() {
		l.entries.Delete(id)
		l.count.Add(-1)
		cancel(nil)
	}
}

// recheck judges every live connection by snap and ends what it refuses, or what
// it allows on other terms: addresses that were checked by the old terms are not
// checked again.
func (l *live) recheck(ctx context.Context, snap *decide.Snapshot) (ended int) {
	l.entries.Range(func(_, v any) bool {
		e := v.(*liveEntry)
		permit, denial := snap.Connection(ctx, e.question) // a nil snapshot denies all
		if denial != nil || !permit.SameTerms(e.permit) {
			e.end(errRevoked)
			ended++
		}
		return true
	})
	return ended
}
