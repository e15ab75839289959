package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/openshell"
)

const instance = core.InstanceID("0123456789abcdef0123456789abcdef")

// world is a Gateway under test with the server it speaks to, and what it did.
type world struct {
	*Gateway
	t      *testing.T
	server *openshell.Gateway
	token  string // file
	log    *buffer

	mu      sync.Mutex
	changed *sync.Cond
	events  []core.Event      // guarded by mu
	applied []policyfile.File // guarded by mu
	refuse  error             // guarded by mu; what Apply says
	enter   entrance          // guarded by mu
}

// entrance is how a relay gets into the sandbox.
type entrance func(ctx context.Context, target core.RelayTarget, port uint16) (Stream, error)

// enters says how, and returns how it was before.
func (w *world) enters(by entrance) (before entrance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.enter = w.enter, by
	return before
}

type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newWorld prepares a Gateway that nobody runs yet.
func newWorld(t *testing.T, secure *tls.Config, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, server: openshell.Start(t, "127.0.0.1:0", secure), token: filepath.Join(t.TempDir(), "token"), log: &buffer{}}
	w.changed = sync.NewCond(&w.mu)
	first := openshell.Token("first", time.Now().Add(time.Hour))
	w.server.Take(first)
	w.write(first)
	var d net.Dialer
	opt := Options{
		Address: w.server.Address, Clear: secure == nil, SandboxID: openshell.SandboxID, Token: w.token, Poll: 10 * time.Millisecond, Idle: time.Hour,
		Dial: d.DialContext, Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Apply: func(_ context.Context, f policyfile.File) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.applied = append(w.applied, f)
			w.changed.Broadcast()
			return errors.Join(f.Err, w.refuse)
		},
		Enter: func(ctx context.Context, of core.InstanceID, target core.RelayTarget, port uint16) (Stream, error) {
			if of != instance {
				return nil, fmt.Errorf("another instance: %s", of)
			}
			w.mu.Lock()
			enter := w.enter
			w.mu.Unlock()
			return enter(ctx, target, port)
		},
		Event: func(e core.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
			w.changed.Broadcast()
		},
	}
	if change != nil {
		change(&opt)
	}
	var err error
	if w.Gateway, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) write(token string) {
	w.t.Helper()
	if err := os.WriteFile(w.token+".new", []byte(token+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(w.token+".new", w.token); err != nil {
		w.t.Fatal(err)
	}
}

// run runs it until the test ends, or stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) wait(what string, holds func() bool) {
	w.t.Helper()
	late := false
	timer := time.AfterFunc(5*time.Minute, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		late = true
		w.changed.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !holds() && !late {
		w.changed.Wait()
	}
	if !holds() {
		w.t.Fatalf("waited in vain for %s; there was %v and in the log\n%s", what, w.events, w.log)
	}
}

// event waits for the n-th record of a reason, from 0 on.
func (w *world) event(reason core.Reason, n int) (found core.Event) {
	w.t.Helper()
	w.wait(string(reason), func() bool {
		i := 0
		for _, found = range w.events {
			if found.Reason == reason {
				if i++; i > n {
					return true
				}
			}
		}
		return false
	})
	return found
}

func (w *world) applies(n int) policyfile.File {
	w.t.Helper()
	w.wait("a policy", func() bool { return len(w.applied) > n })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.applied[n]
}

// all is whatever somebody could read.
func (w *world) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprint(w.events, w.applied, w.log, w.State())
}

// configured is an answer of the gateway with a policy that lets one host be reached.
func configured(version uint32, host string) *gatewayv1.GetSandboxConfigResponse {
	return &gatewayv1.GetSandboxConfigResponse{
		Policy: &gatewayv1.SandboxPolicy{Version: 1, NetworkPolicies: map[string]*gatewayv1.NetworkPolicyRule{
			"a": {Name: "a", Endpoints: []*gatewayv1.NetworkEndpoint{{Host: host, Port: 443}}, Binaries: []*gatewayv1.NetworkBinary{{Path: "/usr/bin/curl"}}},
		}},
		Version: version, PolicyHash: fmt.Sprintf("hash of %s", host), ConfigRevision: uint64(version), PolicySource: gatewayv1.PolicySource_POLICY_SOURCE_SANDBOX,
	}
}

// TestAPolicyIsJudgedOnceAndAcknowledged: what changes and what does not, by answers one
// after the other.
func TestAPolicyIsJudgedOnceAndAcknowledged(t *testing.T) {
	w := newWorld(t, nil, nil)
	loaded, failed := gatewayv1.PolicyStatus_POLICY_STATUS_LOADED, gatewayv1.PolicyStatus_POLICY_STATUS_FAILED
	with := func(c *gatewayv1.GetSandboxConfigResponse, f func(*gatewayv1.GetSandboxConfigResponse)) *gatewayv1.GetSandboxConfigResponse {
		f(c)
		return c
	}
	for _, step := range []struct {
		name    string
		answer  *gatewayv1.GetSandboxConfigResponse
		refuse  error
		applies bool
		deny    bool
		report  gatewayv1.PolicyStatus // unspecified: none
		says    string
	}{
		{"the first", configured(1, "a.test"), nil, true, true, loaded, ""},
		{"the same", configured(1, "a.test"), nil, false, false, 0, ""},
		{"another number for the same", configured(2, "a.test"), nil, false, false, loaded, ""},
		{"another number of the whole answer", with(configured(2, "a.test"), func(c *gatewayv1.GetSandboxConfigResponse) { c.ConfigRevision = 1 }), nil, false, false, 0, ""},
		{"another policy", configured(3, "b.test"), nil, true, true, loaded, ""},
		{"a number that goes down", configured(1, "a.test"), nil, true, true, loaded, ""},
		{"another policy by the same name", with(configured(1, "c.test"), func(c *gatewayv1.GetSandboxConfigResponse) { c.PolicyHash = "hash of a.test" }), nil, true, true, loaded, ""},
		{"one that cannot be used", configured(4, "d.test"), errors.New("line 3: no"), true, true, failed, "line 3: no"},
		{"the same again", configured(4, "d.test"), nil, false, false, 0, ""},
		{"the same under another number", configured(5, "d.test"), nil, false, false, failed, "line 3: no"},
		{"the same, and the one before may stay", with(configured(5, "d.test"), func(c *gatewayv1.GetSandboxConfigResponse) { c.PolicyValidationFailureMode = "retain_last_valid" }), errors.New("line 3: no"), true, false, failed, "line 3: no"},
		{"an unknown word for what to do", with(configured(6, "e.test"), func(c *gatewayv1.GetSandboxConfigResponse) { c.PolicyValidationFailureMode = "something" }), nil, true, true, loaded, ""},
		{"for all sandboxes", with(configured(7, "f.test"), func(c *gatewayv1.GetSandboxConfigResponse) {
			c.PolicySource = gatewayv1.PolicySource_POLICY_SOURCE_GLOBAL
		}), nil, true, true, 0, ""},
		{"of no number", configured(0, "g.test"), nil, true, true, 0, ""},
		{"none any more", &gatewayv1.GetSandboxConfigResponse{Version: 8, PolicySource: gatewayv1.PolicySource_POLICY_SOURCE_SANDBOX}, nil, true, true, failed, "has no policy"},
		{"an empty one", &gatewayv1.GetSandboxConfigResponse{Policy: &gatewayv1.SandboxPolicy{}, Version: 8, PolicySource: gatewayv1.PolicySource_POLICY_SOURCE_SANDBOX}, nil, true, true, failed, "version"},
	} {
		t.Run(step.name, func(t *testing.T) {
			w.refuse = step.refuse
			before := len(w.applied)
			w.take(t.Context(), step.answer)
			if got := len(w.applied) > before; got != step.applies {
				t.Fatalf("it is applied: %t", got)
			}
			if step.applies && w.applied[before].Deny != step.deny {
				t.Errorf("an invalid one denies everything: %t", !step.deny)
			}
			var got *gatewayv1.ReportPolicyStatusRequest
			select {
			case got = <-w.reports:
			default:
			}
			if got.GetStatus() != step.report || !strings.Contains(got.GetLoadError(), step.says) || step.report == loaded && got.GetLoadError() != "" ||
				got != nil && (got.GetVersion() != step.answer.GetVersion() || got.GetSandboxId() != openshell.SandboxID) {
				t.Errorf("the gateway is told %v", got)
			}
		})
	}
}

// TestWhyAPolicyIsRefusedCanBeSent, however long it is and wherever it is cut.
func TestWhyAPolicyIsRefusedCanBeSent(t *testing.T) {
	w := newWorld(t, nil, nil)
	for _, before := range []string{"", "x"} {
		w.report(configured(1, "a.test"), errors.New(before+strings.Repeat("é", maxLoadError)))
		if r := <-w.reports; !utf8.ValidString(r.GetLoadError()) || len(r.GetLoadError()) < maxLoadError-1 {
			t.Errorf("%d bytes, valid: %t", len(r.GetLoadError()), utf8.ValidString(r.GetLoadError()))
		}
		if said := w.say(errors.New(before + strings.Repeat("é", maxSaid))); !utf8.ValidString(said) {
			t.Errorf("%q", said)
		}
	}
}

// TestTheEndOfThisDaemonSaysNothingAboutAPolicy: one that is judged then is judged whole.
func TestTheEndOfThisDaemonSaysNothingAboutAPolicy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var judged error
	w := newWorld(t, nil, func(o *Options) {
		o.Apply = func(ctx context.Context, _ policyfile.File) error {
			cancel()
			judged = ctx.Err()
			return judged
		}
	})
	w.take(ctx, configured(1, "a.test"))
	if judged != nil {
		t.Error(judged)
	}
}

// TestAGatewayThatIsGoneChangesNothing: it is asked again, somebody is told once, and once
// when it is back.
func TestAGatewayThatIsGoneChangesNothing(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.server.Configure(configured(1, "a.test"))
	if s := w.State().String(); !strings.Contains(s, "is being asked") {
		t.Error(s)
	}
	w.server.Fail("GetSandboxConfig", status.Error(codes.Internal, "its database\nis away"))
	w.run()
	w.event(core.EventGatewayLost, 0)
	w.server.Called("GetSandboxConfig", 2)
	if s := w.State().String(); !strings.Contains(s, "has not answered since") || !strings.Contains(s, "its database is away") || !strings.Contains(s, "everything is denied until it gives a policy") {
		t.Error(s)
	}
	w.server.Fail("GetSandboxConfig", nil)
	w.event(core.EventGatewayReached, 0)
	if f := w.applies(0); f.Err != nil || f.Doc == nil || f.Digest == "" {
		t.Errorf("%+v", f)
	}
	w.server.Fail("GetSandboxConfig", status.Error(codes.Unavailable, "maintenance"))
	w.event(core.EventGatewayLost, 1)
	n := w.server.Calls("GetSandboxConfig")
	w.server.Called("GetSandboxConfig", n+5)
	if s := w.State().String(); !strings.Contains(s, "the policy in force stays") || !strings.Contains(s, "policy revision 1") {
		t.Error(s)
	}
	w.server.Fail("GetSandboxConfig", nil)
	w.event(core.EventGatewayReached, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := 0
	for _, e := range w.events {
		if e.Reason == core.EventGatewayLost {
			lost++
		}
	}
	if lost != 2 || len(w.applied) != 1 {
		t.Errorf("%d records of two losses, %d policies", lost, len(w.applied))
	}
}

// TestAnErrorThatNothingRepairsIsSaid in words, and it is asked all the same: somebody may
// repair it at the gateway.
func TestAnErrorThatNothingRepairsIsSaid(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.run() // the gateway knows no such sandbox
	e := w.event(core.EventGatewayLost, 0)
	if !strings.Contains(e.Detail, "NotFound: no such sandbox") || !strings.Contains(w.log.String(), "level=ERROR") {
		t.Errorf("%+v\n%s", e, w.log)
	}
	w.server.Configure(configured(1, "a.test"))
	w.applies(0)
}

// TestAcknowledgementsWaitForTheGateway, in order, and not for what never succeeds.
func TestAcknowledgementsWaitForTheGateway(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.server.Fail("ReportPolicyStatus", status.Error(codes.Unavailable, "not now"))
	w.server.Configure(configured(1, "a.test"))
	w.run()
	w.server.Called("ReportPolicyStatus", 1)
	w.server.Configure(configured(2, "b.test"))
	w.applies(1)
	w.server.Fail("ReportPolicyStatus", nil)
	for i := range 2 {
		if r := w.server.Report(i); r.GetVersion() != uint32(i+1) {
			t.Errorf("%d: %v", i, r)
		}
	}
	w.server.Fail("ReportPolicyStatus", status.Error(codes.NotFound, "no such revision"))
	n := w.server.Calls("ReportPolicyStatus")
	w.server.Configure(configured(3, "c.test"))
	w.server.Called("ReportPolicyStatus", n+1)
	w.server.Fail("ReportPolicyStatus", nil)
	w.server.Configure(configured(4, "d.test"))
	if r := w.server.Report(2); r.GetVersion() != 4 {
		t.Errorf("%v", r)
	}
}

// TestTheGatewayIsWhoItsCertificateSays: one authority, one name, and this end's own
// certificate.
func TestTheGatewayIsWhoItsCertificateSays(t *testing.T) {
	dir := t.TempDir()
	server, ca, cert, key := openshell.Certificates(t, dir, "gateway.test", true)
	_, otherCA, otherCert, otherKey := openshell.Certificates(t, t.TempDir(), "gateway.test", false)
	for name, c := range map[string]struct {
		ca, cert, key, server string
		fails                 string // empty: it works
	}{
		"as configured":             {ca, cert, key, "gateway.test", ""},
		"without the name":          {ca, cert, key, "", "doesn't contain any IP SANs"},
		"another name":              {ca, cert, key, "other.test", "not other.test"},
		"another authority":         {otherCA, cert, key, "gateway.test", "unknown authority"},
		"no certificate":            {ca, "", "", "gateway.test", "Unavailable"},
		"another one's certificate": {ca, otherCert, otherKey, "gateway.test", "Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, server.Clone(), func(o *Options) { o.CA, o.Cert, o.Key, o.ServerName = c.ca, c.cert, c.key, c.server })
			w.server.Configure(configured(1, "a.test"))
			w.run()
			if c.fails == "" {
				w.applies(0)
				return
			}
			if e := w.event(core.EventGatewayLost, 0); !strings.Contains(e.Detail, c.fails) {
				t.Errorf("%s", e.Detail)
			}
			if n := w.server.Calls("GetSandboxConfig"); n != 0 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// TestInTheClearIsForWhatIsNear: this pod and services of the cluster.
func TestInTheClearIsForWhatIsNear(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "localhost:80": true, "gateway.openshell.svc:80": true, "gateway.openshell.svc.cluster.local:80": true,
		"gateway.example.com:80": false, "10.0.0.1:80": false, "gateway:80": false,
	} {
		if _, err := Open(Options{Address: address, Clear: true, Log: slog.New(slog.DiscardHandler)}); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// inside is a connection into a sandbox, of which a test is the other end.
type inside struct{ net.Conn }

func (i inside) Send(p []byte) error {
	_, err := i.Write(p)
	return err
}

func (i inside) Recv() ([]byte, error) {
	buf := make([]byte, 32<<10)
	n, err := i.Read(buf)
	if err != nil && n == 0 {
		return nil, io.EOF
	}
	return buf[:n], nil
}

func (i inside) CloseSend() error { return i.Conn.(*net.TCPConn).CloseWrite() }

// sandbox has relays lead to what serve does with a connection.
func (w *world) sandbox(serve func(c *net.TCPConn, target core.RelayTarget, port uint16)) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	w.t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	w.enters(func(ctx context.Context, target core.RelayTarget, port uint16) (Stream, error) {
		ours, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		theirs, err := l.Accept()
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { ours.Close() })
		wg.Go(func() {
			defer theirs.Close()
			serve(theirs.(*net.TCPConn), target, port)
		})
		return inside{ours}, nil
	})
}

// counts waits until so many relays are counted, which is a moment behind their records.
func (w *world) counts(relays int) {
	for w.State().Relays != relays {
		time.Sleep(time.Millisecond)
	}
}

// running says that the workload does.
func (w *world) running() {
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseRunning})
}
