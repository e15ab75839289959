// Package record writes the network daemon's records: one for every connection,
// on every way out, and one for every event the process daemon reports.
//
// It answers the threat of a refusal nobody can see: a denial is written before
// the workload gets its answer, and whatever ends a connection leaves a record.
// It does not answer a reader of the log that stalls: after one denial has waited for
// it in vain none waits until it reads again, and what finds no place is dropped,
// counted, and the count recorded when the reader returns.
//
// Invariant: an Entry is written exactly once, whichever of Deny and End
// comes first; records leave in the order they were made, those of what was allowed
// some milliseconds later; a log that is not read never blocks the data path.
package record

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/pkg/core/spool"
)

// Sink is a place that every record goes to.
type Sink struct {
	Out  io.Writer
	Text bool // lines for people instead of OCSF
}

// Recorder writes records to its sinks. Make it with New and keep Run going.
type Recorder struct {
	encoder  *ocsf.Encoder
	instance core.InstanceID
	box      *outbox.Outbox // denials for the process daemon; nil when it is not told
	now      func() time.Time

	queue queue
	line  []byte // guarded by queue.taking; the line that is being encoded
	sinks []sink
	watch func(*core.Event) // sees every event before it is written; may be nil

	allowed atomic.Uint64
	denied  atomic.Uint64
	reasons sync.Map // core.Reason → *atomic.Uint64
}

// New makes a Recorder for several sinks, none of which waits for another. A denial
// waits for the first. box may be nil.
func New(c ocsf.Context, box *outbox.Outbox, sinks ...Sink) *Recorder {
	r := &Recorder{
		encoder: ocsf.NewEncoder(c), instance: c.Instance, box: box, now: time.Now,
		queue: newQueue(),
	}
	for _, s := range sinks {
		r.sinks = append(r.sinks, sink{s.Text, spool.New(s.Out, func(b []byte, dropped uint64) []byte { return r.told(b, dropped, s.Text) })})
	}
	return r
}

// sink is a log and how it is written.
type sink struct {
	text bool
	*spool.Spool
}

// told appends the record of how many are missing.
func (r *Recorder) told(b []byte, dropped uint64, text bool) []byte {
	ev := core.Event{Kind: core.EventFinding, Time: r.now(), Stage: core.StageControl, Severity: core.SeverityHigh,
		Reason: core.EventRecordsDropped, Detail: "the log was not read fast enough", Count: dropped, Instance: r.instance}
	return r.encode(b, &ev, text)
}

// Run writes what is queued until ctx ends, then what is left.
func (r *Recorder) Run(ctx context.Context) error {
	writing, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for _, s := range r.sinks {
		wg.Go(func() { s.Run(writing) })
	}
	for ctx.Err() == nil {
		select {
		case <-r.queue.due.C:
			r.flush()
		case <-ctx.Done():
		}
	}
	r.queue.close()
	r.flush()
	end()
	wg.Wait()
	return nil
}

// Watch lets f see every event that is recorded, for counting. It must not keep or
// change the event, and must not block. Call Watch before anything is recorded.
func (r *Recorder) Watch(f func(*core.Event)) { r.watch = f }

// maxLine is the longest line whose memory is kept for the next one.
const maxLine = 16 << 10

// Event records an event that is no connection of ours. With wait it returns when
// the record is written, or after a short bound.
func (r *Recorder) Event(ev core.Event, wait bool) { r.record(&ev, wait) }

// record encodes an event, behind everything that is queued. With wait it returns when the
// line is written, or after a short bound.
func (r *Recorder) record(ev *core.Event, wait bool) {
	ev.Clip()
	var written spool.Written
	r.queue.take(r.put, func() { written = r.encoded(ev, wait) })
	r.sinks[0].Await(written)
}

// later is record for what nobody waits for.
func (r *Recorder) later(ev *core.Event) {
	ev.Clip()
	if r.queue.add(ev) {
		r.flush()
	}
}

// flush encodes what is queued.
func (r *Recorder) flush() { r.queue.take(r.put, nil) }

func (r *Recorder) put(ev *core.Event) { r.encoded(ev, false) }

// encoded shows an event to who watches, and hands its line to the sinks. Whoever calls it
// is taking from the queue.
func (r *Recorder) encoded(ev *core.Event, wait bool) (written spool.Written) {
	if r.watch != nil {
		r.watch(ev)
	}
	for i, s := range r.sinks {
		r.line = r.encode(r.line[:0], ev, s.text)
		if w := s.Add(r.line, wait && i == 0); w != nil {
			written = w
		}
	}
	if cap(r.line) > maxLine {
		r.line = nil
	}
	return written
}

func (r *Recorder) encode(b []byte, ev *core.Event, text bool) []byte {
	if text {
		return r.encoder.AppendText(b, ev)
	}
	return r.encoder.Append(b, ev)
}

// Own records an event of this daemon itself and tells the process daemon.
func (r *Recorder) Own(ev core.Event) {
	ev.Time, ev.Instance = r.now(), r.instance
	r.record(&ev, false)
	if r.box != nil {
		r.box.Add(ev)
	}
}

// Stats is a snapshot of what was recorded.
type Stats struct {
	Allowed, Denied uint64
	Dropped         uint64                 // records that a sink missed, of all sinks
	Reasons         map[core.Reason]uint64 // of denials
}

// Stats returns a snapshot.
func (r *Recorder) Stats() Stats {
	s := Stats{Allowed: r.allowed.Load(), Denied: r.denied.Load(), Reasons: make(map[core.Reason]uint64)}
	for _, out := range r.sinks {
		s.Dropped += out.Lost()
	}
	r.reasons.Range(func(k, v any) bool {
		s.Reasons[k.(core.Reason)] = v.(*atomic.Uint64).Load()
		return true
	})
	return s
}

func (r *Recorder) count(ev *core.Event) {
	if ev.Verdict == core.Allow {
		r.allowed.Add(1)
		return
	}
	r.denied.Add(1)
	n, ok := r.reasons.Load(ev.Reason)
	if !ok {
		n, _ = r.reasons.LoadOrStore(ev.Reason, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}
