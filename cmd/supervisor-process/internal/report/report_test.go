package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/report"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// log is a stream that is read one write for each that its gate gives.
type log struct {
	bytes.Buffer
	gate chan struct{}
}

func (l *log) Write(p []byte) (int, error) {
	if l.gate != nil {
		<-l.gate
	}
	return l.Buffer.Write(p)
}

type line struct {
	Count    uint64
	Unmapped struct{ Reason string }
}

func (l *log) lines(t *testing.T) (out []line) {
	t.Helper()
	for text := range bytes.Lines(l.Bytes()) {
		var one line
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out = append(out, one)
	}
	return out
}

// start runs a Reporter; the returned function ends it and waits.
func start(box *outbox.Outbox, sinks ...report.Sink) (r *report.Reporter, end func()) {
	r = report.New(ocsf.Context{Instance: "0123456789abcdef0123456789abcdef"}, box, sinks...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, func() { cancel(); <-done }
}

func TestAnEventIsWrittenBeforeItIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it waits no longer than its bound, which no busy machine makes pass
		out, box := &log{}, outbox.New(0)
		r, end := start(box, report.Sink{Out: out})
		r.Own(core.Event{Kind: core.EventBypass, Reason: core.ReasonBypass})
		if n, waiting := len(out.lines(t)), box.Stats().Waiting; n != 1 || waiting != 1 {
			t.Errorf("%d written, %d queued", n, waiting)
		}
		end()
	})
}

func TestWhatThePeerReportsIsWrittenInOrderAndNotSentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the same
		out, box := &log{}, outbox.New(0)
		r, end := start(box, report.Sink{Out: out})
		var evs []core.Event
		for i := range uint64(300) {
			evs = append(evs, core.Event{Kind: core.EventConnection, Reason: core.ReasonPolicyDenied, Count: i + 2})
		}
		r.Peer(evs)
		lines := out.lines(t)
		if len(lines) != len(evs) || box.Stats().Waiting != 0 {
			t.Fatalf("%d of %d written when Peer returns, %d queued", len(lines), len(evs), box.Stats().Waiting)
		}
		for i, l := range lines {
			if l.Count != uint64(i)+2 {
				t.Fatalf("record %d has the count %d", i, l.Count)
			}
		}
		end()
	})
}

// TestALogThatNobodyReadsHoldsNobodyUp: neither identities nor the end of a damaged
// sandbox wait for it, and the network daemon is told all the same.
func TestALogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, file, box := &log{gate: make(chan struct{})}, &log{}, outbox.New(0)
		r, end := start(box, report.Sink{Out: out}, report.Sink{Out: file})
		began := time.Now()
		r.Here(core.Event{Kind: core.EventFinding})
		if d := time.Since(began); d != 0 {
			t.Errorf("a record of this daemon's own waited %s", d)
		}
		for range 100 {
			r.Own(core.Event{Kind: core.EventFinding, Reason: core.EventFenceDamaged})
			r.Peer([]core.Event{{Kind: core.EventConnection}})
		}
		if d := time.Since(began); d != 250*time.Millisecond {
			t.Errorf("200 events waited %s for a log that nobody reads, want a quarter of a second once", d)
		}
		if n := box.Stats().Waiting; n != 100 {
			t.Errorf("%d events are queued", n)
		}
		for r.Stats().Errors < 3 {
			r.Here(core.Event{Kind: core.EventFinding, Detail: "text of some length"})
		}
		sent := r.Stats().Events
		close(out.gate)
		end()
		lines := out.lines(t)
		if last := lines[len(lines)-1]; last.Unmapped.Reason != "records_dropped" || last.Count != 3 || uint64(len(lines))-1 != sent-3 {
			t.Errorf("of %d records %d are there, the last is %+v", sent, len(lines), last)
		}
		if n := uint64(len(file.lines(t))); n != sent {
			t.Errorf("%d of %d records are in the sink that is read", n, sent)
		}
	})
}
