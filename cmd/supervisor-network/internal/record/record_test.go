package record_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// log is a stream that can stall and fail.
type log struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
	err    error
	gate   chan struct{} // when set, each write takes one from it
}

func (l *log) Write(p []byte) (int, error) {
	if l.gate != nil {
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	if l.err != nil {
		return 0, l.err
	}
	return l.text.Write(p)
}

func (l *log) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

// line is what the tests look at in a record.
type line struct {
	Message  string
	Count    uint64
	Action   string
	Unmapped struct{ Reason, Request_ID string }
}

func (l *log) lines(t *testing.T) []line {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []line
	for text := range bytes.Lines(l.text.Bytes()) {
		var one line
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out = append(out, one)
	}
	return out
}

// start runs a recorder; the returned function ends it and waits.
func start(r *record.Recorder) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	return func() { cancel(); <-done }
}

func deny(r *record.Recorder) {
	ev := r.Begin(core.NewRequestID(), time.Now())
	defer ev.End()
	ev.Deny(core.StageConnect, core.ReasonPolicyDenied, "no rule")
}

func TestADenialIsWrittenBeforeDenyReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it waits no longer than its bound, which no busy machine makes pass
		out := &log{}
		r := record.New(daemon, nil, record.Sink{Out: out})
		defer start(r)()
		ev := r.Begin("0123456789abcdef", time.Now())
		ev.Deny(core.StageConnect, core.ReasonPolicyDenied, "no rule")
		if got := out.lines(t); len(got) != 1 || got[0].Action != "Denied" || got[0].Unmapped.Request_ID != "0123456789abcdef" {
			t.Errorf("records when Deny returned: %+v", got)
		}
	})
}

func TestAnEntryIsWrittenOnce(t *testing.T) {
	cases := map[string]struct {
		use  func(*record.Entry)
		want []string
	}{
		"ended without a word: an internal error that denied": {func(e *record.Entry) { e.End() }, []string{"internal_error"}},
		"ended twice": {func(e *record.Entry) { e.Allow(core.StageConnect, "r", 1); e.End(); e.End() }, []string{"allowed"}},
		"denied, then ended": {func(e *record.Entry) {
			e.Deny(core.StageConnect, core.ReasonSSRFDenied, "")
			e.End()
		}, []string{"ssrf_denied"}},
		"denied twice": {func(e *record.Entry) {
			e.Deny(core.StageConnect, core.ReasonSSRFDenied, "")
			e.Deny(core.StageConnect, core.ReasonPolicyDenied, "")
			e.End()
		}, []string{"ssrf_denied"}},
		"allowed, then failed": {func(e *record.Entry) {
			e.Allow(core.StageConnect, "r", 1)
			e.Fail(core.ReasonIdle, "")
			e.End()
		}, []string{"idle"}},
		"dropped": {func(e *record.Entry) { e.Drop(); e.End() }, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out := &log{}
			r := record.New(daemon, nil, record.Sink{Out: out})
			end := start(r)
			c.use(r.Begin("0123456789abcdef", time.Now()))
			end()
			var got []string
			for _, l := range out.lines(t) {
				got = append(got, l.Unmapped.Reason)
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("recorded %q, want %q", got, c.want)
			}
		})
	}
}

func TestRecordsKeepTheirOrderAndNoneIsLostAtTheEnd(t *testing.T) {
	out := &log{}
	r := record.New(daemon, nil, record.Sink{Out: out})
	end := start(r)
	const each, makers = 2000, 4
	var wg sync.WaitGroup
	for m := range makers {
		wg.Go(func() {
			for i := range each {
				r.Event(core.Event{Kind: core.EventConnection, Host: "h", Port: uint16(m), Count: uint64(i + 2)}, i%100 == 0)
			}
		})
	}
	wg.Wait()
	end()
	lines := out.lines(t)
	if len(lines) != each*makers || r.Stats().Dropped != 0 {
		t.Fatalf("%d records of %d, %d dropped", len(lines), each*makers, r.Stats().Dropped)
	}
	last := make(map[string]uint64)
	for _, l := range lines {
		if l.Count <= last[l.Message] {
			t.Fatalf("%s: %d after %d", l.Message, l.Count, last[l.Message])
		}
		last[l.Message] = l.Count
	}
}

func TestManyRecordsAreOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{}
		r := record.New(daemon, nil, record.Sink{Out: out})
		defer start(r)()
		for range 100 {
			r.Event(core.Event{}, false)
		}
		synctest.Wait()
		if n := out.count(); n != 0 {
			t.Errorf("%d writes before any record is due", n)
		}
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if n := len(out.lines(t)); n != 100 || out.count() != 1 {
			t.Errorf("%d records in %d writes, want 100 in 1", n, out.count())
		}
		time.Sleep(time.Hour)
		if out.count() != 1 {
			t.Error("the writer wakes up without a record")
		}
	})
}

// TestAStalledLogBlocksNobody fills the queue: what has no place is counted, exactly,
// and told behind what had.
func TestAStalledLogBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{gate: make(chan struct{})}
		r := record.New(daemon, nil, record.Sink{Out: out})
		end := start(r)
		r.Event(core.Event{}, false)
		time.Sleep(time.Second) // the writer holds one record and stands still
		sent := 1
		for r.Stats().Dropped == 0 {
			r.Event(core.Event{Detail: "small"}, false)
			sent++
		}
		for range 41 {
			r.Event(core.Event{Detail: "small"}, false)
		}
		sent += 41
		began := time.Now()
		deny(r)
		sent++
		if d := time.Since(began); d != 0 {
			t.Errorf("a denial without a place waited %s", d)
		}
		if got := r.Stats(); got.Dropped != 43 || got.Denied != 1 {
			t.Errorf("stats %+v, want 43 dropped and 1 denied", got)
		}
		close(out.gate)
		end()
		lines := out.lines(t)
		told := lines[len(lines)-1]
		if told.Unmapped.Reason != "records_dropped" || told.Count != 43 {
			t.Errorf("the last record is %+v, want 43 dropped", told)
		}
		if len(lines)-1+43 != sent {
			t.Errorf("%d records written and 43 dropped of %d", len(lines)-1, sent)
		}
	})
}

func TestTheQueueTakesItsLimitAndNotAByteMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		out := &log{gate: make(chan struct{})}
		r := record.New(daemon, nil, record.Sink{Out: out})
		end := start(r)
		size := func(detail int) int {
			var b log
			one := record.New(daemon, nil, record.Sink{Out: &b})
			stop := start(one)
			one.Event(core.Event{Detail: strings.Repeat("x", detail)}, false)
			stop()
			return b.text.Len()
		}
		base := size(1) - 1
		r.Event(core.Event{}, false)
		time.Sleep(time.Second)
		used := 0
		for limit-used > 2*(base+core.MaxDetailBytes) {
			r.Event(core.Event{Detail: strings.Repeat("x", core.MaxDetailBytes)}, false)
			used += base + core.MaxDetailBytes
		}
		rest := limit - used
		half := rest/2 - base
		r.Event(core.Event{Detail: strings.Repeat("x", half)}, false)
		used += base + half
		r.Event(core.Event{Detail: strings.Repeat("x", limit-used-base+1)}, false)
		if n := r.Stats().Dropped; n != 1 {
			t.Errorf("%d dropped at one byte above the limit", n)
		}
		r.Event(core.Event{Detail: strings.Repeat("x", limit-used-base)}, false)
		if n := r.Stats().Dropped; n != 1 {
			t.Errorf("%d dropped at the limit", n)
		}
		close(out.gate)
		end()
	})
}

func TestADenialWaitsForAStalledLogNoLongerThanItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{gate: make(chan struct{})}
		r := record.New(daemon, nil, record.Sink{Out: out})
		end := start(r)
		began := time.Now()
		deny(r)
		if d := time.Since(began); d != 250*time.Millisecond {
			t.Errorf("waited %s", d)
		}
		close(out.gate)
		end()
		if n := len(out.lines(t)); n != 1 {
			t.Errorf("%d records", n)
		}
	})
}

func TestOnlyTheFirstDenialWaitsForAStalledLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{gate: make(chan struct{})}
		r := record.New(daemon, nil, record.Sink{Out: out})
		end := start(r)
		deny(r)
		began := time.Now()
		for range 1000 {
			deny(r)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("1000 denials waited %s for a log that nobody reads", d)
		}
		out.gate <- struct{}{} // it is read again
		out.gate <- struct{}{}
		synctest.Wait()
		if n := len(out.lines(t)); n != 1001 {
			t.Errorf("%d records, want 1001", n)
		}
		go func() { time.Sleep(100 * time.Millisecond); out.gate <- struct{}{} }()
		began = time.Now()
		deny(r)
		if d, n := time.Since(began), len(out.lines(t)); d != 100*time.Millisecond || n != 1002 {
			t.Errorf("a denial waited %s for the log that is read, of %d records", d, n)
		}
		close(out.gate)
		end()
	})
}

func TestRecordsThatCannotBeWrittenAreCountedAndToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the same
		out := &log{err: errors.New("no space")}
		r := record.New(daemon, nil, record.Sink{Out: out})
		end := start(r)
		deny(r)
		deny(r)
		if n := r.Stats().Dropped; n != 2 {
			t.Errorf("%d dropped, want 2", n)
		}
		out.mu.Lock()
		out.err = nil
		out.mu.Unlock()
		deny(r)
		end()
		lines := out.lines(t)
		if len(lines) != 2 || lines[1].Count != 2 || lines[1].Unmapped.Reason != "records_dropped" {
			t.Errorf("after the log came back: %+v", lines)
		}
		deny(r)
		if n := r.Stats().Dropped; n != 3 {
			t.Errorf("%d dropped after the end, want 3", n)
		}
	})
}

func TestDenialsGoToTheProcessDaemonAndAllowedOnesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the same
		box := outbox.New(0)
		r := record.New(daemon, box, record.Sink{Out: &log{}})
		defer start(r)()
		deny(r)
		ev := r.Begin("0123456789abcdef", time.Now())
		ev.Allow(core.StageConnect, "r", 1)
		ev.End()
		r.Own(core.Event{Kind: core.EventLifecycle, Reason: "started"})
		got := box.Pending(0, 10)
		if len(got) != 2 || got[0].Event.Reason != core.ReasonPolicyDenied || got[1].Event.Reason != "started" {
			t.Errorf("in the outbox: %+v", got)
		}
		if s := r.Stats(); s.Allowed != 1 || s.Denied != 1 || s.Reasons[core.ReasonPolicyDenied] != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestADenialIsWrittenBeforeTheOtherDaemonHearsOfIt, which may have it on record alone
// otherwise.
func TestADenialIsWrittenBeforeTheOtherDaemonHearsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, box := &log{gate: make(chan struct{})}, outbox.New(0)
		r := record.New(daemon, box, record.Sink{Out: out})
		end := start(r)
		go deny(r)
		synctest.Wait()
		if n := box.Stats().Waiting; n != 0 {
			t.Errorf("%d events are on their way before they are written", n)
		}
		out.gate <- struct{}{}
		synctest.Wait()
		if n := box.Stats().Waiting; n != 1 || len(out.lines(t)) != 1 {
			t.Errorf("%d events are on their way, %d are written", n, len(out.lines(t)))
		}
		close(out.gate)
		end()
	})
}

// TestAStalledSinkDoesNotStallAnother holds files and stream apart.
func TestAStalledSinkDoesNotStallAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, file := &log{}, &log{gate: make(chan struct{})}
		r := record.New(daemon, nil, record.Sink{Out: lines, Text: true}, record.Sink{Out: file})
		end := start(r)
		began := time.Now()
		deny(r)
		if d := time.Since(began); d != 0 {
			t.Errorf("the denial waited %s for the second sink", d)
		}
		if text := lines.text.String(); !strings.Contains(text, " OCSF NET:OPEN [MED] DENIED ") {
			t.Errorf("the line is %q", text)
		}
		close(file.gate)
		end()
		if n := len(file.lines(t)); n != 1 {
			t.Errorf("%d records in the file", n)
		}
	})
}

// TestAHostileRequestIsOneShortLine is the log injection of a host, path and program
// of one MiB with everything that could end or repaint a line.
func TestAHostileRequestIsOneShortLine(t *testing.T) {
	hostile := "a\nb\r\x1b[31m\"}{\x00\xff\u2028\u202e\u009b" + strings.Repeat("h", 1<<20)
	out := &log{}
	r := record.New(daemon, nil, record.Sink{Out: out})
	end := start(r)
	ev := r.Begin("0123456789abcdef", time.Now())
	ev.Event.Host, ev.Event.Path, ev.Event.Method = hostile, hostile, hostile
	ev.Who(core.Identity{Program: core.Program{Path: hostile}, Ancestors: []core.Program{{Path: hostile}}})
	ev.Deny(core.StageListen, core.ReasonBadRequest, hostile)
	ev.End()
	end()
	if n := len(out.lines(t)); n != 1 {
		t.Errorf("%d lines", n)
	}
	text := out.text.String()
	if len(text) > 16<<10 || strings.ContainsAny(text, "\x1b\x00\r\u2028\u202e\u009b") {
		t.Errorf("record of %d bytes: %.200q", len(text), text)
	}
}
