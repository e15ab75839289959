package proxy

import (
	"context"
	"sync"
)

// turn is a request under way, as a context: it ends when its connection's does, and
// before that when the request alone is cut. Most requests are over before anybody
// asks for more than Err, so what others wait on is made when the first of them comes.
type turn struct {
	context.Context // the connection's
	session         *session

	mu     sync.Mutex
	over   bool                    // guarded by mu
	left   bool                    // guarded by mu; the connection belongs to what comes behind the request
	cause  error                   // guarded by mu; why it was cut; nil: it was not
	full   context.Context         // guarded by mu; nil: nobody waits
	cancel context.CancelCauseFunc // guarded by mu
}

// Done implements context.Context.
func (t *turn) Done() <-chan struct{} { return t.whole().Done() }

// Value implements context.Context, and tells context.Cause the cause.
func (t *turn) Value(key any) any { return t.whole().Value(key) }

// Err implements context.Context.
func (t *turn) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause != nil {
		return context.Canceled
	}
	return t.Context.Err()
}

// whole is the context to wait on.
func (t *turn) whole() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full == nil {
		t.full, t.cancel = context.WithCancelCause(t.Context)
		if t.cause != nil || t.over {
			t.cancel(t.cause)
		}
	}
	if t.Context.Err() != nil { // of which this one may hear a moment later: Err and the cause are to agree
		t.cancel(context.Cause(t.Context))
	}
	return t.full
}

// cut ends the request, unless it is over.
func (t *turn) cut(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.cause != nil {
		return
	}
	t.cause = cause
	if t.cancel != nil {
		t.cancel(cause)
	}
	if !t.left {
		t.session.late()
	}
}

// leave lets the connection alone when the request is cut.
func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = true
}

// end is the end of the request. It reports whether the connection was hurt by a cut.
func (t *turn) end() (hurt bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.cancel != nil {
		t.cancel(nil)
	}
	return t.cause != nil && !t.left
}
