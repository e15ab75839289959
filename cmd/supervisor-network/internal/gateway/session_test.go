package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/openshell"
)

// TestTheSessionIsThereWhileTheWorkloadRuns, under one name of the workload's life, again
// when it breaks, and its end is told.
func TestTheSessionIsThereWhileTheWorkloadRuns(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.server.Configure(configured(1, "a.test"))
	w.run()
	w.Workload(core.Workload{Instance: instance, Phase: core.PhasePrepared})
	w.server.Report(0)
	n := w.server.Calls("GetSandboxConfig")
	w.server.Called("GetSandboxConfig", n+3)
	if w.server.Sessions() != 0 {
		t.Error("there is a session before the workload runs")
	}
	w.running()
	for i := range 2 {
		if h := w.server.Hello(i); h.GetSandboxId() != openshell.SandboxID || h.GetInstanceId() != string(instance) {
			t.Errorf("session %d begins with %v", i, h)
		}
		w.event(core.EventGatewayOpened, i)
		if !w.State().Session {
			t.Error("it is not known that there is a session")
		}
		if i == 0 {
			w.server.EndSession()
			w.event(core.EventGatewayClosed, 0)
		}
	}
	w.server.Fail("ReportMainProcessExit", status.Error(codes.Unavailable, "not now"))
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited, Exit: core.Exit{Code: 137, Signal: 9}})
	w.server.Called("ReportMainProcessExit", 1)
	w.server.Idle()
	w.server.Fail("ReportMainProcessExit", nil)
	if e := w.server.Exit(); e.GetExitCode() != 137 || e.GetInstanceId() != string(instance) || e.GetSandboxId() != openshell.SandboxID {
		t.Errorf("%v", e)
	}
	w.Workload(core.Workload{})
	next := core.NewInstanceID()
	w.Workload(core.Workload{Instance: next, Phase: core.PhaseRunning})
	if h := w.server.Hello(2); h.GetInstanceId() != string(next) {
		t.Errorf("the next workload's session begins with %v", h)
	}
	if w.server.Sessions() != 3 {
		t.Errorf("%d sessions", w.server.Sessions())
	}
}

// TestAnEndIsToldHoweverQuicklyItComes: of a workload that nobody saw running, and whose
// process daemon is gone already.
func TestAnEndIsToldHoweverQuicklyItComes(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited, Exit: core.Exit{Code: 9}})
	w.Workload(core.Workload{})
	w.run()
	if e := w.server.Exit(); e.GetExitCode() != 9 || e.GetInstanceId() != string(instance) {
		t.Errorf("%v", e)
	}
	if w.server.Sessions() != 0 {
		t.Error("there was a session")
	}
}

// TestAGatewayThatTakesNoReportIsAskedOnce.
func TestAGatewayThatTakesNoReportIsAskedOnce(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.server.Fail("ReportMainProcessExit", status.Error(codes.Unimplemented, "unknown method"))
	stop := w.run()
	w.running()
	w.server.Hello(0)
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited})
	w.server.Called("ReportMainProcessExit", 1)
	stop()
	if n := w.server.Calls("ReportMainProcessExit"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// TestTheEndOfThisDaemonLeavesTheReportItsMoment: both containers of a pod end together.
func TestTheEndOfThisDaemonLeavesTheReportItsMoment(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.grace = 5 * time.Minute
	stop := w.run()
	w.running()
	w.server.Hello(0)
	w.server.Fail("ReportMainProcessExit", status.Error(codes.Unavailable, "not now"))
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited, Exit: core.Exit{Code: 3}})
	w.server.Called("ReportMainProcessExit", 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop()
	}()
	w.server.Fail("ReportMainProcessExit", nil)
	<-ended
	if e := w.server.Exit(); e.GetExitCode() != 3 {
		t.Errorf("%v", e)
	}
}

// TestASessionThatIsNotAcceptedIsTriedAgain, and said once.
func TestASessionThatIsNotAcceptedIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		first *gatewayv1.GatewayMessage
		err   error
		says  string
	}{
		"refused by a word":   {&gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_SessionRejected{SessionRejected: &gatewayv1.SessionRejected{Reason: "go away"}}}, nil, "the gateway refuses the session: go away"},
		"another first word":  {&gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_Heartbeat{Heartbeat: &gatewayv1.GatewayHeartbeat{}}}, nil, "first word"},
		"refused by a status": {nil, status.Error(codes.PermissionDenied, "another sandbox"), "PermissionDenied: another sandbox"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil, nil)
			w.server.FirstWord(c.first)
			w.server.Fail("ConnectSupervisor", c.err)
			w.run()
			w.running()
			if e := w.event(core.EventGatewayFailed, 0); !strings.Contains(e.Detail, c.says) {
				t.Error(e.Detail)
			}
			w.server.Called("ConnectSupervisor", 2)
			w.server.FirstWord(nil)
			w.server.Fail("ConnectSupervisor", nil)
			w.event(core.EventGatewayOpened, 0)
		})
	}
}

// beats takes heartbeats.
type beats struct{ n atomic.Int32 }

func (b *beats) Send(*gatewayv1.SupervisorMessage) error { b.n.Add(1); return nil }

// TestHeartbeatsAreSentInTime.
func TestHeartbeatsAreSentInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &beats{}
		ctx, cancel := context.WithCancel(t.Context())
		go (&session{stream: b}).beat(ctx, 15*time.Second)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := b.n.Load(); n != 2 {
			t.Errorf("%d in half a minute", n)
		}
		cancel()
		time.Sleep(time.Minute)
		if n := b.n.Load(); n != 2 {
			t.Errorf("%d after the end", n)
		}
	})
}

// echo sends back what comes, and its end.
func echo(c *net.TCPConn, _ core.RelayTarget, _ uint16) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func loopback(host string, port uint32) *gatewayv1.TcpRelayTarget {
	return &gatewayv1.TcpRelayTarget{Host: host, Port: port}
}

// TestRelaysLeadIntoTheSandbox: to SSH and to its loopback, whole, in frames that are not
// too large, and each is on record.
func TestRelaysLeadIntoTheSandbox(t *testing.T) {
	w := newWorld(t, nil, nil)
	type visit struct {
		target core.RelayTarget
		port   uint16
	}
	visits := make(chan visit, 10)
	w.sandbox(func(c *net.TCPConn, target core.RelayTarget, port uint16) {
		visits <- visit{target, port}
		echo(c, target, port)
	})
	w.run()
	w.running()
	text := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	for i, c := range []struct {
		tcp  *gatewayv1.TcpRelayTarget
		want visit
	}{
		{nil, visit{core.RelaySSH, 0}}, {loopback("127.0.0.1", 8080), visit{core.RelayLoopback, 8080}},
		{loopback("localhost", 65535), visit{core.RelayLoopback, 65535}}, {loopback("::1", 1), visit{core.RelayLoopback, 1}},
	} {
		r, err := w.server.Open(c.tcp)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-visits; got != c.want {
			t.Errorf("%v leads to %v", c.tcp, got)
		}
		go func() { _, _ = r.Write(text) }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("what came back is another: %v", err)
		}
		if r.Largest > 16<<10 {
			t.Errorf("a frame of %d bytes", r.Largest)
		}
		r.Close()
		e := w.event(core.EventRelayClosed, i)
		if e.BytesUp != uint64(len(text)) || e.BytesDn != uint64(len(text)) || c.tcp != nil && (e.Host != c.tcp.GetHost() || uint32(e.Port) != c.tcp.GetPort()) {
			t.Errorf("%+v", e)
		}
		w.event(core.EventRelayOpened, i)
	}
	w.counts(0)
}

// TestRelaysLeadNowhereElse than to the sandbox's loopback, and a refusal is told and on
// record.
func TestRelaysLeadNowhereElse(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.enters(func(context.Context, core.RelayTarget, uint16) (Stream, error) {
		t.Error("somebody was let in")
		return nil, errors.New("no")
	})
	w.run()
	w.running()
	for i, tcp := range []*gatewayv1.TcpRelayTarget{
		loopback("10.0.0.1", 80), loopback("169.254.169.254", 80), loopback("127.0.0.2", 80), loopback("LOCALHOST", 80), loopback("localhost.", 80), loopback("", 80),
		loopback("::ffff:127.0.0.1", 80), loopback("0.0.0.0", 80), loopback("[::1]", 80), loopback("127.0.0.1", 0), loopback("127.0.0.1", 65536), loopback("127.0.0.1", 1<<16+22), {},
	} {
		_, err := w.server.Open(tcp)
		if err == nil || !strings.Contains(err.Error(), "the sandbox's own loopback only") {
			t.Errorf("%v: %v", tcp, err)
		}
		if e := w.event(core.EventRelayRefused, i); e.Verdict != core.Deny || e.Severity != core.SeverityMedium {
			t.Errorf("%+v", e)
		}
	}
}

// TestOneRelayDisturbsNoOther, nor the session: whatever becomes of it.
func TestOneRelayDisturbsNoOther(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.sandbox(echo)
	w.run()
	w.running()
	good, err := w.server.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	works := func(after string) {
		t.Helper()
		if _, err := good.Write([]byte(after)); err != nil {
			t.Fatalf("after %s: %v", after, err)
		}
		if _, err := io.ReadFull(good, make([]byte, len(after))); err != nil {
			t.Fatalf("after %s: %v", after, err)
		}
	}
	works("the beginning")
	ordinary := w.enters(func(context.Context, core.RelayTarget, uint16) (Stream, error) {
		return nil, errors.New("nobody listens there")
	})
	if _, err := w.server.Open(loopback("localhost", 1)); err == nil || !strings.Contains(err.Error(), "nobody listens there") {
		t.Errorf("one that leads nowhere: %v", err)
	}
	works("one that leads nowhere")
	w.enters(ordinary)
	for i, f := range []*gatewayv1.RelayFrame{{}, {Payload: &gatewayv1.RelayFrame_Init{Init: &gatewayv1.RelayInit{}}}} {
		bad, err := w.server.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := bad.Say(f); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(bad); err != nil {
			t.Error(err)
		}
		if e := w.event(core.EventRelayFailed, i+1); !strings.Contains(e.Detail, "a frame without data") {
			t.Error(e.Detail)
		}
	}
	works("frames without data")
	w.server.Fail("RelayStream", status.Error(codes.NotFound, "nobody asked"))
	_, result := w.server.Ask(&gatewayv1.RelayOpen{})
	if r := <-result; !r.GetSuccess() {
		t.Error(r)
	}
	w.event(core.EventRelayFailed, 3)
	w.server.Fail("RelayStream", nil)
	works("one that cannot be claimed")
	w.server.EndSession()
	w.server.Hello(1)
	works("the session")
	w.counts(1)
}

// TestRelaysAreBounded, and there is room again when one has ended.
func TestRelaysAreBounded(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.sandbox(echo)
	w.run()
	w.running()
	var open []*openshell.Relay
	for range maxRelays {
		r, err := w.server.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, r)
	}
	if _, err := w.server.Open(nil); err == nil || !strings.Contains(err.Error(), "are open already") {
		t.Errorf("one more: %v", err)
	}
	w.event(core.EventRelayRefused, 0)
	open[0].Close()
	w.event(core.EventRelayClosed, 0)
	for {
		if _, err := w.server.Open(nil); err == nil {
			break // the count is a moment behind the record
		}
	}
}

// TestASlowReaderIsNotReadFor: what the gateway does not take stays in the sandbox, and
// others go on.
func TestASlowReaderIsNotReadFor(t *testing.T) {
	const much = 64 << 20
	w := newWorld(t, nil, nil)
	var sent atomic.Int64
	w.sandbox(func(c *net.TCPConn, _ core.RelayTarget, port uint16) {
		if port == 2 {
			echo(c, 0, 0)
			return
		}
		for part := range slices.Chunk(make([]byte, much), 64<<10) {
			if _, err := c.Write(part); err != nil {
				return
			}
			sent.Add(int64(len(part)))
		}
	})
	stop := w.run()
	w.running()
	slow, err := w.server.Open(loopback("localhost", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	quick, err := w.server.Open(loopback("localhost", 2))
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("x"), 4<<20)
	go func() { _, _ = quick.Write(text) }()
	if _, err := io.ReadFull(quick, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
	if n := sent.Load(); n >= much/2 {
		t.Errorf("the sandbox could say %d bytes that nobody has read", n)
	}
	stop()
}

// TestEveryRelayEndsWithThisDaemon, and with the process daemon of its sandbox.
func TestEveryRelayEndsWithThisDaemon(t *testing.T) {
	for name, end := range map[string]func(w *world, stop func()){
		"this daemon":        func(_ *world, stop func()) { stop() },
		"the process daemon": func(w *world, _ func()) { w.Workload(core.Workload{}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil, nil)
			ended := make(chan struct{})
			w.sandbox(func(c *net.TCPConn, _ core.RelayTarget, _ uint16) {
				_, _ = io.Copy(io.Discard, c)
				close(ended)
			})
			stop := w.run()
			w.running()
			r, err := w.server.Open(nil)
			if err != nil {
				t.Fatal(err)
			}
			end(w, stop)
			<-ended
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestARelayOutlivesTheWorkload, whose last words somebody waits for, and the session.
func TestARelayOutlivesTheWorkload(t *testing.T) {
	w := newWorld(t, nil, nil)
	last := make(chan struct{})
	w.sandbox(func(c *net.TCPConn, _ core.RelayTarget, _ uint16) {
		<-last
		_, _ = c.Write([]byte("bye"))
	})
	w.run()
	w.running()
	r, err := w.server.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited})
	w.server.Idle()
	w.server.Exit()
	close(last)
	if got, err := io.ReadAll(r); err != nil || string(got) != "bye" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestEndsArePassedOn: the sandbox's as the end of what it says, the gateway's as the end
// of what it hears, and nothing is lost that was said before.
func TestEndsArePassedOn(t *testing.T) {
	w := newWorld(t, nil, nil)
	heard := make(chan []byte, 1)
	w.sandbox(func(c *net.TCPConn, _ core.RelayTarget, port uint16) {
		if port == 1 { // says something, and is done
			_, _ = c.Write([]byte("all of it"))
			return
		}
		all, _ := io.ReadAll(c)
		heard <- all
	})
	w.run()
	w.running()
	r, err := w.server.Open(loopback("localhost", 1))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "all of it" {
		t.Errorf("%q, %v", got, err)
	}
	r.Close()
	w.event(core.EventRelayClosed, 0)
	if r, err = w.server.Open(loopback("localhost", 2)); err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := r.Write(text); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if got := <-heard; len(got) != len(text) {
		t.Errorf("%d bytes arrived", len(got))
	}
	w.event(core.EventRelayClosed, 1)
}

// slow is a connection into a sandbox that takes what is sent only when that has ended, and
// nothing of what is cut off.
type slow struct {
	ctx  context.Context
	sent bytes.Buffer
	all  chan []byte
}

func (s *slow) Send(p []byte) error { _, err := s.sent.Write(p); return err }

func (s *slow) CloseSend() error {
	if s.ctx.Err() == nil {
		s.all <- s.sent.Bytes()
	}
	close(s.all)
	return nil
}

func (s *slow) Recv() ([]byte, error) {
	<-s.ctx.Done()
	return nil, io.EOF
}

// TestTheGatewaysEndCutsNothingOff that the sandbox has not taken yet.
func TestTheGatewaysEndCutsNothingOff(t *testing.T) {
	w := newWorld(t, nil, nil)
	all := make(chan []byte, 1)
	w.enters(func(ctx context.Context, _ core.RelayTarget, _ uint16) (Stream, error) {
		return &slow{ctx: ctx, all: all}, nil
	})
	w.run()
	w.running()
	r, err := w.server.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("the last of it")); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if got := <-all; string(got) != "the last of it" {
		t.Errorf("%q arrived", got)
	}
}

// TestARelayInWhichNothingMovesEnds.
func TestARelayInWhichNothingMovesEnds(t *testing.T) {
	w := newWorld(t, nil, func(o *Options) { o.Idle = 50 * time.Millisecond })
	w.sandbox(func(c *net.TCPConn, _ core.RelayTarget, _ uint16) { _, _ = io.Copy(io.Discard, c) })
	w.run()
	w.running()
	if _, result := w.server.Ask(&gatewayv1.RelayOpen{}); !(<-result).GetSuccess() {
		t.Fatal("it is not opened")
	}
	if e := w.event(core.EventRelayFailed, 0); !strings.Contains(e.Detail, relay.ErrIdle.Error()) {
		t.Error(e.Detail)
	}
}

// TestAWorkloadThatNeverStopsTalkingKeepsNoRelay: what it says when the gateway has ended is
// heard by nobody.
func TestAWorkloadThatNeverStopsTalkingKeepsNoRelay(t *testing.T) {
	w := newWorld(t, nil, func(o *Options) { o.Idle = 50 * time.Millisecond })
	w.sandbox(func(c *net.TCPConn, _ core.RelayTarget, _ uint16) {
		for {
			if _, err := c.Write([]byte("tick")); err != nil {
				return
			}
		}
	})
	w.run()
	w.running()
	r, result := w.server.Ask(&gatewayv1.RelayOpen{})
	if !(<-result).GetSuccess() {
		t.Fatal("it is not opened")
	}
	r.Close()
	w.event(core.EventRelayFailed, 0)
	w.counts(0)
}

// TestAnEndThatComesWithTheEndOfThisDaemonIsTold: whichever is seen first.
func TestAnEndThatComesWithTheEndOfThisDaemonIsTold(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.grace = 5 * time.Minute
	asked, leave := make(chan struct{}), make(chan struct{})
	w.enters(func(context.Context, core.RelayTarget, uint16) (Stream, error) {
		close(asked)
		<-leave // holds the end of this daemon up
		return nil, errors.New("no")
	})
	stop := w.run()
	w.running()
	w.server.Ask(&gatewayv1.RelayOpen{})
	<-asked
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop()
	}()
	w.server.Idle() // the daemon ends
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited, Exit: core.Exit{Code: 5}})
	close(leave)
	<-ended
	if e := w.server.Exit(); e.GetExitCode() != 5 || e.GetInstanceId() != string(instance) {
		t.Errorf("%v", e)
	}
}

// TestAReportThatIsRefusedIsTriedAgain: whatever the reason is, it may pass.
func TestAReportThatIsRefusedIsTriedAgain(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.server.Fail("ReportMainProcessExit", status.Error(codes.Unauthenticated, "not any more"))
	w.run()
	w.Workload(core.Workload{Instance: instance, Phase: core.PhaseExited, Exit: core.Exit{Code: 5}})
	w.server.Called("ReportMainProcessExit", 2)
	w.server.Fail("ReportMainProcessExit", nil)
	if e := w.server.Exit(); e.GetExitCode() != 5 {
		t.Errorf("%v", e)
	}
}

// TestNamesOfTheGatewayAreNoPlaceForATokenNorForMuch: those of sessions, relays and hosts
// are on record.
func TestNamesOfTheGatewayAreNoPlaceForATokenNorForMuch(t *testing.T) {
	w := newWorld(t, nil, nil)
	token, err := w.tokens.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.server.FirstWord(&gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_SessionAccepted{SessionAccepted: &gatewayv1.SessionAccepted{SessionId: token + strings.Repeat("x", 1000)}}})
	w.run()
	w.running()
	e := w.event(core.EventGatewayOpened, 0)
	s := &session{stream: &beats{}}
	w.begin(t.Context(), s, instance, &gatewayv1.RelayOpen{ChannelId: token, Target: &gatewayv1.RelayOpen_Tcp{Tcp: loopback(token+strings.Repeat("x", 1000), 80)}}, nil)
	w.begin(t.Context(), s, instance, &gatewayv1.RelayOpen{ChannelId: strings.Repeat("x", 1000)}, nil)
	for _, e := range []core.Event{e, w.event(core.EventRelayRefused, 0), w.event(core.EventRelayRefused, 1)} {
		if said := e.Host + " " + e.Detail; strings.Contains(said, token) || len(said) > 3*maxSaid {
			t.Errorf("%s", said)
		}
	}
}

// TestWhoAcceptsAndClosesIsLeftAloneForLonger, as who does not accept is.
func TestWhoAcceptsAndClosesIsLeftAloneForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sessions atomic.Int32
		g := &Gateway{tokens: &tokens{}, opt: Options{Event: func(core.Event) {}, Log: slog.New(slog.DiscardHandler)},
			client: closing{sessions: &sessions}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		g.keep(ctx, ctx, instance, nil)
		if n := sessions.Load(); n < 10 || n > 15 {
			t.Errorf("%d sessions in five minutes", n)
		}
	})
}

// closing is a gateway that accepts sessions and closes them.
type closing struct {
	gatewayv1.OpenShellClient
	sessions *atomic.Int32
}

func (c closing) ConnectSupervisor(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[gatewayv1.SupervisorMessage, gatewayv1.GatewayMessage], error) {
	c.sessions.Add(1)
	return &accepted{}, nil
}

type accepted struct {
	grpc.BidiStreamingClient[gatewayv1.SupervisorMessage, gatewayv1.GatewayMessage]
	heard bool
}

func (*accepted) Send(*gatewayv1.SupervisorMessage) error { return nil }

func (a *accepted) Recv() (*gatewayv1.GatewayMessage, error) {
	if a.heard {
		return nil, io.EOF
	}
	a.heard = true
	return &gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_SessionAccepted{SessionAccepted: &gatewayv1.SessionAccepted{}}}, nil
}

// asking is a session in which nothing but relays are asked for, all of which are refused.
type asking struct {
	accepted
	ctx   context.Context
	asked *atomic.Int32
}

func (a *asking) Recv() (*gatewayv1.GatewayMessage, error) {
	if !a.heard {
		return a.accepted.Recv()
	}
	if err := a.ctx.Err(); err != nil {
		return nil, err
	}
	a.asked.Add(1)
	return &gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_RelayOpen{RelayOpen: &gatewayv1.RelayOpen{Target: &gatewayv1.RelayOpen_Tcp{Tcp: loopback("10.0.0.1", 80)}}}}, nil
}

type storm struct {
	gatewayv1.OpenShellClient
	asked *atomic.Int32
}

func (s storm) ConnectSupervisor(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[gatewayv1.SupervisorMessage, gatewayv1.GatewayMessage], error) {
	return &asking{ctx: ctx, asked: s.asked}, nil
}

// TestAStormOfRelaysIsHeardSlowly: each leaves a record.
func TestAStormOfRelaysIsHeardSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, events atomic.Int32
		g := &Gateway{tokens: &tokens{}, asks: rate.NewLimiter(maxAsks, maxAsks), client: storm{asked: &asked},
			opt: Options{Event: func(core.Event) { events.Add(1) }, Log: slog.New(slog.DiscardHandler)}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		g.keep(ctx, ctx, instance, nil)
		if n := asked.Load(); n < 10*maxAsks || n > 12*maxAsks {
			t.Errorf("%d were heard in ten seconds, %d records", n, events.Load())
		}
	})
}
