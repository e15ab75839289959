package websocket

import (
	"context"
	"sync/atomic"
	"time"
)

// Bounds of the process on messages that are held to be judged.
const (
	MaxAssemblies = 32
	MaxWaiting    = 64
)

// Budget is what may be held at one time, shared with whoever else takes of it. Safe for
// concurrent use.
type Budget interface {
	Take(n int64) bool // n bytes more, unless there is no room for them
	Give(n int64)      // back
}

// Assemblies bounds, over all sessions that share it, how many text messages are in
// memory at once, and what they take there. Messages of up to half a kilobyte in one
// frame need no place. A nil Assemblies has none. It is safe for concurrent use.
type Assemblies struct {
	places  chan struct{}
	waiting atomic.Int32
	budget  Budget
}

// NewAssemblies makes the bounds of one process. What messages take beyond the buffers
// that are used again is taken of the budget; nil: their number alone is bounded.
func NewAssemblies(b Budget) *Assemblies {
	return &Assemblies{places: make(chan struct{}, MaxAssemblies), budget: b}
}

// take waits for a place. It fails with errFull, or with errOver when ctx ends.
func (a *Assemblies) take(ctx context.Context, until time.Time) error {
	if a == nil {
		return errFull
	}
	select {
	case a.places <- struct{}{}:
		return nil
	default:
	}
	defer a.waiting.Add(-1)
	if a.waiting.Add(1) > MaxWaiting {
		return errFull
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case a.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errOver
	case <-timer.C:
		return errFull
	}
}

func (a *Assemblies) give() { <-a.places }

// taking is what one message takes of the budget. It belongs to one goroutine.
type taking struct {
	of Budget // nil: nothing is counted
	n  int64
}

// more takes n bytes more.
func (t *taking) more(n int) bool {
	if t.of == nil {
		return true
	}
	if !t.of.Take(int64(n)) {
		return false
	}
	t.n += int64(n)
	return true
}

// room makes place in buf for n more bytes, at least doubling it up to the limit. What a
// frame claims to hold makes no place.
func (t *taking) room(buf []byte, n int) ([]byte, error) {
	if cap(buf)-len(buf) >= n {
		return buf, nil
	}
	size := max(len(buf)+n, min(2*cap(buf), maxHeader+MaxText+1))
	if !t.more(size - cap(buf)) {
		return buf, errCrowded
	}
	return append(make([]byte, 0, size), buf...), nil
}

func (t *taking) giveBack() {
	if t.n > 0 {
		t.of.Give(t.n)
		t.n = 0
	}
}
