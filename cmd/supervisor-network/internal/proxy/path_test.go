package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/mint"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// generous is for what comes, however busy the machine is. brief is for limits that a
// test waits for: short, and more than a busy machine takes for what must be within it.
const (
	generous = time.Minute
	brief    = 2 * time.Second
)

// world is the whole line between a workload and its origins, over loopback: only
// identities and addresses are made up.
type world struct {
	*Path
	t       testing.TB
	proxy   string
	records lines
	roots   *x509.CertPool // of the interception
	doc     string
	next    core.Generation
	newer   h2.Config   // of path.http2
	empty   func()      // closes the connections that pools keep
	stop    func()      // ends the daemon, as a signal does
	reached func() bool // an origin has what a test sent

	dials     atomic.Int64
	dialDelay atomic.Int64 // nanoseconds

	mu      sync.Mutex
	origins map[string]string // host:port → address; guarded by mu
}

// lines are records, one JSON text each.
type lines struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	forget bool // nothing is kept
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forget {
		return len(p), nil
	}
	return l.buf.Write(p)
}

func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(strings.Split(l.buf.String(), "\n"), func(s string) bool { return s == "" })
}

// endpoint is one line of a policy.
func endpoint(host string, port int, more string) string {
	return fmt.Sprintf("  %s_%d: {binaries: [{path: /x}], endpoints: [{host: %s, port: %d%s}]}\n", strings.ReplaceAll(host, ".", "_"), port, host, port, more)
}

// newWorld serves until the test ends. idle also is the time for a head.
func newWorld(t testing.TB, idle time.Duration, endpoints ...string) *world {
	t.Helper()
	w := &world{t: t, origins: make(map[string]string), doc: "version: 1\nnetwork_policies:\n"}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	ca, err := mint.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(ca.PEM())
	minter, err := mint.NewServer(ca, mint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := origin.New(origin.Config{Roots: []string{originRoot(t)}})
	if err != nil {
		t.Fatal(err)
	}
	w.newer = h2.Config{Dial: h2.Dialling(w.Dial, client.Handshake)}
	w.Path = &Path{Vault: &seal.Vault{}, Bodies: hold.New(1 << 20), Places: NewPlaces(1000),
		Policy: &decide.Engine{}, Dialer: w, Mint: minter, Meter: observe.NewMeter(), Live: new(Live), Assemblies: websocket.NewAssemblies(nil),
		Pool:        pool.New(pool.Config{Dial: w.Dial, Handshake: client.Handshake}),
		HTTP2:       h2.New(w.newer),
		Record:      record.New(ocsf.Context{Hostname: "test"}, nil, record.Sink{Out: &w.records}),
		HeadTimeout: idle, Idle: idle, IgnoreIdentity: true, Stopping: ctx,
	}
	w.publish(endpoints...)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.proxy = l.Addr().String()
	var served sync.WaitGroup
	pools, emptyPool := context.WithCancel(ctx)
	w.empty = func() {
		emptyPool()
		w.HTTP2.Close()
	}
	records, stopRecords := context.WithCancel(context.Background())
	for _, run := range []func(){
		func() { _ = w.Pool.Run(pools) },
		func() {
			opt := listen.Options{HeadTimeout: generous, DrainTimeout: time.Second, Gauge: listen.NewGauge(1000), Log: slog.New(slog.DiscardHandler)}
			_ = listen.Serve(ctx, l, opt, w.Serve)
			stopRecords()
		},
		func() { _ = w.Record.Run(records) },
	} {
		served.Go(run)
	}
	t.Cleanup(func() {
		cancel()
		served.Wait()
		w.empty()
	})
	return w
}

// publish puts a policy in force as the daemon does.
func (w *world) publish(endpoints ...string) {
	doc, _, err := policy.Parse("p.yaml", []byte(w.doc+strings.Join(endpoints, "")))
	if err != nil {
		w.t.Fatal(err)
	}
	w.next++
	snap, err := decide.Compile(context.Background(), doc, decide.Options{Generation: w.next, IgnoreBinaries: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Policy.Publish(snap)
	w.Live.Recheck(context.Background(), snap)
}

// Dial implements dialer.
func (w *world) Dial(ctx context.Context, p decide.Permit) (*net.TCPConn, error) {
	w.dials.Add(1)
	select {
	case <-time.After(time.Duration(w.dialDelay.Load())):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	address := w.origins[fmt.Sprintf("%s:%d", p.Host(), p.Port())]
	w.mu.Unlock()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &relay.Error{Reason: core.ReasonUpstreamUnreachable, Detail: "nobody answers there", Err: err}
	}
	return c.(*net.TCPConn), nil
}

// originRoot is what origins are trusted by: httptest's own certificate.
func originRoot(t testing.TB) string {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	path := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// origin serves host: port 443 in TLS with these protocols, or any other plainly.
func (w *world) origin(host string, port int, handler http.Handler, protocols ...string) {
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	if port == 443 {
		s.EnableHTTP2 = slices.Contains(protocols, "h2")
		s.TLS = &tls.Config{NextProtos: protocols}
		if !slices.Contains(protocols, "http/1.1") {
			s.TLS.GetConfigForClient = refuseOthers(s.TLS)
		}
		s.StartTLS()
	} else {
		s.Start()
	}
	w.t.Cleanup(s.Close)
	w.lead(host, port, s.Listener.Addr().String())
}

// refuseOthers takes crypto/tls's exception away: a server of h2 alone would speak
// HTTP/1.1 to clients that offer just that.
func refuseOthers(config *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil
		}
		c := config.Clone()
		c.GetConfigForClient, c.NextProtos = nil, []string{"none"}
		return c, nil
	}
}

// lead makes host resolve to an address.
func (w *world) lead(host string, port int, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.origins[fmt.Sprintf("%s:%d", host, port)] = address
}

// tunnel is a client's connection to host and port.
func (w *world) tunnel(host string, port int) net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.proxy)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(generous))
	fmt.Fprintf(c, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host, port, host, port)
	answer := make([]byte, len(established))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != established {
		w.t.Fatalf("CONNECT: %q, %v", answer, err)
	}
	return c
}

// secure is a client's TLS inside a tunnel.
func (w *world) secure(host string, protocols ...string) *tls.Conn {
	w.t.Helper()
	c := tls.Client(w.tunnel(host, 443), &tls.Config{RootCAs: w.roots, ServerName: host, NextProtos: protocols})
	if err := c.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// client is an HTTP client of the workload, in HTTP/2 where that is offered.
func (w *world) client(http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: w.roots},
		Proxy:                 func(r *http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: w.proxy}, nil },
		ExpectContinueTimeout: time.Second,
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: generous}
}

// answer reads one response.
func answer(t testing.TB, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// echo makes host, in TLS, say what it is told.
func (w *world) echo(host string) {
	s := httptest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{}
	s.StartTLS() // for its certificate
	config := s.TLS.Clone()
	s.Close()
	config.NextProtos = nil
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	w.lead(host, 443, l.Addr().String())
}
