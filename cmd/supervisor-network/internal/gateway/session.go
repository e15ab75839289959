package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Times of the session and of the report of the workload's end.
const (
	shortestHeartbeat = 5 * time.Second
	shortestAgain     = time.Second
	longestAgain      = 30 * time.Second
	exitAgain         = 250 * time.Millisecond
	exitLongest       = 2 * time.Second
	exitGrace         = 2 * time.Second // for the report, when this daemon has to end

	settled = longestAgain // a session that ends sooner is no success: who accepts and closes is left alone for longer and longer
)

// seen is the workload now, and the last one that has ended: both, because whoever looks may
// miss what was between.
type seen struct{ now, ended core.Workload }

// Workload says what is known of the workload; the zero value: its process daemon is gone.
func (g *Gateway) Workload(w core.Workload) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.Phase == core.PhaseExited {
		g.ended = w
	}
	g.workload.Set(seen{w, g.ended})
}

// attend keeps a session open while the workload runs and reports its end, one workload
// after the other, until ctx ends. Relays may go on until its process daemon is gone: who
// looks at the workload is to see the last of it.
func (g *Gateway) attend(ctx context.Context) {
	var (
		instance, told                   core.InstanceID // whose session and relays these are, and whose end was reported
		running                          bool
		endSession, endRelays, endReport = func() {}, func() {}, func() {}
		sessions, relays, reports        sync.WaitGroup
	)
	end := func() {
		endSession()
		endRelays()
		sessions.Wait()
		relays.Wait()
	}
	report := func(w core.Workload) {
		if w.Instance == told {
			return
		}
		told = w.Instance
		endReport() // of another one, which nobody asks for any more
		reports.Wait()
		var own context.Context
		own, endReport = context.WithCancel(context.WithoutCancel(ctx))
		reports.Go(func() { g.reportExit(own, w) })
	}
	_ = g.workload.Each(ctx, func(w seen) error {
		if w.now.Instance != instance {
			end()
			instance, running = w.now.Instance, false
		}
		switch w.now.Phase {
		case core.PhaseRunning:
			if running {
				break
			}
			running = true
			var inside, own context.Context
			inside, endRelays = context.WithCancel(ctx)
			own, endSession = context.WithCancel(inside)
			sessions.Go(func() { g.keep(own, inside, w.now.Instance, &relays) })
		case core.PhaseExited:
			endSession()
			sessions.Wait()
		}
		report(w.ended)
		return nil
	})
	end()
	g.mu.Lock()
	last := g.ended
	g.mu.Unlock()
	report(last) // both ends may come at one moment
	patience := time.AfterFunc(g.grace, endReport)
	defer patience.Stop()
	reports.Wait()
	endReport()
}

// reportExit tells the gateway how the workload ended.
func (g *Gateway) reportExit(ctx context.Context, w core.Workload) {
	unknown := func(c codes.Code) bool { return c == codes.Unimplemented }
	err := persist(ctx, exitAgain, exitLongest, unknown, func() error {
		_, err := g.client.ReportMainProcessExit(ctx, &gatewayv1.ReportMainProcessExitRequest{
			SandboxId: g.opt.SandboxID, InstanceId: string(w.Instance), ExitCode: int32(w.Exit.Code),
		})
		return err
	})
	switch {
	case status.Code(err) == codes.Unimplemented:
		g.opt.Log.Info("the gateway takes no report of the workload's end")
	case err != nil:
		g.opt.Log.Warn("the gateway is not told that the workload has ended", slog.String("error", g.say(err)))
	}
}

// keep opens the session again and again until ctx ends. Relays outlive a session that
// breaks, and end with inside.
func (g *Gateway) keep(ctx, inside context.Context, instance core.InstanceID, relays *sync.WaitGroup) {
	pause, said := shortestAgain, ""
	for ctx.Err() == nil {
		begun := time.Now()
		opened, err := g.hold(ctx, inside, instance, relays)
		if status.Code(err) == codes.Unauthenticated {
			g.tokens.refused()
		}
		switch text := g.say(err); {
		case ctx.Err() != nil:
			return
		case opened:
			if said = ""; time.Since(begun) > settled {
				pause = shortestAgain
			}
		case said != text:
			said = text
			g.opt.Log.Warn("no session with the gateway; it is tried again", slog.String("error", text))
			g.event(core.EventGatewayFailed, core.SeverityLow, core.Allow, text)
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, longestAgain)
	}
}

// hold opens one session and serves it until it ends, which is always an error.
func (g *Gateway) hold(ctx, inside context.Context, instance core.InstanceID, relays *sync.WaitGroup) (opened bool, err error) {
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(callTime, func() { cancel(errors.New("the gateway does not accept the session in time")) })
	defer late.Stop()
	stream, err := g.client.ConnectSupervisor(own)
	if err != nil {
		return false, caused(own, err)
	}
	s := &session{stream: stream}
	if err := s.send(&gatewayv1.SupervisorMessage{Payload: &gatewayv1.SupervisorMessage_Hello{
		Hello: &gatewayv1.SupervisorHello{SandboxId: g.opt.SandboxID, InstanceId: string(instance)}}}); err != nil {
		_, err = stream.Recv() // the status behind it
		return false, caused(own, err)
	}
	first, err := stream.Recv()
	if err != nil {
		return false, caused(own, err)
	}
	accepted := first.GetSessionAccepted()
	if accepted == nil {
		if r := first.GetSessionRejected(); r != nil {
			return false, fmt.Errorf("the gateway refuses the session: %s", r.GetReason())
		}
		return false, errors.New("the gateway's first word is not that it accepts the session")
	}
	if !late.Stop() {
		return false, caused(own, context.Cause(own))
	}
	g.session.Store(true)
	begun := time.Now()
	name := "session " + strconv.Quote(g.shown(accepted.GetSessionId()))
	g.event(core.EventGatewayOpened, core.SeverityInfo, core.Allow, name)
	defer func() {
		g.session.Store(false)
		g.event(core.EventGatewayClosed, core.SeverityInfo, core.Allow, name+": "+g.say(err), func(e *core.Event) { e.Duration = time.Since(begun) })
	}()
	go s.beat(own, max(time.Duration(accepted.GetHeartbeatIntervalSecs())*time.Second, shortestHeartbeat))
	for {
		m, err := stream.Recv()
		if err != nil {
			return true, caused(own, err)
		}
		if open := m.GetRelayOpen(); open != nil {
			if err := g.asks.Wait(own); err != nil {
				return true, caused(own, err)
			}
			g.begin(inside, s, instance, open, relays)
		}
	}
}

// caused is why a context ended, if that is what an error says.
func caused(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// session is what is sent on one session's stream, by several goroutines.
type session struct {
	mu     sync.Mutex
	stream interface {
		Send(*gatewayv1.SupervisorMessage) error
	} // guarded by mu
}

func (s *session) send(m *gatewayv1.SupervisorMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

// beat says every so often that this end is there, until ctx ends.
func (s *session) beat(ctx context.Context, every time.Duration) {
	for sleep(ctx, every) {
		if s.send(&gatewayv1.SupervisorMessage{Payload: &gatewayv1.SupervisorMessage_Heartbeat{Heartbeat: &gatewayv1.SupervisorHeartbeat{}}}) != nil {
			return
		}
	}
}
