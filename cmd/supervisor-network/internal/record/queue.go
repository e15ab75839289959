package record

import (
	"sync"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

const (
	// maxQueued events are encoded by whoever queues the last of them. So few fit into
	// the processor's cache, and are enough that encoding one after the other is cheap.
	maxQueued = 64
	// maxQueueing is how long an event may wait for others to be encoded with it.
	maxQueueing = 5 * time.Millisecond
)

// queue keeps the events of what was allowed until there are enough to encode them
// together: what encodes and counts them is in the processor's caches once for all, and
// not in the place of what serves requests. A kill of the daemon costs what is queued.
type queue struct {
	due *time.Timer // the queue has waited long enough

	mu     sync.Mutex
	events []core.Event // guarded by mu
	closed bool         // guarded by mu; nobody looks after what is queued any more

	taking sync.Mutex   // held while events are encoded, so that they leave in order
	spare  []core.Event // guarded by taking
}

func newQueue() queue {
	due := time.NewTimer(time.Hour)
	due.Stop()
	return queue{due: due}
}

// add queues an event and reports whether the queue shall be taken now.
func (q *queue) add(ev *core.Event) (full bool) {
	q.mu.Lock()
	q.events = append(q.events, *ev)
	n, closed := len(q.events), q.closed
	q.mu.Unlock()
	if n == 1 && !closed {
		q.due.Reset(maxQueueing)
	}
	return n >= maxQueued || closed
}

// close makes that every event is taken at once.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// take hands the queued events to f, in order, and then calls last, which may be nil.
// Nobody else takes any until it returns.
func (q *queue) take(f func(*core.Event), last func()) {
	q.taking.Lock()
	defer q.taking.Unlock()
	q.mu.Lock()
	events := q.events
	q.events = q.spare
	q.mu.Unlock()
	for i := range events {
		f(&events[i])
	}
	clear(events)
	q.spare = events[:0]
	if last != nil {
		last()
	}
}
