package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/api/supervisor/link"
	grants "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of what is spoken with a gateway.
const (
	callTime   = 10 * time.Second // one call, connecting included
	maxMessage = 1 << 20
	window     = 256 << 10 // of a stream: what a relay holds at most that nobody reads
)

// Options are what a Gateway works with. ServerName, Cert and Key may be empty, and one of
// Token and ServiceAccount; CA only when Clear.
type Options struct {
	Address        string // host:port
	Clear          bool   // without TLS
	SandboxID      string
	Token          string // file of the sandbox's token
	ServiceAccount string // file of a service account's token, which is exchanged for one
	CA, Cert, Key  string // PEM files
	ServerName     string // of the gateway's certificate; empty: the host
	Poll           time.Duration
	Idle           time.Duration // ends a relay in which nothing moves

	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Apply func(ctx context.Context, f policyfile.File) error // puts a version of the policy in force
	// Enter opens a connection into the sandbox of an instance; it lives as long as ctx.
	Enter func(ctx context.Context, instance core.InstanceID, target core.RelayTarget, port uint16) (Stream, error)
	Event func(core.Event)
	Log   *slog.Logger
}

// Stream is a connection into the sandbox. One goroutine may send while another receives.
type Stream interface {
	Send(data []byte) error
	Recv() ([]byte, error) // io.EOF: the sandbox's side has ended
	CloseSend() error
}

// Gateway is the control plane. Make it with Open and keep Run going.
type Gateway struct {
	opt      Options
	conn     *grpc.ClientConn
	client   gatewayv1.OpenShellClient
	tokens   *tokens
	reports  chan *gatewayv1.ReportPolicyStatusRequest
	workload link.Watched[seen]
	policy   judged        // of Run's polls alone
	grace    time.Duration // exitGrace; tests change it
	asks     *rate.Limiter // relays that are asked for, those that are refused included

	relays  atomic.Int64
	session atomic.Bool
	mu      sync.Mutex
	known   State         // guarded by mu
	ended   core.Workload // guarded by mu; the last that did
}

// State is what is known of the gateway.
type State struct {
	Answered time.Time // when it last did; zero: never
	Failing  time.Time // since when it does not; zero: it does
	Error    string    // why it does not
	Policy   string    // which policy it gave last, for people
	Session  bool      // its session is open
	Relays   int       // under way
}

// Open prepares everything. It connects to nothing yet.
func Open(opt Options) (*Gateway, error) {
	host, _, err := net.SplitHostPort(opt.Address)
	if err != nil {
		return nil, fmt.Errorf("the gateway's address: %w", err)
	}
	if opt.Clear && !grants.Nearby(host) {
		return nil, errors.New("plain http goes to this pod or to a service of the cluster (name.namespace.svc) only, because it shows the token and what happens in the sandbox to whoever is between; write https://")
	}
	g := &Gateway{opt: opt, grace: exitGrace, asks: rate.NewLimiter(maxAsks, maxAsks), reports: make(chan *gatewayv1.ReportPolicyStatusRequest, maxReports)}
	g.tokens = &tokens{file: opt.Token, changed: make(chan struct{}, 1), log: opt.Log, hide: g.say,
		renew: func(ctx context.Context) (string, error) {
			r, err := g.client.RefreshSandboxToken(ctx, &gatewayv1.RefreshSandboxTokenRequest{})
			return r.GetToken(), err
		}}
	if opt.Token == "" {
		g.tokens.file, g.tokens.exchange = opt.ServiceAccount, func(ctx context.Context) (string, error) {
			r, err := g.client.IssueSandboxToken(ctx, &gatewayv1.IssueSandboxTokenRequest{})
			return r.GetToken(), err
		}
	}
	secure := insecure.NewCredentials()
	if !opt.Clear {
		conf, err := tlsConfig(&opt)
		if err != nil {
			return nil, err
		}
		secure = credentials.NewTLS(conf)
	}
	g.conn, err = grpc.NewClient("passthrough:///"+opt.Address, grpc.WithTransportCredentials(secure),
		grpc.WithPerRPCCredentials(bearer{g.tokens, !opt.Clear}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return opt.Dial(ctx, "tcp", address) }),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithUnaryInterceptor(g.bounded),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: callTime}, MinConnectTimeout: callTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(4*window), grpc.WithMaxHeaderListSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to the gateway: %w", err)
	}
	g.client = gatewayv1.NewOpenShellClient(g.conn)
	return g, nil
}

// tlsConfig trusts the configured authority and nobody else. This daemon's own certificate
// is read for every handshake, because it is replaced while the daemon runs.
func tlsConfig(opt *Options) (*tls.Config, error) {
	roots, err := origin.Roots(opt.CA)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: opt.ServerName}
	if opt.Cert == "" {
		return conf, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(opt.Cert, opt.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate for the gateway: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return conf, nil
}

// bounded gives a call its time, and has a token that the gateway does not take exchanged
// for another one.
func (g *Gateway) bounded(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err := invoke(ctx, method, req, reply, cc, opts...)
	if status.Code(err) == codes.Unauthenticated && method != gatewayv1.OpenShell_IssueSandboxToken_FullMethodName {
		g.tokens.refused()
	}
	return err
}

// Run follows the gateway until ctx ends, and then says how the workload ended, if it has.
func (g *Gateway) Run(ctx context.Context) {
	defer g.conn.Close()
	var wg sync.WaitGroup
	wg.Go(func() { g.tokens.keep(ctx) })
	wg.Go(func() { g.follow(ctx) })
	wg.Go(func() { g.deliver(ctx) })
	wg.Go(func() { g.attend(ctx) })
	wg.Wait()
}

// State is a snapshot of what is known.
func (g *Gateway) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.known
	s.Session, s.Relays = g.session.Load(), int(g.relays.Load())
	return s
}

// String is the state in one line.
func (s State) String() string {
	var out string
	switch {
	case s.Failing.IsZero() && s.Answered.IsZero():
		out = "is being asked"
	case s.Failing.IsZero():
		out = "answered at " + s.Answered.UTC().Format(time.RFC3339)
	case s.Answered.IsZero():
		out = "has not answered since " + s.Failing.UTC().Format(time.RFC3339) + ": " + s.Error + "; everything is denied until it gives a policy"
	default:
		out = "has not answered since " + s.Failing.UTC().Format(time.RFC3339) + ": " + s.Error + "; the policy in force stays"
	}
	if s.Policy != "" {
		out += "; " + s.Policy
	}
	if s.Session {
		return out + "; session open, " + strconv.Itoa(s.Relays) + " relays"
	}
	return out + "; no session"
}

// maxSaid bounds what is repeated of a gateway's words.
const maxSaid = 512

// say is an error as it may be shown: a gateway might repeat what it was sent.
func (g *Gateway) say(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Code().String() + ": " + s.Message()
	}
	return g.shown(text)
}

// shown is a gateway's word as it may be repeated: without a token, in one line, and not too
// long.
func (g *Gateway) shown(text string) string {
	return strings.Join(strings.Fields(cut(g.tokens.without(text), maxSaid)), " ")
}

// cut is the beginning of a text, which is UTF-8 also where it ends: nothing else is sent.
func cut(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// event records something about the gateway; target is where in the sandbox a relay leads.
func (g *Gateway) event(reason core.Reason, severity core.Severity, verdict core.Verdict, detail string, more ...func(*core.Event)) {
	ev := core.Event{Kind: core.EventLifecycle, Stage: core.StageGateway, Severity: severity, Verdict: verdict, Reason: reason, Detail: detail, Protocol: "tcp"}
	host, port, _ := net.SplitHostPort(g.opt.Address)
	n, _ := strconv.ParseUint(port, 10, 16) // the setting was checked
	ev.Host, ev.Port = host, uint16(n)
	for _, m := range more {
		m(&ev)
	}
	g.opt.Event(ev)
}

// sleep waits, and is false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
