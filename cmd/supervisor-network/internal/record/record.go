// Package record writes the network daemon's records: one for every connection,
// on every way out, and one for every event the process daemon reports.
//
// It answers the threat of a refusal nobody can see: a denial is written before
// the workload gets its answer, and whatever ends a connection leaves a record.
// It does not answer a reader of the log that stalls for good: then records are
// dropped, counted, and the count is recorded when the reader returns.
//
// Invariant: an Entry is written exactly once, whichever of Deny, Done and End
// comes first; a full queue never blocks the data path.
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
)

// queueLength is how many records may wait for the log's reader, some 8 MiB.
const queueLength = 4096

// flushWait bounds how long a denial waits for its record to be written.
const flushWait = 250 * time.Millisecond

// Recorder writes records to one stream. Make it with New and keep Run going.
type Recorder struct {
	out     io.Writer
	context ocsf.Context
	box     *outbox.Outbox // denials for the process daemon; nil when it is not told
	now     func() time.Time

	queue   chan line
	dropped atomic.Uint64
	allowed atomic.Uint64
	denied  atomic.Uint64
	reasons sync.Map // core.Reason → *atomic.Uint64
}

type line struct {
	text []byte
	done chan<- struct{} // closed when written; may be nil
}

// New makes a Recorder that writes to out. box may be nil.
func New(out io.Writer, c ocsf.Context, box *outbox.Outbox) *Recorder {
	return &Recorder{out: out, context: c, box: box, now: time.Now, queue: make(chan line, queueLength)}
}

// Run writes what is queued until ctx ends, then what is left.
func (r *Recorder) Run(ctx context.Context) error {
	var buf []byte
	var done []chan<- struct{}
	reported := uint64(0)
	for {
		buf, done = buf[:0], done[:0]
		select {
		case l := <-r.queue:
			buf, done = gather(r.queue, l, buf, done)
		case <-ctx.Done():
			if len(r.queue) == 0 {
				return nil
			}
			buf, done = gather(r.queue, <-r.queue, buf, done)
		}
		if n := r.dropped.Load(); n != reported {
			ev := core.Event{Kind: core.EventFinding, Time: r.now(), Stage: core.StageControl, Severity: core.SeverityHigh,
				Reason: "records_dropped", Detail: "the log was not read fast enough", Count: n - reported, Instance: r.context.Instance}
			buf = ocsf.Append(buf, &ev, r.context)
			reported = n
		}
		_, _ = r.out.Write(buf) // there is nowhere left to report to
		for _, ch := range done {
			close(ch)
		}
	}
}

// gather takes what else is waiting, up to 256 KiB, so that a busy log costs one
// write for many records.
func gather(queue <-chan line, first line, buf []byte, done []chan<- struct{}) ([]byte, []chan<- struct{}) {
	for l := first; ; {
		buf = append(buf, l.text...)
		if l.done != nil {
			done = append(done, l.done)
		}
		if len(buf) > 256<<10 {
			return buf, done
		}
		select {
		case l = <-queue:
		default:
			return buf, done
		}
	}
}

// Event records an event that is no connection of ours. With wait it returns when
// the record is written, or after a short bound.
func (r *Recorder) Event(ev core.Event, wait bool) {
	l := line{text: ocsf.Append(nil, &ev, r.context)}
	var written chan struct{}
	if wait {
		written = make(chan struct{})
		l.done = written
	}
	select {
	case r.queue <- l:
	default:
		r.dropped.Add(1)
		return
	}
	if !wait {
		return
	}
	timer := time.NewTimer(flushWait)
	defer timer.Stop()
	select {
	case <-written:
	case <-timer.C:
	}
}

// Own records an event of this daemon itself and tells the process daemon.
func (r *Recorder) Own(ev core.Event) {
	ev.Time, ev.Instance = r.now(), r.context.Instance
	r.Event(ev, false)
	if r.box != nil {
		r.box.Add(ev)
	}
}

// Stats is a snapshot of what was recorded.
type Stats struct {
	Allowed, Denied uint64
	Dropped         uint64                 // records the log's reader missed
	Reasons         map[core.Reason]uint64 // of denials
}

// Stats returns a snapshot.
func (r *Recorder) Stats() Stats {
	s := Stats{Allowed: r.allowed.Load(), Denied: r.denied.Load(), Dropped: r.dropped.Load(), Reasons: make(map[core.Reason]uint64)}
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
