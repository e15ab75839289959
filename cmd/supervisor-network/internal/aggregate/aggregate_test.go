package aggregate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func denied(host string, port uint16, binary string, at time.Duration) *core.Event {
	return &core.Event{Kind: core.EventConnection, Time: start.Add(at), Stage: core.StageConnect, Reason: core.ReasonPolicyDenied,
		Host: host, Port: port, Program: core.Program{Path: binary}}
}

// counted is every occurrence of a batch, once.
func counted(b *Batch) (denials, allowed uint64) {
	for _, s := range b.Denials {
		denials += s.Count
	}
	for _, n := range b.Suppressed {
		denials += n
	}
	for _, s := range b.Activity {
		allowed += s.Count
	}
	return denials, allowed + b.SuppressedAllowed
}

// F16: many denials of one destination are one summary.
func TestAStormAtOneDestinationIsOneSummary(t *testing.T) {
	a := New()
	for i := range 5000 {
		a.Add(denied("evil.example.com", 443, "/usr/bin/curl", time.Duration(i)*time.Millisecond))
	}
	ssrf := denied("evil.example.com", 443, "/usr/bin/curl", 10*time.Second)
	ssrf.Stage, ssrf.Reason, ssrf.Method, ssrf.Path = core.StageSSRF, core.ReasonSSRFDenied, "GET", "/x"
	a.Add(ssrf)
	b := a.Pending()
	want := []Summary{{
		Key: Key{"evil.example.com", 443, "/usr/bin/curl"}, Count: 5001, First: start, Last: start.Add(10 * time.Second),
		Causes: []CauseCount{
			{Cause{core.StageConnect, core.ReasonPolicyDenied}, 5000, start, start.Add(4999 * time.Millisecond)},
			{Cause{core.StageSSRF, core.ReasonSSRFDenied}, 1, start.Add(10 * time.Second), start.Add(10 * time.Second)},
		},
		Samples: []Sample{{"GET", "/x", 1}},
	}}
	if diff := cmp.Diff(want, b.Denials, cmp.Comparer(func(x, y time.Time) bool { return x.Equal(y) })); diff != "" {
		t.Error(diff)
	}
	if b.Groups[GroupConnect] != 5000 || b.Groups[GroupSSRF] != 1 || b.Denied != 5001 || b.Total != 5001 {
		t.Errorf("groups %v, denied %d of %d", b.Groups, b.Denied, b.Total)
	}
}

// One million denials, every one of them of a new host, and nobody reads.
func TestAMillionDenialsWithoutAReaderAreBoundedAndCounted(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	a := New()
	before := heap()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				ev := denied(fmt.Sprintf("h%d-%d.example.com", w, i), uint16(i), "/usr/bin/curl", time.Duration(i))
				ev.Method, ev.Path = "GET", strings.Repeat("x", 200)
				a.Add(ev)
			}
		})
	}
	wg.Wait()
	grown := int64(heap()) - int64(before)
	if limit := int64(3 * MaxBytes); grown > limit {
		t.Errorf("%d events hold %d bytes, more than %d", n, grown, limit)
	}
	b := a.Pending()
	if got, _ := counted(b); got != uint64(n) || b.Denied != uint64(n) || b.Groups[GroupConnect] != uint64(n) {
		t.Errorf("counted %d, denied %d, group %d of %d", got, b.Denied, b.Groups[GroupConnect], n)
	}
	if len(b.Denials) > MaxKeys {
		t.Errorf("%d keys, more than %d", len(b.Denials), MaxKeys)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What was seen often stays when 100,000 hosts come by once.
func TestManyHostsDoNotPushOutWhatIsSeenOften(t *testing.T) {
	a := New()
	for range 10 {
		a.Add(denied("often.example.com", 443, "/usr/bin/git", 0))
	}
	for i := range 100_000 {
		a.Add(denied(fmt.Sprintf("h%d.example.com", i), 443, "/usr/bin/curl", time.Second))
	}
	b := a.Pending()
	found := false
	for _, s := range b.Denials {
		found = found || s.Host == "often.example.com" && s.Count == 10
	}
	if got, _ := counted(b); !found || got != 100_010 || len(b.Denials) > MaxKeys {
		t.Errorf("often seen: %v; %d counted in %d keys", found, got, len(b.Denials))
	}
	n := b.Suppressed[Cause{core.StageConnect, core.ReasonPolicyDenied}]
	if n < 90_000 {
		t.Errorf("only %d are said to have lost their key", n)
	}
	a.Add(denied("another.example.com", 443, "/usr/bin/curl", time.Second))
	if ever := a.Suppressed(); ever != n {
		t.Errorf("%d are said to have lost their key since the start, %d in the batch", ever, n)
	}
}

func TestSamplesAndCausesAreBounded(t *testing.T) {
	a := New()
	for i := range MaxSamples + 3 {
		ev := denied("h.example.com", 443, "/b", 0)
		ev.Method, ev.Path, ev.Reason = "GET", fmt.Sprintf("/%d", i), core.Reason(fmt.Sprintf("r%d", i))
		a.Add(ev)
	}
	long := denied("h.example.com", 443, "/b", 0)
	long.Path, long.Reason = "/"+strings.Repeat("x", MaxPathBytes), "r0"
	a.Add(long)
	s := a.Pending().Denials[0]
	if len(s.Samples) != MaxSamples || s.Unsampled != 4 {
		t.Errorf("%d samples and %d without", len(s.Samples), s.Unsampled)
	}
	if len(s.Causes) != MaxCauses || s.OtherCauses != MaxSamples+3-MaxCauses {
		t.Errorf("%d causes and %d others", len(s.Causes), s.OtherCauses)
	}
}

func TestABatchStaysUntilItIsAcknowledged(t *testing.T) {
	a := New()
	a.Add(denied("one.example.com", 443, "/b", 0))
	first := a.Pending()
	a.Add(denied("two.example.com", 443, "/b", 0))
	if again := a.Pending(); again != first {
		t.Fatal("another batch although the first was not acknowledged")
	}
	a.Ack(first.Number + 1) // of no batch
	if again := a.Pending(); again != first {
		t.Fatal("a number that was never handed out took the batch away")
	}
	a.Ack(first.Number)
	second := a.Pending()
	if second.Number == first.Number || len(second.Denials) != 1 || second.Denials[0].Host != "two.example.com" {
		t.Errorf("the next batch is %+v", second)
	}
	a.Ack(first.Number) // late, again
	if a.Pending() != second {
		t.Error("an old acknowledgement took the new batch away")
	}
}

func TestNothingIsLostOrCountedTwiceWhileBatchesAreTaken(t *testing.T) {
	a := New()
	const n, workers = 20_000, 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range n {
				ev := denied(fmt.Sprintf("h%d.example.com", i%3000), 443, fmt.Sprint(w), 0)
				if i%2 == 0 {
					ev.Verdict = core.Allow
				}
				a.Add(ev)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var denials, allowed uint64
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		b := a.Pending()
		d, ok := counted(b)
		denials, allowed = denials+d, allowed+ok
		a.Ack(b.Number)
	}
	if denials != n*workers/2 || allowed != n*workers/2 {
		t.Errorf("%d denials and %d allowed, want %d of each", denials, allowed, n*workers/2)
	}
}

func TestDeliveryIsTriedAgainAndMadeAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New()
		ctx, cancel := context.WithCancel(t.Context())
		var got []uint64
		var hosts []string
		fails := 2
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.Deliver(ctx, 10*time.Second, func(_ context.Context, b *Batch) error {
				got = append(got, b.Number)
				if fails > 0 {
					fails--
					return errors.New("away")
				}
				for _, s := range b.Denials {
					hosts = append(hosts, s.Host)
				}
				return nil
			})
		}()
		time.Sleep(15 * time.Second) // nothing to deliver
		a.Add(denied("one.example.com", 443, "/b", 0))
		time.Sleep(35 * time.Second) // two tries fail, one works
		a.Add(denied("two.example.com", 443, "/b", 0))
		cancel()
		<-done
		if diff := cmp.Diff([]string{"one.example.com", "two.example.com"}, hosts); diff != "" {
			t.Error(diff)
		}
		if len(got) != 4 || got[0] != got[1] || got[1] != got[2] || got[3] == got[2] {
			t.Errorf("batches %v: a failed one has to keep its number", got)
		}
	})
}

func TestWhatIsNoConnectionIsNotCounted(t *testing.T) {
	a := New()
	for _, kind := range []core.EventKind{core.EventUnspecified, core.EventWorkload, core.EventFinding, core.EventLifecycle, core.EventInference} {
		a.Add(&core.Event{Kind: kind})
	}
	if b := a.Pending(); !b.Empty() {
		t.Errorf("counted %d", b.Total)
	}
}

func TestGroupsAreAClosedSet(t *testing.T) {
	for _, tt := range []struct {
		stage  core.Stage
		reason core.Reason
		want   Group
	}{
		{core.StageConnect, core.ReasonPolicyDenied, GroupConnect},
		{core.StageForward, core.ReasonPolicyDenied, GroupForward},
		{core.StageRequest, core.ReasonPolicyDenied, GroupL7},
		{core.StageRequest, core.ReasonInvalidGraphQL, GroupL7Parse},
		{core.StageConnect, core.ReasonSSRFDenied, GroupSSRF},
		{core.StageSSRF, "anything", GroupSSRF},
		{core.StageBypass, core.ReasonBypass, GroupBypass},
		{core.StageRequest, core.ReasonPolicyChanged, GroupPolicyStale},
		{core.StageConnect, core.ReasonIdentityUnavailable, GroupIdentity},
		{core.StageListen, core.ReasonTooManyConnections, GroupLimits},
		{"from elsewhere", "made up", GroupUnknown},
	} {
		if got := groupOf(&core.Event{Stage: tt.stage, Reason: tt.reason}); got != tt.want || got.index() < 0 {
			t.Errorf("%s/%s is %s, want %s", tt.stage, tt.reason, got, tt.want)
		}
	}
}

func TestRecentKeepsTheNewestDenials(t *testing.T) {
	var r Recent
	for i := range MaxRecent + 10 {
		ev := denied(fmt.Sprint(i), 443, "/b", 0)
		ev.RequestID = core.RequestID(fmt.Sprint(i))
		r.Add(ev)
		ev.Verdict, ev.RequestID = core.Allow, "allowed"
		r.Add(ev)
	}
	last := r.Last(2)
	if len(last) != 2 || last[0].Host != "265" || last[1].Host != "264" {
		t.Errorf("the newest are %+v", last)
	}
	if n := len(r.Last(10 * MaxRecent)); n != MaxRecent {
		t.Errorf("%d are kept, want %d", n, MaxRecent)
	}
	if _, ok := r.Find("9"); ok {
		t.Error("one is kept that should be gone")
	}
	if ev, ok := r.Find("10"); !ok || ev.Host != "10" {
		t.Error("the oldest that fits is gone")
	}
}

func BenchmarkAddKnown(b *testing.B) {
	a := New()
	ev := denied("api.example.com", 443, "/usr/bin/curl", 0)
	ev.Verdict, ev.Method, ev.Path = core.Allow, "GET", "/x"
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a.Add(ev)
		}
	})
}

func BenchmarkAddNewHosts(b *testing.B) {
	a := New()
	b.ReportAllocs()
	for i := range b.N {
		a.Add(denied(fmt.Sprint(i), 443, "/usr/bin/curl", 0))
	}
}
