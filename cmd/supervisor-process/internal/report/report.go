// Package report writes the process daemon's records and queues its events for the
// network daemon.
//
// It answers the threat of an event that is lost with a restart of the other
// daemon: an event is written here first, then kept until it is acknowledged. It
// does not decide what is an event.
package report

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// Sink is a place that every record goes to.
type Sink struct {
	Out  io.Writer
	Text bool // lines for people instead of OCSF
}

// Reporter writes records to its sinks. Make it with New. Safe for concurrent use.
type Reporter struct {
	encoder  *ocsf.Encoder
	instance core.InstanceID
	box      *outbox.Outbox // nil when there is no network daemon

	events atomic.Uint64
	errors atomic.Uint64

	sinks []Sink
	watch func(*core.Event) // sees every event before it is written; may be nil

	mu  sync.Mutex // one record after the other, in every sink
	buf []byte     // guarded by mu
}

// New makes a Reporter for one sink or several. box may be nil.
func New(c ocsf.Context, box *outbox.Outbox, sinks ...Sink) *Reporter {
	return &Reporter{sinks: sinks, encoder: ocsf.NewEncoder(c), instance: c.Instance, box: box}
}

// Watch lets f see every event that is recorded, for counting. It must not keep or
// change the event. Call Watch before anything is recorded.
func (r *Reporter) Watch(f func(*core.Event)) { r.watch = f }

// Own records an event of this daemon and queues it for the network daemon. Time
// and Instance are filled in.
func (r *Reporter) Own(ev core.Event) {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	ev.Instance = r.instance
	ev.Clip()
	r.write(&ev)
	if r.box != nil {
		r.box.Add(ev)
	}
}

// Peer records an event that the network daemon reported.
func (r *Reporter) Peer(ev core.Event) { r.write(&ev) }

// Stats is a snapshot of what was recorded.
type Stats struct {
	Events uint64
	Errors uint64 // records that could not be written
}

// Stats returns a snapshot.
func (r *Reporter) Stats() Stats {
	return Stats{Events: r.events.Load(), Errors: r.errors.Load()}
}

func (r *Reporter) write(ev *core.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events.Add(1)
	if r.watch != nil {
		r.watch(ev)
	}
	for _, s := range r.sinks {
		if s.Text {
			r.buf = r.encoder.AppendText(r.buf[:0], ev)
		} else {
			r.buf = r.encoder.Append(r.buf[:0], ev)
		}
		if _, err := s.Out.Write(r.buf); err != nil {
			r.errors.Add(1)
		}
	}
}
