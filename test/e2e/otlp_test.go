package e2e_test

import (
	"context"
	"encoding/hex"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// collector takes logs and traces by OTLP over gRPC.
type collector struct {
	collogs.UnimplementedLogsServiceServer
	mu    sync.Mutex
	logs  []string // trace ids and bodies
	spans []string // trace ids and names
	whole []string // everything that came
}

type tracesOf struct {
	coltraces.UnimplementedTraceServiceServer
	of *collector
}

func (c *collector) Export(_ context.Context, r *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = append(c.whole, r.String())
	for _, rl := range r.ResourceLogs {
		for _, sl := range rl.ScopeLogs {
			for _, l := range sl.LogRecords {
				c.logs = append(c.logs, hex.EncodeToString(l.TraceId)+" "+l.Body.GetStringValue())
			}
		}
	}
	return &collogs.ExportLogsServiceResponse{}, nil
}

func (c tracesOf) Export(_ context.Context, r *coltraces.ExportTraceServiceRequest) (*coltraces.ExportTraceServiceResponse, error) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.whole = append(c.of.whole, r.String())
	for _, rs := range r.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.of.spans = append(c.of.spans, hex.EncodeToString(s.TraceId)+" "+s.Name)
			}
		}
	}
	return &coltraces.ExportTraceServiceResponse{}, nil
}

// everything that came so far.
func (c *collector) everything() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.whole, "\n")
}

// newCollector serves one and returns where.
func newCollector(t *testing.T) (*collector, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c, s := &collector{}, grpc.NewServer()
	collogs.RegisterLogsServiceServer(s, c)
	coltraces.RegisterTraceServiceServer(s, tracesOf{of: c})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return c, "http://" + l.Addr().String()
}

// TestRecordsAreCopiedToACollector: whatever is written is sent too, to the last record,
// under the same trace id.
func TestRecordsAreCopiedToACollector(t *testing.T) {
	c, at := newCollector(t)
	p := standalone(t, policyText, "--otlp-endpoint", at)
	talk(t, "GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n")
	talk(t, "CONNECT other.demo.test:443 HTTP/1.1\r\nHost: other.demo.test:443\r\n\r\n")
	p.network.kill(syscall.SIGTERM)
	if code := p.network.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var written []string
	for line := range strings.Lines(p.network.out.String()) {
		written = append(written, strings.TrimSpace(line))
	}
	all := strings.Join(c.logs, "\n")
	for _, line := range written {
		if !strings.Contains(all, line) {
			t.Errorf("not sent: %s", line)
		}
	}
	if len(c.logs) != len(written) || len(written) < 4 {
		t.Errorf("%d were written, %d sent", len(written), len(c.logs))
	}
	for _, name := range []string{"GET", "connect"} {
		found := false
		for _, span := range c.spans {
			id, is, _ := strings.Cut(span, " ")
			found = found || is == name && strings.Contains(all, id+" {") && strings.Contains(p.network.out.String(), `"trace_id":"`+id+`"`)
		}
		if !found {
			t.Errorf("no span %s joins a record: %q", name, c.spans)
		}
	}
}

// TestADeadCollectorCostsNothing but its copies.
func TestADeadCollectorCostsNothing(t *testing.T) {
	p := standalone(t, policyText, "--otlp-endpoint", "http://127.0.0.1:1", "--admin-listen", "127.0.0.1:"+adminPort)
	if out := talk(t, "GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n"); !strings.Contains(out, "hello from") {
		t.Errorf("%q", out)
	}
	if status, body := fetch(t, "http://127.0.0.1:"+adminPort+"/metrics"); status != 200 || !strings.Contains(string(body), `splitpod_otlp_dropped_total{signal="logs"}`) {
		t.Errorf("%d %.200s", status, body)
	}
	p.network.kill(syscall.SIGTERM)
	if code := p.network.wait(t); code != 0 || !strings.Contains(p.network.err.String(), "not taken by the collector") {
		t.Errorf("exit code %d, %s", code, p.network.err)
	}
}
