package export_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/export"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
)

const own = core.InstanceID("0123456789abcdef0123456789abcdef")

// collector is a receiver of OTLP over gRPC.
type collector struct {
	collogs.UnimplementedLogsServiceServer
	address string

	mu       sync.Mutex
	logs     []*logs.LogRecord
	spans    []*traces.Span
	resource map[string]string
	err      error         // what is answered instead
	rejects  int64         // of each request
	gate     chan struct{} // when set, each request waits for it
	arrived  *sync.Cond    // of mu: more logs or spans
}

// await waits until so many logs and spans arrived.
func (c *collector) await(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.logs) < n || len(c.spans) < n {
		c.arrived.Wait()
	}
}

func (c *collector) more() {
	if c.arrived != nil {
		c.arrived.Broadcast()
	}
}

type tracesOf struct {
	coltraces.UnimplementedTraceServiceServer
	*collector
}

func collect(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: l.Addr().String()}
	c.arrived = sync.NewCond(&c.mu)
	s := grpc.NewServer()
	collogs.RegisterLogsServiceServer(s, c)
	coltraces.RegisterTraceServiceServer(s, tracesOf{collector: c})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return c
}

func (c *collector) Export(ctx context.Context, r *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rl := range r.ResourceLogs {
		c.resource = texts(rl.Resource.Attributes)
		for _, sl := range rl.ScopeLogs {
			c.logs = append(c.logs, sl.LogRecords...)
		}
	}
	c.more()
	return &collogs.ExportLogsServiceResponse{PartialSuccess: &collogs.ExportLogsPartialSuccess{RejectedLogRecords: c.rejects}}, nil
}

func (c tracesOf) Export(ctx context.Context, r *coltraces.ExportTraceServiceRequest) (*coltraces.ExportTraceServiceResponse, error) {
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
	c.more()
	return &coltraces.ExportTraceServiceResponse{PartialSuccess: &coltraces.ExportTracePartialSuccess{RejectedSpans: 2 * c.rejects}}, nil
}

func (c *collector) wait(ctx context.Context) error {
	c.mu.Lock()
	gate, err := c.gate, c.err
	c.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	return err
}

func texts(in []*common.KeyValue) map[string]string {
	out := make(map[string]string)
	for _, kv := range in {
		switch v := kv.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			out[kv.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			out[kv.Key] = fmt.Sprint(v.IntValue)
		}
	}
	return out
}

// open starts to export; end stops and waits until everything is out.
func open(t *testing.T, address string, errs io.Writer) (x *export.Exporter, end func()) {
	t.Helper()
	return start(t, export.Options{Address: address, Clear: true, Log: slog.New(slog.NewTextHandler(errs, nil))})
}

func start(t *testing.T, opt export.Options) (x *export.Exporter, end func()) {
	t.Helper()
	opt.Context = ocsf.Context{Build: core.Build{Component: "supervisor-network", Version: "0.1.0"}, Instance: own, Hostname: "h", SandboxUID: "uid-1"}
	x, err := export.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- x.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return x, end
}

func event(host string) *core.Event {
	return &core.Event{Kind: core.EventConnection, Instance: own, Time: time.Unix(1_800_000_000, 0), Duration: 2 * time.Second, RequestID: "89abcdef01234567",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Stage: core.StageRequest, Severity: core.SeverityMedium,
		Reason: core.ReasonPolicyDenied, Host: host, Port: 443, Method: "GET", Path: "/a", Program: core.Program{Path: "/usr/bin/curl"}, Generation: 7}
}

func TestARecordIsALogRecordAndASpan(t *testing.T) {
	c := collect(t)
	x, end := open(t, c.address, io.Discard)
	x.Record(event("api.example.com"))
	end()
	if len(c.logs) != 1 || len(c.spans) != 1 {
		t.Fatalf("%d logs, %d spans", len(c.logs), len(c.spans))
	}
	l, s := c.logs[0], c.spans[0]
	const traceID, spanID = core.TracePrefix + "89abcdef01234567", "89abcdef01234567"
	if hex.EncodeToString(l.TraceId) != traceID || hex.EncodeToString(l.SpanId) != spanID || hex.EncodeToString(s.TraceId) != traceID || hex.EncodeToString(s.SpanId) != spanID {
		t.Errorf("ids %x %x and %x %x", l.TraceId, l.SpanId, s.TraceId, s.SpanId)
	}
	if len(s.ParentSpanId) != 0 || len(s.Links) != 1 || hex.EncodeToString(s.Links[0].TraceId) != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the workload's trace context: parent %x, links %v", s.ParentSpanId, s.Links)
	}
	if s.Name != "GET" || s.EndTimeUnixNano-s.StartTimeUnixNano != 2e9 || s.EndTimeUnixNano != 1_800_000_000e9 || s.Status.Code != traces.Status_STATUS_CODE_ERROR || s.Status.Message != "policy_denied" {
		t.Errorf("%v", s)
	}
	if l.TimeUnixNano != 1_800_000_000e9 || l.EventName != "splitpod.connection" || l.SeverityNumber != logs.SeverityNumber_SEVERITY_NUMBER_WARN {
		t.Errorf("%v", l)
	}
	if body := l.Body.GetStringValue(); !strings.HasPrefix(body, `{"class_uid":4002,`) || !strings.HasSuffix(body, "}") || !strings.Contains(body, `"request_id":"89abcdef01234567"`) {
		t.Errorf("body %s", body)
	}
	for name, got := range map[string]map[string]string{"log": texts(l.Attributes), "span": texts(s.Attributes)} {
		for key, want := range map[string]string{"splitpod.verdict": "deny", "splitpod.reason": "policy_denied", "server.address": "api.example.com", "server.port": "443",
			"http.request.method": "GET", "url.path": "/a", "process.executable.path": "/usr/bin/curl", "splitpod.policy_generation": "7"} {
			if got[key] != want {
				t.Errorf("%s of the %s is %q, want %q", key, name, got[key], want)
			}
		}
	}
	if c.resource["service.name"] != "supervisor-network" || c.resource["k8s.pod.uid"] != "uid-1" || c.resource["service.instance.id"] != string(own) {
		t.Errorf("resource %v", c.resource)
	}
}

func TestOnlyOwnConnectionsAreSpans(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*core.Event)
		spans  int
	}{
		"allowed":                      {func(e *core.Event) { e.Verdict, e.Reason = core.Allow, core.ReasonAllowed }, 1},
		"without a method":             {func(e *core.Event) { e.Method = "" }, 1},
		"no trace context":             {func(e *core.Event) { e.TraceParent = "00-evil" }, 1},
		"bytes that are no text":       {func(e *core.Event) { e.Host, e.Path, e.Method, e.Detail = "\xff", "\xfe", "G\xff", "\xfd" }, 1},
		"the other daemon's":           {func(e *core.Event) { e.Instance = "peer" }, 0},
		"a bypass":                     {func(e *core.Event) { e.Kind = core.EventBypass }, 0},
		"a model call":                 {func(e *core.Event) { e.Kind = core.EventInference }, 0},
		"without an id":                {func(e *core.Event) { e.RequestID = "" }, 0},
		"an unknown kind and severity": {func(e *core.Event) { e.Kind, e.Severity = 200, 200 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := collect(t)
			x, end := open(t, c.address, io.Discard)
			e := event("h")
			tt.change(e)
			x.Record(e)
			end()
			if len(c.logs) != 1 || len(c.spans) != tt.spans || x.Dropped(export.Logs) != 0 {
				t.Errorf("%d logs, %d spans, %d dropped", len(c.logs), len(c.spans), x.Dropped(export.Logs))
			}
		})
	}
}

// TestACollectorThatStallsBlocksNobody: the queue takes so many and no more, the rest is
// counted, and what has a place arrives when the collector goes on.
func TestACollectorThatStallsBlocksNobody(t *testing.T) {
	c := collect(t)
	c.gate = make(chan struct{})
	x, end := open(t, c.address, io.Discard)
	const made = 20_000
	for range made { // or this never ends
		x.Record(event("h"))
	}
	dropped := x.Dropped(export.Logs)
	if dropped < made-4096-2*512 || dropped != x.Dropped(export.Traces) {
		t.Errorf("%d logs and %d spans dropped", dropped, x.Dropped(export.Traces))
	}
	close(c.gate)
	c.await(made - int(dropped)) // however slow this machine is; the end has its own bound
	end()
	if n := uint64(len(c.logs)) + x.Dropped(export.Logs); n != made || len(c.logs) < 4096 {
		t.Errorf("%d arrived, %d dropped", len(c.logs), x.Dropped(export.Logs))
	}
	if n := uint64(len(c.spans)) + x.Dropped(export.Traces); n != made {
		t.Errorf("%d spans arrived, %d dropped", len(c.spans), x.Dropped(export.Traces))
	}
}

func TestTheQueueHoldsAtItsEdge(t *testing.T) {
	x, err := export.Open(export.Options{Address: "127.0.0.1:1", Clear: true, Log: slog.New(slog.DiscardHandler), Context: ocsf.Context{Instance: own}})
	if err != nil {
		t.Fatal(err)
	}
	for range 4096 { // nobody runs it
		x.Record(event("h"))
	}
	if n := x.Dropped(export.Logs); n != 0 {
		t.Errorf("%d dropped at the limit", n)
	}
	x.Record(event("h"))
	if n := x.Dropped(export.Logs); n != 1 {
		t.Errorf("%d dropped above the limit", n)
	}
}

func TestWhatACollectorDoesNotTakeIsCountedAndTold(t *testing.T) {
	t.Run("an error", func(t *testing.T) {
		c := collect(t)
		c.err = status.Error(codes.PermissionDenied, "not\nyou")
		var errs safe
		x, end := open(t, c.address, &errs)
		x.Record(event("h"))
		end()
		if x.Dropped(export.Logs) != 1 || x.Dropped(export.Traces) != 1 || strings.Count(errs.String(), "not taken by the collector") != 1 {
			t.Errorf("%d %d %q", x.Dropped(export.Logs), x.Dropped(export.Traces), errs.String())
		}
	})
	t.Run("a part of a request", func(t *testing.T) {
		c := collect(t)
		c.rejects = 1
		x, end := open(t, c.address, io.Discard)
		for range 3 {
			x.Record(event("h"))
		}
		end()
		if x.Dropped(export.Logs) != 1 || x.Dropped(export.Traces) != 2 {
			t.Errorf("%d %d", x.Dropped(export.Logs), x.Dropped(export.Traces))
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		x, end := open(t, "127.0.0.1:1", io.Discard)
		x.Record(event("h"))
		began := time.Now()
		end()
		if took := time.Since(began); x.Dropped(export.Logs) != 1 || took > 25*time.Second { // a batch has 30 seconds, the end 5
			t.Errorf("%d dropped, the end took %s", x.Dropped(export.Logs), took)
		}
	})
}

type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *safe) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }
