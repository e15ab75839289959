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
	resp := httptest.NewRecorder()
	observe.New(r, ready).ServeHTTP(resp, httptest.NewRequest(http.MethodGet, "/metrics", nil))
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
