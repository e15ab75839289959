package observe_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/pkg/core"
)

const own = core.InstanceID("0123456789abcdef0123456789abcdef")

func TestMeterCountsWhatRecordsTell(t *testing.T) {
	m := observe.NewMeter()
	for _, protocol := range []string{"tcp", "udp", "icmp", "icmpv6", "sctp", "evil\"}", ""} {
		m.Record(&core.Event{Kind: core.EventBypass, Instance: own, Protocol: protocol, Count: 2}, own)
	}
	m.Record(&core.Event{Kind: core.EventFinding, Instance: own, Reason: core.EventFenceDamaged}, own)
	m.Record(&core.Event{Kind: core.EventFinding, Instance: own, Reason: "evil"}, own)
	m.Record(&core.Event{Kind: core.EventConnection, Instance: "another", Host: "evil"}, own)
	m.Record(&core.Event{Kind: 200, Instance: "another"}, own)
	families := scrape(t, observe.NewRegistry(core.Build{Component: "supervisor-process", Version: "0.1.0"}, ready, &observe.Values{}, m))
	for name, want := range map[string]map[string]float64{
		observe.Bypass.Name:   {"tcp": 2, "udp": 2, "icmp": 2, "icmpv6": 2, "other": 4, "unknown": 2},
		observe.Findings.Name: {"fence_damaged": 1, "other": 1},
		observe.Records.Name:  {"": 11}, observe.Ready.Name: {"": 1},
		observe.PeerEvents.Name: {"unspecified": 0, "connection": 1, "bypass": 0, "workload": 0, "finding": 0, "lifecycle": 0},
	} {
		if got := values(families[name]); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// scrape serves the registry as the daemon does and parses what Prometheus would.
func scrape(t *testing.T, r *prometheus.Registry) map[string]*dto.MetricFamily {
	t.Helper()
	resp := get(t, r, ready, "/metrics")
	if problems, err := promlint.New(strings.NewReader(resp.Body.String())).Lint(); err != nil || len(problems) > 0 {
		t.Fatalf("promlint: %v %v", problems, err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatalf("the Prometheus parser: %v", err)
	}
	return families
}

func get(t *testing.T, r *prometheus.Registry, checks func() []observe.Check, url string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	observe.New(r, checks).ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
	return w
}

func ready() []observe.Check {
	return []observe.Check{{Name: "policy", OK: true, Detail: "generation 1"}, {Name: "peer", OK: true}}
}

// values are a family's by their labels.
func values(f *dto.MetricFamily) map[string]float64 {
	out := make(map[string]float64)
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		out[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return out
}

func TestReadinessIsComputedAtEveryRequest(t *testing.T) {
	checks := ready()
	r := observe.NewRegistry(core.Build{}, ready, &observe.Values{}, observe.NewMeter())
	now := func() []observe.Check { return checks }
	cases := []struct {
		name, url string
		ok        bool
		status    int
		body      string
	}{
		{"all hold", "/readyz", true, 200, "ready\n"},
		{"all hold, verbose", "/readyz?verbose", true, 200, "ok policy: generation 1\nok peer: \nready\n"},
		{"one stops to hold", "/readyz", false, 503, "FAILED peer: gone\n"},
		{"one stops to hold, verbose", "/readyz?verbose", false, 503, "ok policy: generation 1\nFAILED peer: gone\n"},
		{"the daemon lives all the same", "/livez", false, 200, "ok\n"},
		{"it holds again", "/readyz", true, 200, "ready\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			checks[1] = observe.Check{Name: "peer", OK: c.ok}
			if !c.ok {
				checks[1].Detail = "gone"
			}
			if w := get(t, r, now, c.url); w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.status, c.body)
			}
		})
	}
	if w := httptest.NewRecorder(); true {
		observe.New(r, now).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/readyz", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", w.Code)
		}
	}
}
