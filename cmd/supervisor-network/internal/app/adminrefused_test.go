package app

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/splitpod/splitpod/pkg/core"
)

// refusedCount is what the metric says of one reason.
func refusedCount(t *testing.T, d *daemon, reason core.Reason) float64 {
	t.Helper()
	families, err := d.metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "splitpod_admin_refused_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if is(m, reason) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric of %s", reason)
	return 0
}

func is(m *dto.Metric, reason core.Reason) bool {
	return len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == string(reason)
}

// TestWhoShowsNoTokenOrAnotherIsOnRecord: with the reason, where it came from and what
// was asked, and in the metric; never with what was shown.
func TestWhoShowsNoTokenOrAnotherIsOnRecord(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, from, host, shown, origin string
		unreadable                              bool
		status                                  int
		reason                                  core.Reason
		severity                                core.Severity
	}{
		"no token":                           {method: "GET", path: "/view.json", status: 401, reason: core.EventAdminTokenMissing, severity: core.SeverityLow},
		"no token, to decide":                {method: "POST", path: "/decision", status: 401, reason: core.EventAdminTokenMissing, severity: core.SeverityLow},
		"another token":                      {method: "GET", path: "/view.json", shown: "Bearer guessed-guessed", status: 401, reason: core.EventAdminTokenWrong, severity: core.SeverityMedium},
		"another token, to decide":           {method: "POST", path: "/decision", shown: "Bearer guessed-guessed", status: 401, reason: core.EventAdminTokenWrong, severity: core.SeverityMedium},
		"the token in another scheme":        {method: "GET", path: "/view.json", shown: "Basic " + adminToken, status: 401, reason: core.EventAdminTokenWrong, severity: core.SeverityMedium},
		"a file that holds none":             {method: "GET", path: "/view.json", shown: "Bearer " + adminToken, unreadable: true, status: 503, reason: core.EventAdminTokenUnread, severity: core.SeverityMedium},
		"not of loopback":                    {method: "GET", path: "/view.json", shown: "Bearer " + adminToken, from: "10.0.0.9:4000", status: 403, reason: core.EventAdminRefused, severity: core.SeverityLow},
		"by another name":                    {method: "GET", path: "/", host: "evil.example", status: 403, reason: core.EventAdminRefused, severity: core.SeverityLow},
		"a decision sent by another page":    {method: "POST", path: "/decision", shown: "Bearer " + adminToken, origin: "http://evil.example", status: 403, reason: core.EventAdminRefused, severity: core.SeverityLow},
		"the token, and nothing is recorded": {method: "GET", path: "/view.json", shown: "Bearer " + adminToken, status: 200},
		"the page, which holds nothing":      {method: "GET", path: "/", status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			d, seen := tokened(t)
			if c.unreadable {
				d.cfg.AdminToken += ".gone"
			}
			r := httptest.NewRequest(c.method, c.path, nil)
			r.RemoteAddr, r.Host = "127.0.0.1:4000", "localhost"
			if c.from != "" {
				r.RemoteAddr = c.from
			}
			if c.host != "" {
				r.Host = c.host
			}
			if c.shown != "" {
				r.Header.Set("Authorization", c.shown)
			}
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			w := httptest.NewRecorder()
			d.admin().ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("answered %d %s", w.Code, w.Body)
			}
			got := seen.calls()
			if c.reason == "" {
				if len(got) != 0 {
					t.Errorf("recorded: %+v", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d records: %+v", len(got), got)
			}
			ev := got[0]
			want := core.Event{Kind: core.EventLifecycle, Stage: core.StageAPI, Severity: c.severity, Reason: c.reason, UID: core.NoUID,
				Method: c.method, Path: c.path, Status: c.status, Count: 1, Instance: d.instance, Time: ev.Time, Detail: ev.Detail, Source: ev.Source}
			if diff := cmp.Diff(want, ev, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			if ev.Source.String() != r.RemoteAddr || ev.Detail == "" || strings.Contains(ev.Detail, "guessed") {
				t.Errorf("recorded from %s: %q", ev.Source, ev.Detail)
			}
			if n := refusedCount(t, d, c.reason); n != 1 {
				t.Errorf("counted %v times", n)
			}
		})
	}
}

// calls are the records of calls of the daemon's APIs.
func (e *events) calls() (out []core.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Stage == core.StageAPI {
			out = append(out, ev)
		}
	}
	return out
}

// TestGuessesWithoutEndFillNoLog: the first is recorded at once, the others once a minute
// with how many they were, and at the end; none hides one that matters more.
func TestGuessesWithoutEndFillNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen, counted := &events{}, 0
		a := &adminRefusals{record: func(ev core.Event) { ev.Stage = core.StageAPI; seen.add(&ev) }, count: func(core.Reason) { counted++ }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.run(ctx)
		}()
		guess := core.Event{Reason: core.EventAdminTokenWrong, Severity: core.SeverityMedium}
		synctest.Wait()
		for range 1000 {
			a.add(guess)
		}
		if recorded := seen.calls(); len(recorded) != 1 || recorded[0].Count != 1 {
			t.Fatalf("at once: %+v", recorded)
		}
		a.add(core.Event{Reason: core.EventAdminRefused, Severity: core.SeverityLow})
		a.socket(errors.New("uid 7"))
		if recorded := seen.calls(); len(recorded) != 3 || recorded[2].Severity != core.SeverityHigh || recorded[2].Detail != "uid 7" {
			t.Fatalf("another reason, and one that matters more: %+v", recorded)
		}
		time.Sleep(refusedEvery)
		synctest.Wait()
		if recorded := seen.calls(); len(recorded) != 4 || recorded[3].Count != 999 {
			t.Fatalf("after a minute: %+v", recorded)
		}
		a.add(guess) // in the minute after the second record
		if recorded := seen.calls(); len(recorded) != 4 {
			t.Fatalf("%d records", len(recorded))
		}
		cancel()
		<-done
		if recorded := seen.calls(); len(recorded) != 5 || recorded[4].Count != 1 || counted != 1003 {
			t.Errorf("at the end %d records, %d counted", len(recorded), counted)
		}
	})
}

// TestADecisionIsACallOnRecord: whether it was carried out or not. Of one that was carried out there is
// another one, of what it changed.
func TestADecisionIsACallOnRecord(t *testing.T) {
	d, seen := tokened(t)
	h := d.admin()
	p := pendingIn(t, h)
	if w := operator(h, "POST", "/decision", `{"id":"nobody","verdict":"reject"}`); w.Code != http.StatusConflict {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := operator(h, "POST", "/decision", `{"id":"`+p[0].ID+`","verdict":"approve","hash":"`+p[0].Hash+`"}`); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	got := seen.calls()
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	if ev := got[0]; ev.Reason != core.EventAdminFailed || ev.Path != "proposals.reject" || ev.UID != core.NoUID || !strings.Contains(ev.Detail, "nobody: ") {
		t.Errorf("the one that failed: %+v", ev)
	}
	if ev := got[1]; ev.Reason != core.EventAdminDecided || ev.Path != "proposals.approve" || !strings.Contains(ev.Detail, p[0].ID) {
		t.Errorf("the one that was carried out: %+v", ev)
	}
	if seen.find(core.EventProposalApproved) == "" || seen.find(core.EventRuleProposed) == "" {
		t.Error("no record of what was proposed, or of what was approved")
	}
}
