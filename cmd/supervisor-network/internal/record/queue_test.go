package record_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/pkg/core"
)

func allow(r *record.Recorder, id core.RequestID) {
	ev := r.Begin(id, time.Now())
	defer ev.End()
	ev.Allow(core.StageConnect, "r", 1)
}

// ids are the requests that are on record.
func ids(t *testing.T, out *log) (ids []string) {
	t.Helper()
	for _, l := range out.lines(t) {
		ids = append(ids, l.Unmapped.Request_ID[15:])
	}
	return ids
}

func TestWhatIsAllowedIsWrittenThoughNothingFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{}
		r := record.New(daemon, nil, record.Sink{Out: out})
		defer start(r)()
		for range 3 { // each time the queue was empty before
			before := len(out.lines(t))
			allow(r, "0000000000000001")
			time.Sleep(10 * time.Millisecond) // for others to be encoded with it, and then to be written with it
			synctest.Wait()
			if got := len(out.lines(t)); got != before+1 {
				t.Fatalf("%d records behind %d", got, before)
			}
		}
	})
}

func TestADenialIsBehindWhatWasAllowedBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{}
		r := record.New(daemon, nil, record.Sink{Out: out})
		defer start(r)()
		allow(r, "0000000000000001")
		allow(r, "0000000000000002")
		ev := r.Begin("0000000000000003", time.Now())
		ev.Deny(core.StageConnect, core.ReasonPolicyDenied, "no rule")
		if got := ids(t, out); len(got) != 3 || got[0] != "1" || got[1] != "2" || got[2] != "3" {
			t.Errorf("records when Deny returned: %q", got)
		}
	})
}

// TestWhatIsAllowedIsSeenInOrder: by whoever watches, when the queue is full, and no event
// before that.
func TestWhatIsAllowedIsSeenInOrder(t *testing.T) {
	r := record.New(daemon, nil, record.Sink{Out: &log{}})
	var seen []uint16
	r.Watch(func(ev *core.Event) { seen = append(seen, ev.Port) })
	queue := func(port uint16) {
		ev := r.Begin("0000000000000001", time.Now())
		ev.Event.Port = port
		ev.Allow(core.StageConnect, "r", 1)
		ev.End()
	}
	for i := range uint16(200) {
		queue(i)
		if want := int(i+1) / 64 * 64; len(seen) != want {
			t.Fatalf("%d of %d events were seen, want %d", len(seen), i+1, want)
		}
	}
	for i, port := range seen {
		if port != uint16(i) {
			t.Fatalf("event %d is seen as number %d", port, i)
		}
	}
}

func TestNothingWaitsBehindTheEnd(t *testing.T) {
	out := &log{}
	r := record.New(daemon, nil, record.Sink{Out: out})
	end := start(r)
	allow(r, "0000000000000001")
	end()
	if got := ids(t, out); len(got) != 1 {
		t.Errorf("records at the end: %q", got)
	}
	allow(r, "0000000000000002")
	if s := r.Stats(); s.Dropped != 1 || s.Allowed != 2 {
		t.Errorf("%d of %d dropped, want 1 of 2", s.Dropped, s.Allowed)
	}
}
