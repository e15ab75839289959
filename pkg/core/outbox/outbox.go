// Package outbox keeps a daemon's events until the other daemon has acknowledged
// them: numbered, bounded, resent after a reconnect.
//
// It answers the threat of a workload that hides one denial behind many, or that
// grows a daemon's memory by making events: the number of events with detail is
// bounded; beyond it equal ones are merged and the rest is counted by a closed set
// of keys, so detail goes and counts stay. It does not survive the daemon itself;
// whoever adds an event writes its own record first.
//
// Invariant: numbers start at 1 and have no gaps, an event that was sent is never
// changed, and an event leaves only when it was acknowledged.
package outbox

import (
	"sync"

	"github.com/splitpod/splitpod/pkg/core"
)

// DefaultLimit is how many events keep their detail while the other daemon is
// away: some 4 MiB at the very worst.
const DefaultLimit = 1024

// Numbered is an event with its place in the producer's sequence.
type Numbered struct {
	Sequence uint64
	Event    core.Event
}

// mergeKey says which unsent events may be counted together.
type mergeKey struct {
	kind            core.EventKind
	stage           core.Stage
	verdict         core.Verdict
	reason          core.Reason
	host, protocol  string
	port            uint16
	program, method string
}

// countKey is the closed set that counts survive in when detail does not.
type countKey struct {
	kind    core.EventKind
	stage   core.Stage
	verdict core.Verdict
	reason  core.Reason
}

// Outbox is a bounded queue of unacknowledged events. Make it with New. All
// methods may be called from several goroutines.
type Outbox struct {
	limit   int
	changed chan struct{}

	mu         sync.Mutex
	queue      []Numbered              // guarded by mu; ascending, without gaps
	next       uint64                  // guarded by mu; next number
	sent       uint64                  // guarded by mu; highest number ever handed out
	unsent     map[mergeKey]uint64     // guarded by mu; number of a mergeable event
	overflow   map[countKey]core.Event // guarded by mu; counts without detail
	undetailed uint64                  // guarded by mu; occurrences that lost detail
}

// New makes an Outbox that keeps at most limit events with detail; limit below 1
// reads as DefaultLimit.
func New(limit int) *Outbox {
	if limit < 1 {
		limit = DefaultLimit
	}
	return &Outbox{
		limit:    limit,
		changed:  make(chan struct{}, 1),
		next:     1,
		unsent:   make(map[mergeKey]uint64),
		overflow: make(map[countKey]core.Event),
	}
}

// Add takes an event. It never blocks and never fails: beyond the limit the event
// is merged with an equal one that was not sent yet, else only counted.
func (o *Outbox) Add(ev core.Event) {
	ev.Clip()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) < o.limit {
		o.append(ev)
		o.signal()
		return
	}
	if seq, ok := o.unsent[keyOf(&ev)]; ok {
		o.at(seq).Count = o.at(seq).Occurrences() + ev.Occurrences()
		return
	}
	o.count(ev)
}

// Pending returns up to limit events with numbers above after, in order, and marks
// them as sent. The slice is the caller's.
func (o *Outbox) Pending(after uint64, limit int) []Numbered {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []Numbered
	for _, n := range o.queue {
		if len(out) == limit {
			break
		}
		if n.Sequence <= after {
			continue
		}
		out = append(out, n)
		if n.Sequence > o.sent {
			o.sent = n.Sequence
			delete(o.unsent, keyOf(&n.Event))
		}
	}
	return out
}

// Ack forgets every event up to and including seq. Numbers that were never handed
// out are ignored: a peer cannot acknowledge what it has not seen.
func (o *Outbox) Ack(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seq = min(seq, o.sent)
	drop := 0
	for drop < len(o.queue) && o.queue[drop].Sequence <= seq {
		drop++
	}
	o.queue = append(o.queue[:0], o.queue[drop:]...)
	o.refill()
}

// Changed is signalled when there may be something new to send. It holds one
// signal, so a late reader does not miss it.
func (o *Outbox) Changed() <-chan struct{} { return o.changed }

// Stats is a snapshot of an Outbox.
type Stats struct {
	Waiting    int    // events not acknowledged
	Undetailed uint64 // occurrences, since New, that lost their detail
}

// Stats returns a snapshot.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Stats{Waiting: len(o.queue), Undetailed: o.undetailed}
}

// append numbers an event. Preconditions: mu is held.
func (o *Outbox) append(ev core.Event) {
	o.queue = append(o.queue, Numbered{Sequence: o.next, Event: ev})
	o.unsent[keyOf(&ev)] = o.next
	o.next++
}

// at finds a queued event by number. Preconditions: mu is held, seq is queued.
func (o *Outbox) at(seq uint64) *core.Event {
	return &o.queue[seq-o.queue[0].Sequence].Event
}

// count keeps only the number of occurrences. Preconditions: mu is held.
func (o *Outbox) count(ev core.Event) {
	key := countKey{ev.Kind, ev.Stage, ev.Verdict, ev.Reason}
	o.undetailed += ev.Occurrences()
	sum, ok := o.overflow[key]
	if !ok {
		sum = core.Event{
			Kind: ev.Kind, Stage: ev.Stage, Verdict: ev.Verdict, Reason: ev.Reason,
			Time: ev.Time, Instance: ev.Instance, Severity: ev.Severity,
			Detail: "counted without detail: too many events were waiting",
		}
		sum.Count = ev.Occurrences()
	} else {
		sum.Count += ev.Occurrences()
		sum.Severity = max(sum.Severity, ev.Severity)
	}
	o.overflow[key] = sum
}

// refill moves counts into freed places. Preconditions: mu is held.
func (o *Outbox) refill() {
	for key, ev := range o.overflow {
		if len(o.queue) >= o.limit {
			return
		}
		o.append(ev)
		delete(o.overflow, key)
		o.signal()
	}
}

func (o *Outbox) signal() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func keyOf(ev *core.Event) mergeKey {
	return mergeKey{ev.Kind, ev.Stage, ev.Verdict, ev.Reason, ev.Host, ev.Protocol, ev.Port, ev.Program.Path, ev.Method}
}
