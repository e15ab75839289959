package outbox_test

import (
	"fmt"
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

func denial(host string) core.Event {
	return core.Event{Kind: core.EventConnection, Stage: core.StageConnect, Reason: core.ReasonPolicyDenied, Host: host, Port: 443}
}

func total(events []outbox.Numbered) (sum uint64) {
	for _, n := range events {
		sum += n.Event.Occurrences()
	}
	return sum
}

func TestNumbersStartAtOneWithoutGaps(t *testing.T) {
	o := outbox.New(8)
	for i := range 3 {
		o.Add(denial(fmt.Sprint("h", i)))
	}
	for i, n := range o.Pending(0, 10) {
		if n.Sequence != uint64(i+1) {
			t.Errorf("event %d has number %d", i, n.Sequence)
		}
	}
}

func TestUnacknowledgedEventsAreSentAgainUnchanged(t *testing.T) {
	o := outbox.New(2)
	o.Add(denial("a"))
	o.Add(denial("b"))
	first := o.Pending(0, 10)
	o.Add(denial("a")) // full, and "a" was sent already: must not change it
	again := o.Pending(0, 10)
	if len(first) != 2 || len(again) != 2 {
		t.Fatalf("got %d then %d events, want 2 and 2", len(first), len(again))
	}
	for i := range first {
		if first[i].Event.Occurrences() != again[i].Event.Occurrences() {
			t.Errorf("event %d changed after it was sent", i)
		}
	}
}

func TestAckForgetsOnlyWhatWasHandedOut(t *testing.T) {
	o := outbox.New(8)
	o.Add(denial("a"))
	o.Add(denial("b"))
	o.Ack(99)
	if got := o.Stats().Waiting; got != 2 {
		t.Fatalf("an acknowledgement of unseen numbers left %d waiting, want 2", got)
	}
	o.Pending(0, 1)
	o.Ack(99)
	left := o.Pending(0, 10)
	if len(left) != 1 || left[0].Event.Host != "b" {
		t.Fatalf("left %v, want only b", left)
	}
}

func TestFullQueueKeepsCounts(t *testing.T) {
	const limit, extra = 4, 1000
	o := outbox.New(limit)
	for i := range limit + extra {
		o.Add(denial(fmt.Sprint("h", i)))
	}
	o.Add(denial("h0")) // equal and unsent: merged, keeps its detail
	st := o.Stats()
	if st.Waiting != limit || st.Undetailed != extra {
		t.Fatalf("stats = %+v, want %d waiting and %d undetailed", st, limit, extra)
	}
	var sum uint64
	var last uint64
	for {
		batch := o.Pending(0, 100)
		if len(batch) == 0 {
			break
		}
		sum += total(batch)
		last = batch[len(batch)-1].Sequence
		o.Ack(last)
	}
	if sum != limit+extra+1 {
		t.Errorf("delivered %d occurrences, want %d", sum, limit+extra+1)
	}
	if last != limit+1 {
		t.Errorf("last number %d, want %d: overflow is one counted event", last, limit+1)
	}
}

func TestExactlyAtTheLimitNothingLosesDetail(t *testing.T) {
	o := outbox.New(4)
	for i := range 4 {
		o.Add(denial(fmt.Sprint("h", i)))
	}
	if st := o.Stats(); st.Undetailed != 0 || st.Waiting != 4 {
		t.Fatalf("stats = %+v", st)
	}
	o.Add(denial("one more"))
	if st := o.Stats(); st.Undetailed != 1 || st.Waiting != 4 {
		t.Fatalf("one above the limit: stats = %+v", st)
	}
}

func TestChangedIsSignalledForALateReader(t *testing.T) {
	o := outbox.New(4)
	o.Add(denial("a"))
	select {
	case <-o.Changed():
	default:
		t.Fatal("no signal after Add")
	}
}

func BenchmarkAddFull(b *testing.B) {
	o := outbox.New(1024)
	ev := denial("host.example")
	b.ReportAllocs()
	for b.Loop() {
		o.Add(ev)
	}
}
