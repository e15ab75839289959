package export_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/export"
)

func headersFile(t *testing.T, content string) export.Headers {
	t.Helper()
	path := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return export.Headers(path)
}

func TestHeadersAreReadStrictly(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "x-%d: v\n", i)
		}
		return b.String()
	}
	for name, tt := range map[string]struct {
		content string
		ok      bool
	}{
		"one":                      {"Authorization: Bearer 5ecret", true},
		"two":                      {"authorization: Bearer 5ecret\r\nx-tenant: a\n", true},
		"as many as may be":        {many(export.MaxHeaders), true},
		"one more":                 {many(export.MaxHeaders + 1), false},
		"as long as may be":        {"x: " + strings.Repeat("v", export.MaxHeaderBytes-3), true},
		"longer":                   {"x: " + strings.Repeat("v", export.MaxHeaderBytes-2), false},
		"nothing":                  {"", false},
		"no colon":                 {"5ecret", false},
		"no value":                 {"authorization: ", false},
		"no name":                  {": 5ecret", false},
		"an empty line between":    {"a: 5ecret\n\nb: 5ecret", false},
		"a name twice":             {"a: 5ecret\nA: 5ecret", false},
		"a name with a space":      {"a b: 5ecret", false},
		"gRPC's own":               {"grpc-timeout: 5ecret", false},
		"bytes":                    {"token-bin: 5ecret", false},
		"the protocol's own":       {"content-type: 5ecret", false},
		"a pseudo-header":          {":authority: 5ecret", false},
		"a control character":      {"a: 5ecret\x01", false},
		"a character not in ASCII": {"a: 5ecreté", false},
	} {
		err := headersFile(t, tt.content).Check()
		if (err == nil) != tt.ok || err != nil && strings.Contains(err.Error(), "5ecret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := export.Headers("/nowhere").Check(); err == nil {
		t.Error("a file that is not there can be used")
	}
}

// guarded is a collector behind TLS that takes only what shows the key.
type guarded struct {
	*collector
	root *x509.Certificate
	key  string // guarded by mu
}

func guard(t *testing.T) *guarded {
	t.Helper()
	other := httptest.NewTLSServer(nil)
	cert := other.TLS.Certificates[0]
	g := &guarded{collector: &collector{}, root: other.Certificate()}
	other.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = l.Addr().String()
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})), grpc.UnaryInterceptor(g.check))
	collogs.RegisterLogsServiceServer(s, g.collector)
	coltraces.RegisterTraceServiceServer(s, tracesOf{collector: g.collector})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return g
}

func (g *guarded) check(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	g.mu.Lock()
	want := g.key
	g.mu.Unlock()
	if got := md.Get("authorization"); len(got) != 1 || got[0] != want {
		return nil, status.Errorf(codes.Unauthenticated, "you are nobody")
	}
	return next(ctx, req)
}

// TestACollectorIsTrustedByItsOwnCAAndShownItsHeaders: and by nothing else, and the key
// is in no log.
func TestACollectorIsTrustedByItsOwnCAAndShownItsHeaders(t *testing.T) {
	g := guard(t)
	roots := x509.NewCertPool()
	roots.AddCert(g.root)
	file := headersFile(t, "authorization: Bearer 5ecret\n")
	for _, step := range []struct {
		name    string
		roots   *x509.CertPool
		headers export.Headers
		key     string
		later   string // what is in the file when the daemon runs
		taken   int
	}{
		{"its CA and its key", roots, file, "Bearer 5ecret", "", 1},
		{"no key", roots, "", "Bearer 5ecret", "", 0},
		{"another key", roots, file, "Bearer other", "", 0},
		{"a key that was changed", roots, file, "Bearer n3w", "Authorization: Bearer n3w", 1},
		{"a file that became something else", roots, file, "Bearer n3w", "Bearer n3w", 0},
		{"a CA that is not its own", x509.NewCertPool(), file, "Bearer 5ecret", "", 0},
	} {
		write := func(content string) {
			if err := os.WriteFile(string(file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("authorization: Bearer 5ecret\n")
		g.mu.Lock()
		g.key, g.logs = step.key, nil
		g.mu.Unlock()
		errs := &safe{}
		x, end := start(t, export.Options{Address: g.address, Roots: step.roots, Headers: step.headers, Log: slog.New(slog.NewTextHandler(errs, nil))})
		if step.later != "" {
			write(step.later)
		}
		x.Record(event("api.example.com"))
		end()
		g.mu.Lock()
		if len(g.logs) != step.taken || x.Dropped(export.Logs) != uint64(1-step.taken) {
			t.Errorf("%s: %d taken, %d dropped: %s", step.name, len(g.logs), x.Dropped(export.Logs), errs)
		}
		g.mu.Unlock()
		if text := errs.String(); strings.Contains(text, "5ecret") || strings.Contains(text, "n3w") || (step.taken == 0) != strings.Contains(text, "not taken by the collector") {
			t.Errorf("%s: the log says %s", step.name, text)
		}
	}
}

func TestHeadersAreNotSentInTheClear(t *testing.T) {
	c := collect(t)
	if _, err := export.Open(export.Options{Address: c.address, Clear: true, Headers: headersFile(t, "a: b"), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("headers for a collector without TLS are taken")
	}
}
