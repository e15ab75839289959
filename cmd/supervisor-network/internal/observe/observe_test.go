package observe_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/pkg/core"
)

const own = core.InstanceID("0123456789abcdef0123456789abcdef")

func TestMeterCountsWhatRecordsTell(t *testing.T) {
	m := observe.NewMeter()
	m.Record(&core.Event{Kind: core.EventConnection, Instance: own, Stage: core.StageConnect, Verdict: core.Allow, Reason: core.ReasonAllowed, BytesUp: 3, BytesDn: 4, Duration: time.Second}, own)
	m.Record(&core.Event{Kind: core.EventConnection, Instance: own, Stage: core.StageRequest, Method: "GET", Application: core.ApplicationMCP, Reason: core.ReasonPolicyDenied}, own)
	m.Record(&core.Event{Kind: core.EventConnection, Instance: own, Stage: core.StageForward, Method: "GET", Reason: core.ReasonSSRFDenied}, own)
	m.Record(&core.Event{Kind: core.EventConnection, Instance: own, Stage: core.StageListen, Reason: core.ReasonBadRequest}, own)
	m.Record(&core.Event{Kind: core.EventBypass, Instance: "another", Count: 5}, own)
	m.Record(&core.Event{Kind: core.EventFinding, Instance: "another", Reason: core.EventFenceDamaged}, own)
	m.Record(&core.Event{Kind: core.EventFinding, Instance: "another", Reason: "evil"}, own)
	m.Record(&core.Event{Kind: core.EventLifecycle, Instance: own, Stage: core.StageConfig, Reason: core.EventPolicyLoaded}, own)
	m.Record(&core.Event{Kind: core.EventFinding, Instance: own, Stage: core.StageConfig, Reason: core.EventPolicyInvalid}, own)
	m.Record(&core.Event{Kind: core.EventInference, Instance: own, Model: "big", Status: 200, TokensIn: 11, TokensOut: 2}, own)
	m.Record(&core.Event{Kind: core.EventInference, Instance: own, Model: "big", Status: 200, TokensIn: 1}, own)
	m.Record(&core.Event{Kind: core.EventInference, Instance: own, Model: "small", Status: 999}, own)
	m.Dialled(time.Millisecond, nil)
	m.Dialled(time.Second, errors.New("no route"))
	m.WorkloadHandshake(time.Millisecond, nil)
	m.OriginHandshake(time.Millisecond, errors.New("expired"))
	end := m.Tunnel()
	m.Tunnel()()
	families := scrape(t, observe.NewRegistry(core.Build{Component: "supervisor-network", Version: "0.1.0"}, ready, &observe.Values{}, m))
	for name, want := range map[string]map[string]float64{
		observe.Decisions.Name: {"tunnel allowed allow": 1, "mcp policy_denied deny": 1, "http ssrf_denied deny": 1, "unread bad_request deny": 1},
		observe.Allowed.Name:   {"": 1},
		observe.Traffic.Name:   {"sent": 3, "received": 4}, observe.Loads.Name: {"loaded": 1, "refused": 1},
		observe.Dials.Name: {"ok": 1, "failed": 1}, observe.Handshakes.Name: {"ok workload": 1, "failed workload": 0, "ok origin": 0, "failed origin": 1},
		observe.Tunnels.Name: {"": 1}, observe.Ready.Name: {"": 1}, observe.Checks.Name: {"policy": 1, "peer": 1}, observe.Records.Name: {"": 12},
		observe.ModelCalls.Name: {"big 2xx": 2, "small 5xx": 1}, observe.ModelTokens.Name: {"in big": 12, "out big": 2, "in small": 0, "out small": 0},
		observe.Findings.Name: {"policy_invalid": 1}, observe.PeerFindings.Name: {"fence_damaged": 1, "other": 1},
	} {
		if got := values(families[name]); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := values(families[observe.PeerEvents.Name])["bypass"]; got != 5 {
		t.Errorf("%v bypass events of the peer, want 5", got)
	}
	denials := map[string]float64{"other": 0}
	for _, r := range core.Reasons() {
		denials[string(r)] = 0
	}
	delete(denials, "allowed")
	denials["policy_denied"], denials["ssrf_denied"], denials["bad_request"] = 1, 1, 1
	if got := values(families[observe.Denials.Name]); fmt.Sprint(got) != fmt.Sprint(denials) {
		t.Errorf("denials %v, want %v", got, denials)
	}
	end()
}

// TestARefusedPolicyIsSeenUntilAnotherIsInForce: an alert has to last as long as what it
// is about.
func TestARefusedPolicyIsSeenUntilAnotherIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := observe.NewMeter()
		r := observe.NewRegistry(core.Build{}, ready, &observe.Values{}, m)
		loaded := &core.Event{Kind: core.EventLifecycle, Instance: own, Reason: core.EventPolicyLoaded}
		refused := &core.Event{Kind: core.EventFinding, Instance: own, Reason: core.EventPolicyInvalid}
		began := time.Now()
		for i, step := range []struct {
			e     *core.Event
			since float64 // 0: it is in force
		}{{loaded, 0}, {refused, 60}, {refused, 60}, {&core.Event{Kind: core.EventFinding, Instance: own, Reason: core.EventPeerRefused}, 120}, {loaded, 0}} {
			m.Record(step.e, own)
			time.Sleep(time.Minute)
			got := values(scrape(t, r)[observe.RefusedAt.Name])[""]
			if since := float64(time.Now().Unix()) - got; step.since == 0 && got != 0 || step.since != 0 && since != step.since {
				t.Errorf("step %d, %s after the start: refused at %v", i, time.Since(began), got)
			}
		}
	})
}

// TestLabelsStayAClosedSet lets a workload choose whatever it can.
func TestLabelsStayAClosedSet(t *testing.T) {
	m := observe.NewMeter()
	r := observe.NewRegistry(core.Build{}, ready, &observe.Values{}, m)
	series := func() (n int) {
		for _, f := range scrape(t, r) {
			if strings.HasPrefix(f.GetName(), "splitpod_") {
				n += len(f.GetMetric())
			}
		}
		return n
	}
	fill := func(i int) {
		s := fmt.Sprintf("evil-%d\"}\n", i)
		for _, kind := range []core.EventKind{core.EventConnection, core.EventBypass, core.EventFinding, core.EventLifecycle, core.EventInference, 200} {
			for _, from := range []core.InstanceID{own, "peer"} {
				m.Record(&core.Event{Kind: kind, Instance: from, Stage: core.Stage(s), Reason: core.Reason(s), Host: s, Path: s, Method: s,
					Protocol: s, Application: core.Application(s), Rule: s, Program: core.Program{Path: s}}, own)
			}
		}
	}
	fill(0)
	before := series()
	for i := range 1000 {
		fill(i)
	}
	if after := series(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

func TestHistogramsAreNative(t *testing.T) {
	m := observe.NewMeter()
	m.Dialled(time.Second, nil)
	families, err := observe.NewRegistry(core.Build{}, ready, &observe.Values{}, m).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == observe.Dials.Name {
			if h := f.GetMetric()[1].GetHistogram(); len(h.GetPositiveSpan()) == 0 || h.GetSchema() == 0 {
				t.Errorf("%v has no native buckets", h)
			}
			return
		}
	}
	t.Error("no dials")
}

func BenchmarkRecord(b *testing.B) {
	m := observe.NewMeter()
	e := &core.Event{Kind: core.EventConnection, Instance: own, Stage: core.StageRequest, Method: "GET", Verdict: core.Allow, Reason: core.ReasonAllowed, Duration: 3 * time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Record(e, own)
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
