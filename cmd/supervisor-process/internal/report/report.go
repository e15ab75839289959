// Package report writes the process daemon's records and queues its events for the
// network daemon.
//
// It answers the threats of an event that is lost with a restart of the other daemon,
// as an event is written here first, then kept until it is acknowledged; and of a log
// that nobody reads, for which the fence, identities and the end of a damaged sandbox
// would wait: package spool bounds that. It does not decide what is an event.
//
// Invariant: records leave in one order, in every sink.
package report

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

// Reporter writes records to its sinks. Make it with New and keep Run going. Safe for
// concurrent use.
type Reporter struct {
	encoder  *ocsf.Encoder
	instance core.InstanceID
	box      *outbox.Outbox    // nil when there is no network daemon
	watch    func(*core.Event) // sees every event before it is written; may be nil
	events   atomic.Uint64

	mu    sync.Mutex // one record after the other, in every sink
	sinks []sink
	buf   []byte // guarded by mu
}

// sink is a log and how it is written.
type sink struct {
	text bool
	*spool.Spool
}

// New makes a Reporter for one sink or several, of which records are waited for in the
// first. box may be nil.
func New(c ocsf.Context, box *outbox.Outbox, sinks ...Sink) *Reporter {
	r := &Reporter{encoder: ocsf.NewEncoder(c), instance: c.Instance, box: box}
	for _, s := range sinks {
		told := func(b []byte, dropped uint64) []byte { return r.encode(b, r.dropped(dropped), s.Text) }
		r.sinks = append(r.sinks, sink{s.Text, spool.New(s.Out, told)})
	}
	return r
}

func (r *Reporter) dropped(n uint64) *core.Event {
	return &core.Event{Kind: core.EventFinding, Time: time.Now(), Stage: core.StageControl, Severity: core.SeverityHigh,
		Reason: core.EventRecordsDropped, Detail: "the log was not read fast enough", Count: n, Instance: r.instance}
}

// Run writes what is recorded until ctx ends, then what is left.
func (r *Reporter) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range r.sinks {
		wg.Go(func() { s.Run(ctx) })
	}
	wg.Wait()
}

// Watch lets f see every event that is recorded, for counting. It must not keep or
// change the event. Call Watch before anything is recorded.
func (r *Reporter) Watch(f func(*core.Event)) { r.watch = f }

// Own records an event of this daemon and queues it for the network daemon, when it is
// written or after a short bound. Time and Instance are filled in.
func (r *Reporter) Own(ev core.Event) {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	ev.Instance = r.instance
	ev.Clip()
	r.sinks[0].Await(r.write(&ev, true))
	if r.box != nil {
		r.box.Add(ev)
	}
}

// Here records an event that only this daemon's log has. It waits for nothing.
func (r *Reporter) Here(ev core.Event) { r.write(&ev, false) }

// Peer records events that the network daemon reported, and returns when they are
// written or after a short bound.
func (r *Reporter) Peer(evs []core.Event) {
	for i := range evs {
		r.sinks[0].Await(r.write(&evs[i], i == len(evs)-1))
	}
}

// Stats is a snapshot of what was recorded.
type Stats struct {
	Events uint64
	Errors uint64 // records that a sink missed, of all sinks
}

// Stats returns a snapshot.
func (r *Reporter) Stats() Stats {
	s := Stats{Events: r.events.Load()}
	for _, out := range r.sinks {
		s.Errors += out.Lost()
	}
	return s
}

// write adds a record to every sink. The result is for the first one's Await.
func (r *Reporter) write(ev *core.Event, wait bool) (written spool.Written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events.Add(1)
	if r.watch != nil {
		r.watch(ev)
	}
	for i, s := range r.sinks {
		r.buf = r.encode(r.buf[:0], ev, s.text)
		if w := s.Add(r.buf, wait && i == 0); i == 0 {
			written = w
		}
	}
	return written
}

func (r *Reporter) encode(b []byte, ev *core.Event, text bool) []byte {
	if text {
		return r.encoder.AppendText(b, ev)
	}
	return r.encoder.Append(b, ev)
}
