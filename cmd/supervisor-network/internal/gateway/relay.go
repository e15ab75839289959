package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
)

// Bounds of relays. The process daemon carries 64 streams in all, of which the contract
// needs some.
const (
	maxRelays = 32
	maxAsks   = 64 // a second, and at once; who asks for more is heard later
	maxFrame  = 16 << 10
	openTime  = 10 * time.Second // the gateway waits no longer for it to be claimed
)

// target is where in the sandbox a relay leads.
type target struct {
	is   core.RelayTarget
	host string // of the loopback, as the gateway named it
	port uint16
}

// targetOf is what the gateway asks for: SSH, which it does not have to name, or a port of
// the workload's loopback. Nothing else is reached.
func targetOf(open *gatewayv1.RelayOpen) (target, error) {
	tcp := open.GetTcp()
	if tcp == nil {
		return target{is: core.RelaySSH, host: "sandbox"}, nil
	}
	to := target{is: core.RelayLoopback, host: tcp.GetHost(), port: uint16(tcp.GetPort())}
	if h := tcp.GetHost(); h != "127.0.0.1" && h != "::1" && h != "localhost" || tcp.GetPort() == 0 || tcp.GetPort() > 65535 {
		return to, errors.New("a relay leads to the sandbox's own loopback only: 127.0.0.1, ::1 or localhost, and a port")
	}
	return to, nil
}

func (t target) String() string {
	if t.is == core.RelaySSH {
		return "SSH"
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// asked is one relay that a session of the gateway asks for.
type asked struct {
	session  *session
	instance core.InstanceID
	channel  string
	to       target
}

// answer says on the session whether there is a connection.
func (a *asked) answer(failed string) error {
	return a.session.send(&gatewayv1.SupervisorMessage{Payload: &gatewayv1.SupervisorMessage_RelayOpenResult{
		RelayOpenResult: &gatewayv1.RelayOpenResult{ChannelId: a.channel, Success: failed == "", Error: failed}}})
}

// told records what became of a relay.
func (g *Gateway) told(a *asked, reason core.Reason, severity core.Severity, why string, more ...func(*core.Event)) {
	verdict, detail := core.Allow, "relay "+strconv.Quote(g.shown(a.channel))+" to "+a.to.String()
	if reason == core.EventRelayRefused {
		verdict = core.Deny
	}
	if why != "" {
		detail += ": " + why
	}
	g.event(reason, severity, verdict, detail, append(more, func(e *core.Event) { e.Host, e.Port = a.to.host, a.to.port })...)
}

// begin starts a relay, or refuses it before anything is done for it.
func (g *Gateway) begin(ctx context.Context, s *session, instance core.InstanceID, open *gatewayv1.RelayOpen, relays *sync.WaitGroup) {
	to, err := targetOf(open)
	to.host = g.shown(to.host) // as it is, unless it is refused
	a := &asked{s, instance, open.GetChannelId(), to}
	if err == nil && len(a.channel) > maxSaid {
		err = errors.New("the name of the relay is too long")
	}
	if err == nil && g.relays.Load() >= maxRelays {
		err = fmt.Errorf("%d relays are open already", maxRelays)
	}
	if err != nil {
		g.told(a, core.EventRelayRefused, core.SeverityMedium, err.Error())
		_ = a.answer(err.Error()) // a session that is gone shows at the next word of the gateway
		return
	}
	g.relays.Add(1)
	relays.Go(func() {
		defer g.relays.Add(-1)
		g.relay(ctx, a)
	})
}

// relay opens one relay, says on the session whether it could, and carries it to its end.
func (g *Gateway) relay(ctx context.Context, a *asked) {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(openTime, cancel)
	inside, err := g.opt.Enter(own, a.instance, a.to.is, a.to.port)
	if !late.Stop() && err == nil {
		err = errors.New("it took too long")
	}
	if err != nil {
		why := g.say(err)
		g.told(a, core.EventRelayFailed, core.SeverityLow, why)
		_ = a.answer(why)
		return
	}
	begun := time.Now()
	g.told(a, core.EventRelayOpened, core.SeverityInfo, "")
	var up, down uint64
	if err = a.answer(""); err == nil {
		up, down, err = g.carry(own, cancel, inside, a.channel)
	}
	reason, severity, why := core.EventRelayClosed, core.SeverityInfo, ""
	if err != nil && ctx.Err() == nil {
		reason, severity, why = core.EventRelayFailed, core.SeverityLow, g.say(err)
	}
	g.told(a, reason, severity, why, func(e *core.Event) { e.BytesUp, e.BytesDn, e.Duration = up, down, time.Since(begun) })
}

// carry claims a relay at the gateway and copies both ways until it is over. The gateway's
// end of its direction is the end of the call (gRPC has no other), so that what the sandbox
// says after it is read and dropped; the sandbox's end is passed on.
func (g *Gateway) carry(ctx context.Context, cancel func(), inside Stream, channel string) (up, down uint64, err error) {
	out, err := g.client.RelayStream(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := out.Send(&gatewayv1.RelayFrame{Payload: &gatewayv1.RelayFrame_Init{Init: &gatewayv1.RelayInit{ChannelId: channel}}}); err != nil {
		_, err = out.Recv() // the status behind it
		return 0, 0, err
	}
	var idle atomic.Bool
	watch := relay.NewWatch(min(g.opt.Idle, relay.HalfClosedIdle)/4, func() { idle.Store(true); cancel() })
	watch.Begin(g.opt.Idle)
	defer watch.Stop()
	half := func() { watch.Begin(min(g.opt.Idle, relay.HalfClosedIdle)) }

	var wg sync.WaitGroup
	wg.Go(func() {
		up = copyOut(out, inside, watch)
		half()
	})
	down, err = copyIn(inside, out, watch)
	if err != nil {
		cancel() // both ends
	} else {
		_ = inside.CloseSend()
		half()
	}
	wg.Wait()
	if idle.Load() {
		return up, down, relay.ErrIdle
	}
	return up, down, err
}

// copyOut carries what the sandbox says, as fast as the gateway takes it. What the gateway
// does not hear any more keeps no relay open.
func copyOut(out grpc.BidiStreamingClient[gatewayv1.RelayFrame, gatewayv1.RelayFrame], inside Stream, watch *relay.Watch) (n uint64) {
	heard := true
	for {
		data, err := inside.Recv()
		if err != nil {
			_ = out.CloseSend()
			return n
		}
		for heard && len(data) > 0 {
			part := data[:min(len(data), maxFrame)]
			if heard = out.Send(&gatewayv1.RelayFrame{Payload: &gatewayv1.RelayFrame_Data{Data: part}}) == nil; heard {
				n, data = n+uint64(len(part)), data[len(part):]
				watch.Mark()
			}
		}
	}
}

var errFrame = errors.New("the gateway sent a frame without data")

// copyIn carries what the gateway says, as fast as the sandbox takes it. That the sandbox
// takes nothing more is an end and no error.
func copyIn(inside Stream, out grpc.BidiStreamingClient[gatewayv1.RelayFrame, gatewayv1.RelayFrame], watch *relay.Watch) (n uint64, err error) {
	for open := true; ; {
		f, err := out.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
		data, ok := f.GetPayload().(*gatewayv1.RelayFrame_Data)
		if !ok {
			return n, errFrame
		}
		if open {
			if open = inside.Send(data.Data) == nil; open {
				n += uint64(len(data.Data))
			}
		}
		watch.Mark()
	}
}
