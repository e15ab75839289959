package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
)

// revoked is what a connection is told that the current policy no longer allows, and
// errRevoked what ends it.
const revoked = "the policy no longer allows this connection"

var errRevoked error = &http2.Revoked{Reason: core.ReasonPolicyChanged, Detail: revoked}

// Live knows the allowed connections and the requests under way on them, so that a
// new policy ends exactly those it no longer allows. The zero value is ready to use.
type Live struct {
	next    atomic.Uint64
	count   atomic.Int64
	entries sync.Map // uint64 → *liveEntry
}

// liveEntry is one allowed connection, or one request of several on one connection.
type liveEntry struct {
	of       *Live
	id       uint64
	question decide.Question
	permit   decide.Permit
	end      context.CancelCauseFunc
	begun    time.Time
	// uninspected is set while its bytes pass unread.
	uninspected atomic.Bool

	mu      sync.Mutex
	request *incoming // guarded by mu; under way; nil: none, or none that is judged
}

// add registers an allowed connection and returns its context. The entry is left
// when the connection ends.
func (l *Live) add(ctx context.Context, q decide.Question, permit decide.Permit) (context.Context, *liveEntry) {
	ctx, cancel := context.WithCancelCause(ctx)
	e := &liveEntry{of: l, id: l.next.Add(1), question: q, permit: permit, end: cancel, begun: time.Now()}
	l.entries.Store(e.id, e)
	l.count.Add(1)
	return ctx, e
}

func (e *liveEntry) leave() {
	e.of.entries.Delete(e.id)
	e.of.count.Add(-1)
	e.end(nil)
}

// carries makes in the request under way; nil: none is. When it returns nobody judges the
// one before any more, whose memory may be used again.
func (e *liveEntry) carries(in *incoming) {
	e.mu.Lock()
	e.request = in
	e.mu.Unlock()
}

// Count is how many there are.
func (l *Live) Count() int64 { return l.count.Load() }

// Active is what is under way, by destination and program.
func (l *Live) Active() view.Active {
	rows := make(map[view.ActiveRow]*view.ActiveRow)
	l.entries.Range(func(_, v any) bool {
		e := v.(*liveEntry)
		key := view.ActiveRow{Host: e.permit.Host(), Port: e.permit.Port(), Program: e.question.Who.Program.Path}
		r, ok := rows[key]
		if !ok {
			copied := key
			r = &copied
			r.Since, rows[key] = e.begun, r
		}
		r.Count++
		if e.uninspected.Load() {
			r.Unread++
		}
		if e.begun.Before(r.Since) {
			r.Since = e.begun
		}
		return true
	})
	var out view.Active
	for _, r := range rows {
		out.Rows = append(out.Rows, *r)
	}
	return out
}

// Recheck judges every live connection by snap and ends what it refuses, or what
// it allows on other terms: addresses that were checked by the old terms are not
// checked again. Of a connection that may go on only the request under way ends.
func (l *Live) Recheck(ctx context.Context, snap *decide.Snapshot) (ended int) {
	l.entries.Range(func(_, v any) bool {
		if !v.(*liveEntry).stands(ctx, snap) {
			ended++
		}
		return true
	})
	return ended
}

// stands reports whether an entry may go on as it is, and ends what of it may not. The
// request on it is not over before that.
func (e *liveEntry) stands(ctx context.Context, snap *decide.Snapshot) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	in := e.request
	switch {
	case e.allows(ctx, snap, in):
		return true
	case in != nil && in.alone() && e.allows(ctx, snap, nil):
		in.turn.cut(errRevoked)
	default:
		e.end(errRevoked)
	}
	return false
}

// allows judges the connection with a request on it; nil: none. A nil snapshot denies all.
func (e *liveEntry) allows(ctx context.Context, snap *decide.Snapshot, in *incoming) bool {
	if in != nil {
		_, _, ruling := snap.Again(ctx, e.question, e.permit, in.endpoint, &in.facts)
		if ruling.Allowed && in.binary.Load() { // messages that nobody reads ride on those that are
			_, _, ruling = snap.Again(ctx, e.question, e.permit, in.endpoint, textOf(in))
		}
		started, known := in.running.message(in.path)
		if ruling.Allowed && started != nil {
			_, _, ruling = snap.Again(ctx, e.question, e.permit, in.endpoint, started)
		}
		return ruling.Allowed && known
	}
	permit, denial := snap.Connection(ctx, e.question)
	return denial == nil && permit.SameTerms(e.permit)
}
