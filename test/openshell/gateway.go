// Package openshell is a test double of somebody else's server: an OpenShell gateway, as far
// as a sandbox sees one. It speaks gRPC over TCP, with or without TLS, and is as strict as
// the real one about who asks; it stores nothing, and judges no policy.
//
// It answers the threat of tests that agree with the daemon about what a gateway does: what
// it expects and answers is written from the description of the protocol.
package openshell

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
)

// SandboxID is the sandbox that a Gateway knows.
const SandboxID = "0b1f0f0e-7f0d-4f55-9a59-000000000001"

// Gateway is the double. Make it with Start.
type Gateway struct {
	gatewayv1.UnimplementedOpenShellServer
	Address string
	t       testing.TB
	server  *grpc.Server

	mu       sync.Mutex
	changed  *sync.Cond
	config   *gatewayv1.GetSandboxConfigResponse // guarded by mu; nil: no such sandbox
	failing  map[string]error                    // guarded by mu; by method
	tokens   map[string]bool                     // guarded by mu; sandbox tokens that are taken
	accounts map[string]string                   // guarded by mu; a service account's token → the sandbox's
	renewed  map[string]string                   // guarded by mu; token → what it is refreshed to
	first    *gatewayv1.GatewayMessage           // guarded by mu; in the place of the acceptance
	calls    []string                            // guarded by mu; methods that were asked for
	reports  []*gatewayv1.ReportPolicyStatusRequest
	exits    []*gatewayv1.ReportMainProcessExitRequest
	hellos   []*gatewayv1.SupervisorHello
	beats    int
	session  *session          // guarded by mu; the newest
	waiting  map[string]*Relay // guarded by mu; relays by channel
	opened   int
}

type session struct {
	send   chan *gatewayv1.GatewayMessage
	result map[string]chan *gatewayv1.RelayOpenResult
	end    chan struct{} // closed: the gateway ends it
}

// Start serves until the test ends. TLS may be nil. Nobody's token is taken yet.
func Start(t testing.TB, address string, secure *tls.Config) *Gateway {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Address: l.Addr().String(), t: t, failing: make(map[string]error), tokens: make(map[string]bool),
		accounts: make(map[string]string), renewed: make(map[string]string), waiting: make(map[string]*Relay)}
	g.changed = sync.NewCond(&g.mu)
	options := []grpc.ServerOption{grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream), grpc.MaxRecvMsgSize(1 << 20),
		grpc.StaticStreamWindowSize(64 << 10), grpc.StaticConnWindowSize(1 << 20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true})}
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
	}
	g.server = grpc.NewServer(options...)
	gatewayv1.RegisterOpenShellServer(g.server, g)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.server.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return g
}

// Stop ends the gateway at once, as if its machine were gone.
func (g *Gateway) Stop() { g.server.Stop() }

func (g *Gateway) do(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	g.changed.Broadcast()
}

// generous is for what comes, however busy the machine is.
const generous = 5 * time.Minute

// wait returns when something holds.
func (g *Gateway) wait(what string, holds func() bool) {
	g.t.Helper()
	late := false
	timer := time.AfterFunc(generous, func() { g.do(func() { late = true }) })
	defer timer.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for !holds() && !late {
		g.changed.Wait()
	}
	if !holds() {
		g.t.Fatalf("waited in vain for %s", what)
	}
}

// Take makes a sandbox's token one that is taken, and Revoke one that is not.
func (g *Gateway) Take(token string)   { g.do(func() { g.tokens[token] = true }) }
func (g *Gateway) Revoke(token string) { g.do(func() { delete(g.tokens, token) }) }

// Exchange has a service account's token exchanged for a sandbox's, Renew one refreshed.
func (g *Gateway) Exchange(account, token string) {
	g.do(func() { g.accounts[account], g.tokens[token] = token, true })
}

// Renew has a token refreshed to another one.
func (g *Gateway) Renew(token, next string) {
	g.do(func() { g.renewed[token], g.tokens[next] = next, true })
}

// Fail has a method fail; nil: not any more.
func (g *Gateway) Fail(method string, err error) { g.do(func() { g.failing[method] = err }) }

// Configure says what GetSandboxConfig answers; nil: there is no such sandbox.
func (g *Gateway) Configure(c *gatewayv1.GetSandboxConfigResponse) { g.do(func() { g.config = c }) }

// FirstWord is what a session begins with, in the place of its acceptance; nil: that.
func (g *Gateway) FirstWord(m *gatewayv1.GatewayMessage) { g.do(func() { g.first = m }) }

// Called waits until a method was called n times.
func (g *Gateway) Called(method string, n int) {
	g.wait("a call of "+method, func() bool { return g.count(method) >= n })
}

// Calls is how often a method was called.
func (g *Gateway) Calls(method string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count(method)
}

func (g *Gateway) count(method string) (n int) {
	for _, c := range g.calls {
		if c == method {
			n++
		}
	}
	return n
}

// Report waits for the n-th acknowledgement, from 0 on.
func (g *Gateway) Report(n int) *gatewayv1.ReportPolicyStatusRequest {
	g.wait("an acknowledgement", func() bool { return len(g.reports) > n })
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reports[n]
}

// Reports is how many acknowledgements there are.
func (g *Gateway) Reports() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.reports)
}

// Exit waits for a report of the workload's end.
func (g *Gateway) Exit() *gatewayv1.ReportMainProcessExitRequest {
	g.wait("the end of the workload", func() bool { return len(g.exits) > 0 })
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.exits[0]
}

// Hello waits for the n-th session, from 0 on, and returns what it began with.
func (g *Gateway) Hello(n int) *gatewayv1.SupervisorHello {
	g.wait("a session", func() bool { return len(g.hellos) > n })
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hellos[n]
}

// Sessions is how many sessions were begun.
func (g *Gateway) Sessions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.hellos)
}

// Beat waits for a heartbeat.
func (g *Gateway) Beat() { g.wait("a heartbeat", func() bool { return g.beats > 0 }) }

// Idle waits until there is no session.
func (g *Gateway) Idle() { g.wait("the end of the session", func() bool { return g.session == nil }) }

// EndSession ends the session that there is.
func (g *Gateway) EndSession() {
	g.wait("a session", func() bool { return g.session != nil })
	g.do(func() {
		if g.session != nil {
			close(g.session.end)
			g.session = nil
		}
	})
}

// admit takes a call of a token that may make it. Its refusal repeats the token, as a
// careless server would.
func (g *Gateway) admit(ctx context.Context, method string) error {
	method = method[strings.LastIndexByte(method, '/')+1:]
	md, _ := metadata.FromIncomingContext(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, method)
	g.changed.Broadcast()
	shown := md.Get("authorization")
	if len(shown) != 1 {
		return status.Error(codes.Unauthenticated, "no token")
	}
	token, ok := strings.CutPrefix(shown[0], "Bearer ")
	_, account := g.accounts[token]
	switch {
	case !ok || !account && !g.tokens[token]:
		return status.Error(codes.Unauthenticated, "not a token of ours: "+token)
	case account != (method == "IssueSandboxToken"):
		return status.Error(codes.PermissionDenied, "not with this token: "+token)
	}
	return g.failing[method]
}

func (g *Gateway) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := g.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if r, ok := req.(interface{ GetSandboxId() string }); ok && r.GetSandboxId() != SandboxID {
		return nil, status.Error(codes.PermissionDenied, "another sandbox")
	}
	return next(ctx, req)
}

func (g *Gateway) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := g.admit(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

// GetSandboxConfig implements OpenShellServer.
func (g *Gateway) GetSandboxConfig(context.Context, *gatewayv1.GetSandboxConfigRequest) (*gatewayv1.GetSandboxConfigResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.config == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return proto.CloneOf(g.config), nil
}

func shown(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.TrimPrefix(md.Get("authorization")[0], "Bearer ")
}

// IssueSandboxToken implements OpenShellServer.
func (g *Gateway) IssueSandboxToken(ctx context.Context, _ *gatewayv1.IssueSandboxTokenRequest) (*gatewayv1.IssueSandboxTokenResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &gatewayv1.IssueSandboxTokenResponse{Token: g.accounts[shown(ctx)]}, nil
}

// RefreshSandboxToken implements OpenShellServer.
func (g *Gateway) RefreshSandboxToken(ctx context.Context, _ *gatewayv1.RefreshSandboxTokenRequest) (*gatewayv1.RefreshSandboxTokenResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next, ok := g.renewed[shown(ctx)]
	if !ok {
		return nil, status.Error(codes.Unavailable, "not now")
	}
	return &gatewayv1.RefreshSandboxTokenResponse{Token: next}, nil
}

// ReportPolicyStatus implements OpenShellServer.
func (g *Gateway) ReportPolicyStatus(_ context.Context, r *gatewayv1.ReportPolicyStatusRequest) (*gatewayv1.ReportPolicyStatusResponse, error) {
	if r.GetVersion() == 0 || r.GetStatus() != gatewayv1.PolicyStatus_POLICY_STATUS_LOADED && r.GetStatus() != gatewayv1.PolicyStatus_POLICY_STATUS_FAILED {
		return nil, status.Error(codes.InvalidArgument, "a revision, and loaded or failed")
	}
	g.do(func() { g.reports = append(g.reports, r) })
	return &gatewayv1.ReportPolicyStatusResponse{}, nil
}

// ReportMainProcessExit implements OpenShellServer.
func (g *Gateway) ReportMainProcessExit(_ context.Context, r *gatewayv1.ReportMainProcessExitRequest) (*gatewayv1.ReportMainProcessExitResponse, error) {
	g.do(func() { g.exits = append(g.exits, r) })
	return &gatewayv1.ReportMainProcessExitResponse{}, nil
}

// ConnectSupervisor implements OpenShellServer. A new session takes the place of the one
// before.
func (g *Gateway) ConnectSupervisor(stream grpc.BidiStreamingServer[gatewayv1.SupervisorMessage, gatewayv1.GatewayMessage]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := m.GetHello()
	if hello == nil || hello.GetInstanceId() == "" {
		return status.Error(codes.InvalidArgument, "a session begins with hello")
	}
	if hello.GetSandboxId() != SandboxID {
		return status.Error(codes.PermissionDenied, "another sandbox")
	}
	s := &session{send: make(chan *gatewayv1.GatewayMessage, 1024), result: make(map[string]chan *gatewayv1.RelayOpenResult), end: make(chan struct{})}
	first := &gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_SessionAccepted{SessionAccepted: &gatewayv1.SessionAccepted{SessionId: "s-" + hello.GetInstanceId(), HeartbeatIntervalSecs: 15}}}
	g.do(func() {
		g.hellos = append(g.hellos, hello)
		if g.first != nil {
			first = g.first
		} else {
			g.session = s
		}
	})
	defer g.do(func() {
		if g.session == s {
			g.session = nil
		}
	})
	if err := stream.Send(first); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			g.heard(s, m)
		}
	}()
	for {
		select {
		case m := <-s.send:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-gone:
			return nil
		case <-s.end:
			return nil
		}
	}
}

func (g *Gateway) heard(s *session, m *gatewayv1.SupervisorMessage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.GetHeartbeat() != nil {
		g.beats++
	}
	if r := m.GetRelayOpenResult(); r != nil {
		if c := s.result[r.GetChannelId()]; c != nil {
			c <- r
		}
	}
	g.changed.Broadcast()
}

// Relay is one relay, as a connection to what is behind it. As gRPC has it, a server cannot
// end its direction alone: Close ends both.
type Relay struct {
	net.Conn // for what a relay does not have; nil
	stream   grpc.BidiStreamingServer[gatewayv1.RelayFrame, gatewayv1.RelayFrame]
	claimed  chan struct{}
	closed   chan struct{}
	once     sync.Once
	rest     []byte
	Largest  int // of the frames that were read
}

// Open asks for a relay to TCP, or with nil to SSH, and waits until it is claimed. An error
// is what the sandbox said.
func (g *Gateway) Open(tcp *gatewayv1.TcpRelayTarget) (*Relay, error) {
	open := &gatewayv1.RelayOpen{}
	if tcp != nil {
		open.Target = &gatewayv1.RelayOpen_Tcp{Tcp: tcp}
	}
	r, result := g.Ask(open)
	if said := <-result; !said.GetSuccess() {
		return nil, fmt.Errorf("%s", said.GetError())
	}
	<-r.claimed
	return r, nil
}

// Ask asks for a relay and waits for nothing but a session.
func (g *Gateway) Ask(open *gatewayv1.RelayOpen) (*Relay, <-chan *gatewayv1.RelayOpenResult) {
	r, result := &Relay{claimed: make(chan struct{}), closed: make(chan struct{})}, make(chan *gatewayv1.RelayOpenResult, 1)
	g.wait("a session", func() bool { return g.session != nil })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened++
	open.ChannelId = fmt.Sprintf("c-%d", g.opened)
	g.waiting[open.ChannelId], g.session.result[open.ChannelId] = r, result
	g.session.send <- &gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_RelayOpen{RelayOpen: open}}
	return r, result
}

// RelayStream implements OpenShellServer. A relay is claimed once.
func (g *Gateway) RelayStream(stream grpc.BidiStreamingServer[gatewayv1.RelayFrame, gatewayv1.RelayFrame]) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	var r *Relay
	g.do(func() {
		r = g.waiting[m.GetInit().GetChannelId()]
		delete(g.waiting, m.GetInit().GetChannelId())
	})
	if r == nil {
		return status.Error(codes.NotFound, "no such relay")
	}
	r.stream = stream
	close(r.claimed)
	select {
	case <-r.closed:
	case <-stream.Context().Done():
	}
	return nil
}

// Read implements net.Conn.
func (r *Relay) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		f, err := r.stream.Recv()
		if err != nil {
			return 0, io.EOF
		}
		r.rest = f.GetData()
		r.Largest = max(r.Largest, len(r.rest))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Write implements net.Conn.
func (r *Relay) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, 16<<10) {
		if err := r.stream.Send(&gatewayv1.RelayFrame{Payload: &gatewayv1.RelayFrame_Data{Data: part}}); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Say sends a frame as it is.
func (r *Relay) Say(f *gatewayv1.RelayFrame) error { return r.stream.Send(f) }

// Close implements net.Conn.
func (r *Relay) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// LocalAddr and RemoteAddr implement net.Conn.
func (r *Relay) LocalAddr() net.Addr { return &net.UnixAddr{Name: "relay", Net: "relay"} }

// RemoteAddr implements net.Conn.
func (r *Relay) RemoteAddr() net.Addr { return r.LocalAddr() }
