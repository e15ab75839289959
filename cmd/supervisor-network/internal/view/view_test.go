package view_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
)

const own = core.InstanceID("0123456789abcdef0123456789abcdef")

func denial(host string) *core.Event {
	return &core.Event{Kind: core.EventConnection, Instance: own, Time: time.Now(), RequestID: "0123456789abcdef",
		Host: host, Port: 443, Reason: core.ReasonPolicyDenied, Program: core.Program{Path: "/usr/bin/curl"}}
}

func allowance(host string) *core.Event {
	return &core.Event{Kind: core.EventConnection, Instance: own, Time: time.Now(), Verdict: core.Allow, Reason: core.ReasonAllowed,
		Host: host, Port: 443, BytesUp: 10, BytesDn: 100}
}

func see(w *view.Window) *view.Snapshot { return w.Snapshot(view.State{}, nil) }

func sum(in []uint64) (n uint64) {
	for _, v := range in {
		n += v
	}
	return n
}

func TestEventsCountAsWhatTheyAre(t *testing.T) {
	failure := allowance("a")
	failure.Reason = core.ReasonUpstreamTimeout
	for name, tt := range map[string]struct {
		event *core.Event
		want  view.Totals
	}{
		"allowed":                             {allowance("a"), view.Totals{Allowed: 1}},
		"allowed, then failed":                {failure, view.Totals{Failed: 1}},
		"denied":                              {denial("a"), view.Totals{Denied: 1}},
		"refused by the fence, several times": {&core.Event{Kind: core.EventBypass, Instance: "peer", Count: 5}, view.Totals{Bypassed: 5}},
		"a connection of the other daemon":    {&core.Event{Kind: core.EventConnection, Instance: "peer"}, view.Totals{}},
		"a finding":                           {&core.Event{Kind: core.EventFinding, Instance: own}, view.Totals{}},
		"an unknown kind":                     {&core.Event{Kind: 200, Instance: own}, view.Totals{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := view.New()
			w.Record(tt.event, own)
			s := see(w)
			if s.Totals != tt.want {
				t.Errorf("%+v, want %+v", s.Totals, tt.want)
			}
			for _, series := range []view.Series{s.Recent, s.Hour} {
				if got := (view.Totals{Allowed: sum(series.Allowed), Failed: sum(series.Failed), Denied: sum(series.Denied), Bypassed: sum(series.Bypassed)}); got != tt.want {
					t.Errorf("%d s steps: %+v, want %+v", series.StepSeconds, got, tt.want)
				}
			}
			if n := s.Denied.Total + s.Destinations.Total; n != tt.want.Allowed+tt.want.Failed+tt.want.Denied+tt.want.Bypassed {
				t.Errorf("%d are counted by name", n)
			}
		})
	}
}

func TestRatesAreTheLastTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := view.New()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		for range 30 {
			for range 4 {
				w.Record(allowance("a"), own)
			}
			w.Record(denial("b"), own)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		s := see(w)
		if s.Rates != (view.Rates{Allowed: 4, Denied: 1}) {
			t.Errorf("%+v", s.Rates)
		}
		if len(s.Recent.Allowed) != 60 || len(s.Hour.Allowed) != 360 || sum(s.Recent.Allowed) != 120 || sum(s.Hour.Denied) != 30 {
			t.Errorf("%v %v", s.Recent.Allowed, s.Hour.Denied)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := see(w); s.Rates != (view.Rates{}) || s.Totals.Allowed != 120 {
			t.Errorf("after a pause: %+v of %+v", s.Rates, s.Totals)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsOlderThanAnHourIsForgotten(t *testing.T) {
	for name, asleep := range map[string]bool{"while the window moves": false, "after a pause in which it did not": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := view.New()
				w.Record(denial("old"), own)
				see(w)
				const lasts = 50 * time.Minute
				wait := func(d time.Duration) {
					for range d / time.Minute {
						time.Sleep(time.Minute)
						if !asleep {
							see(w)
						}
					}
				}
				wait(lasts - time.Minute)
				if s := see(w); sum(s.Hour.Denied) != 1 || len(s.Denied.Rows) != 1 {
					t.Errorf("after %s: %+v", lasts, s.Denied)
				}
				wait(12 * time.Minute)
				s := see(w)
				if sum(s.Hour.Denied) != 0 || len(s.Denied.Rows) != 0 || s.Denied.Total != 0 {
					t.Errorf("after an hour: %+v", s.Denied)
				}
				if s.Totals.Denied != 1 {
					t.Error("the total since the start is lost")
				}
			})
		})
	}
}

func TestRefusalsAreToldApart(t *testing.T) {
	w := view.New()
	same := denial("h")
	port, reason, program := denial("h"), denial("h"), denial("h")
	port.Port, reason.Reason, program.Program.Path = 80, core.ReasonSSRFDenied, "/usr/bin/wget"
	for _, e := range []*core.Event{same, same, same, port, port, reason, program} {
		w.Record(e, own)
	}
	s := see(w)
	var got []string
	for _, r := range s.Denied.Rows {
		got = append(got, fmt.Sprintf("%d %s:%d %s %s", r.Count, r.Host, r.Port, r.Reason, r.Program))
	}
	want := []string{"3 h:443 policy_denied /usr/bin/curl", "2 h:80 policy_denied /usr/bin/curl"}
	if len(got) != 4 || !cmp.Equal(got[:2], want) || s.Denied.Others != 0 || s.Denied.Rows[0].Request != "0123456789abcdef" {
		t.Errorf("%q, others %d", got, s.Denied.Others)
	}
}

func TestDestinationsSumWhatWasCarried(t *testing.T) {
	w := view.New()
	failure := allowance("h")
	failure.Reason = core.ReasonIdle
	for _, e := range []*core.Event{allowance("h"), failure, allowance("i")} {
		w.Record(e, own)
	}
	r := see(w).Destinations.Rows[0]
	if r.Host != "h" || r.Count != 2 || r.Failed != 1 || r.Sent != 20 || r.Received != 200 || r.Reason != "" {
		t.Errorf("%+v", r)
	}
}

// TestCountsAddUpWhateverTheNames lets a workload choose 100,000 hosts. What is asked
// for often enough is listed all the same, and nothing is lost from the sum.
func TestCountsAddUpWhateverTheNames(t *testing.T) {
	w := view.New()
	const hosts, often = 100_000, 2000
	for i := range hosts {
		w.Record(denial(fmt.Sprintf("h%d.example.com", i)), own)
		if i >= hosts/2 && i%(hosts/2/often) == 0 { // begins when every place is taken
			w.Record(denial("often.example.com"), own)
		}
	}
	s := see(w)
	n := s.Denied.Others
	for _, r := range s.Denied.Rows {
		n += r.Count
	}
	if n != hosts+often || s.Denied.Total != hosts+often || s.Totals.Denied != hosts+often || sum(s.Recent.Denied) != hosts+often {
		t.Errorf("%d by name, %d by names and others, %d in all, want %d", n, s.Denied.Total, s.Totals.Denied, hosts+often)
	}
	if r := s.Denied.Rows[0]; r.Host != "often.example.com" || r.Count > often || r.Count < often*9/10 {
		t.Errorf("the first of %d is %s with %d", len(s.Denied.Rows), r.Host, r.Count)
	}
	if len(s.Denied.Rows) > 20 {
		t.Errorf("%d rows", len(s.Denied.Rows))
	}
}

// TestPlacesHoldAtTheirEdge: 128 names have a place each; with one more, the first has
// made room and begins anew.
func TestPlacesHoldAtTheirEdge(t *testing.T) {
	for names, want := range map[int]uint64{128: 4, 129: 2} {
		w := view.New()
		for i := range names {
			w.Record(denial(fmt.Sprint(i)), own)
			w.Record(denial(fmt.Sprint(i)), own)
		}
		w.Record(denial("0"), own)
		w.Record(denial("0"), own)
		rows := see(w).Denied.Rows
		if i := slices.IndexFunc(rows, func(r view.Row) bool { return r.Host == "0" }); i < 0 || rows[i].Count != want {
			t.Errorf("%d names: %+v, want a count of %d", names, rows, want)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	w := view.New()
	long := strings.Repeat("x", core.MaxFieldBytes)
	fill := func(from, to int) uint64 {
		for i := from; i < to; i++ {
			e := denial(fmt.Sprint(i, long))
			e.Program.Path, e.Reason = fmt.Sprint(i, long), core.Reason(fmt.Sprint(i, long[:60]))
			w.Record(e, own)
			a := allowance(fmt.Sprint(i, long))
			w.Record(a, own)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := fill(0, 1000)
	if after := fill(1000, 50_000); after > before+1<<20 {
		t.Errorf("%d bytes became %d", before, after)
	}
	runtime.KeepAlive(w)
}

// TestASnapshotHoldsOnlyWhatCanBeSeen puts the worst into every text there is.
func TestASnapshotHoldsOnlyWhatCanBeSeen(t *testing.T) {
	evil := "\x1b[2J\x1b]0;x\x07\r\nready\u009b1m\u202e\u200b\u0301\xff\x00" + strings.Repeat("\u202e", 2000)
	w := view.New()
	d, a := denial(evil), allowance(evil)
	d.Program.Path, d.Reason, d.RequestID = evil, core.Reason(evil), core.RequestID(evil)
	w.Record(d, own)
	w.Record(a, own)
	var list []string
	for range 1000 {
		list = append(list, evil)
	}
	p := view.Proposal{ID: evil, Source: evil, Rule: evil, Rationale: evil, Notes: list, Changes: list}
	var all []view.Proposal
	for range 1000 {
		all = append(all, p)
	}
	s := w.Snapshot(view.State{Build: evil, Instance: evil, Checks: []view.Check{{Name: evil, Detail: evil}}, Policy: view.Policy{Digest: evil},
		Peer: &view.Peer{Build: evil, Workload: evil}}, &view.Proposals{Pending: all, Others: 3})
	if n := len(s.Proposals.Pending); n != 32 || s.Proposals.Others != 3+1000-32 {
		t.Errorf("%d proposals, %d others", n, s.Proposals.Others)
	}
	if c := s.Proposals.Pending[0]; len(c.Changes) != 32 || !c.More {
		t.Errorf("%d changes, more %t", len(c.Changes), c.More)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 4<<20 { // what the watch command reads
		t.Errorf("%d bytes", len(data))
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	texts := 0
	walk(tree, func(text string) {
		texts++
		for _, r := range text {
			if !unicode.IsPrint(r) || unicode.Is(unicode.M, r) {
				t.Fatalf("%q contains %U", text, r)
			}
		}
		if len(text) > 310 {
			t.Fatalf("a text of %d bytes", len(text))
		}
	})
	if texts < 2000 {
		t.Errorf("only %d texts were looked at", texts)
	}
}

func walk(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, one := range v {
			walk(one, f)
		}
	case map[string]any:
		for k, one := range v {
			f(k)
			walk(one, f)
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"api.example.com":        "api.example.com",
		"/usr/bin/café 日本":       "/usr/bin/café 日本",
		"a\x1b[31mb":             `a\u{1b}[31mb`,
		"a\nb\tc":                `a\u{a}b\u{9}c`,
		"\u009b":                 `\u{9b}`,
		"a\u202eb":               `a\u{202e}b`,
		"e\u0301":                `e\u{301}`,
		"\xff\xfe":               `\xff\xfe`,
		`what is \u{1b} already`: `what is \u{1b} already`,
	} {
		if got := view.Visible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzVisible: the result is seen, is UTF-8, and is left alone the second time.
func FuzzVisible(f *testing.F) {
	f.Add("\x1b[2J\u202e\xff")
	f.Add("api.example.com")
	f.Fuzz(func(t *testing.T, s string) {
		got := view.Visible(s)
		if !utf8.ValidString(got) || view.Visible(got) != got {
			t.Errorf("%q becomes %q", s, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q becomes %q with %U", s, got, r)
			}
		}
	})
}

// TestRecordersAndReadersMayMeet is for the race detector, and counts.
func TestRecordersAndReadersMayMeet(t *testing.T) {
	w := view.New()
	const each = 2000
	var wg sync.WaitGroup
	for m := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(m)))
			for range each {
				w.Record(denial(fmt.Sprint(r.IntN(300))), own)
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			see(w)
		}
	})
	wg.Wait()
	if s := see(w); s.Totals.Denied != 4*each || s.Denied.Total != 4*each || sum(s.Hour.Denied) != 4*each {
		t.Errorf("%+v", s.Totals)
	}
}

func BenchmarkRecord(b *testing.B) {
	w := view.New()
	for name, e := range map[string]*core.Event{"allowed": allowance("api.example.com"), "denied": denial("evil.example.com")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					w.Record(e, own)
				}
			})
		})
	}
	b.Run("new name each time", func(b *testing.B) {
		b.ReportAllocs()
		hosts := make([]*core.Event, 4096)
		for i := range hosts {
			hosts[i] = denial(fmt.Sprintf("h%d.example.com", i))
		}
		for i := 0; b.Loop(); i++ {
			w.Record(hosts[i%len(hosts)], own)
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	w := view.New()
	for i := range 1000 {
		w.Record(denial(fmt.Sprintf("h%d.example.com", i)), own)
	}
	b.ReportAllocs()
	for b.Loop() {
		see(w)
	}
}

// TestWhatIsUnderWayIsBoundedAndAddsUp: at the limit all are shown, beyond it those with
// most, and the rest is counted.
func TestWhatIsUnderWayIsBoundedAndAddsUp(t *testing.T) {
	for _, n := range []int{0, 20, 21, 5000} {
		state := view.State{}
		var want uint64
		for i := range n {
			state.Active.Rows = append(state.Active.Rows, view.ActiveRow{Host: fmt.Sprintf("h%d", i), Program: strings.Repeat("\x1b", 1000), Count: uint64(i + 1)})
			want += uint64(i + 1)
		}
		a := view.New().Snapshot(state, nil).Active
		sum := a.Others
		for _, r := range a.Rows {
			sum += r.Count
			if len(r.Program) > 300 || strings.Contains(r.Program, "\x1b") {
				t.Errorf("%q", r.Program)
			}
		}
		if len(a.Rows) != min(n, 20) || sum != want || (a.Others > 0) != (n > 20) || n > 0 && a.Rows[0].Count != uint64(n) {
			t.Errorf("%d: %d rows, %d others, %d in all, want %d", n, len(a.Rows), a.Others, sum, want)
		}
	}
}

// TestOnlyWhatIsShownInFullHasAHash: a person cannot approve on the page what the page
// leaves out.
func TestOnlyWhatIsShownInFullHasAHash(t *testing.T) {
	many := func(n int) []string { return slices.Repeat([]string{"+ x"}, n) }
	for name, tt := range map[string]struct {
		p    view.Proposal
		want string
	}{
		"one change":                  {view.Proposal{Changes: many(1), Hash: "h"}, "h"},
		"as many as are listed":       {view.Proposal{Changes: many(32), Hash: "h"}, "h"},
		"one more":                    {view.Proposal{Changes: many(33), Hash: "h"}, ""},
		"a line that just fits":       {view.Proposal{Changes: []string{strings.Repeat("x", 300)}, Hash: "h"}, "h"},
		"a line that does not":        {view.Proposal{Changes: []string{"+ x", strings.Repeat("x", 301)}, Hash: "h"}, ""},
		"a line that is made visible": {view.Proposal{Changes: []string{"+ \x1b"}, Hash: "h"}, "h"},
		"one that then does not fit":  {view.Proposal{Changes: []string{strings.Repeat("\x1b", 299)}, Hash: "h"}, ""},
		"more than was compared":      {view.Proposal{Changes: many(1), More: true, Hash: "h"}, ""},
		"nothing that changes":        {view.Proposal{Hash: "h"}, ""},
	} {
		got := view.New().Snapshot(view.State{}, &view.Proposals{Pending: []view.Proposal{tt.p}}).Proposals.Pending[0]
		if got.Hash != tt.want {
			t.Errorf("%s: %q", name, got.Hash)
		}
	}
}
