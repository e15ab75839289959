package control

import (
	"context"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of relayed connections.
const (
	maxRelays     = 64
	maxRelayBytes = 64 << 10 // in one request
	relayBuffer   = 32 << 10
)

// targets are the relay targets of the wire; one of the future is refused.
var targets = map[pb.RelayTarget]core.RelayTarget{
	pb.RelayTarget_RELAY_TARGET_SSH: core.RelaySSH, pb.RelayTarget_RELAY_TARGET_LOOPBACK: core.RelayLoopback,
}

// OpenRelay implements ProcessService.
func (l *Link) OpenRelay(stream grpc.BidiStreamingServer[pb.RelayRequest, pb.RelayResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if err := l.current(open.GetNetworkInstanceId(), open.GetProcessInstanceId()); err != nil {
		return err
	}
	target, ok := targets[open.GetTarget()]
	if !ok || len(first.GetData()) > 0 || open.GetPort() > 65535 || (target == core.RelayLoopback) != (open.GetPort() > 0) {
		return status.Error(codes.InvalidArgument, "a relay needs a target this build knows, a port for the loopback and none for SSH, and no data yet")
	}
	if l.relays.Add(1) > maxRelays {
		l.relays.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "%d connections are relayed already", maxRelays)
	}
	defer l.relays.Add(-1)
	c, err := l.opt.Handler.OpenRelay(stream.Context(), target, uint16(open.GetPort()))
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer c.Close()
	stop := context.AfterFunc(stream.Context(), func() { c.Close() })
	defer stop()
	if err := stream.Send(&pb.RelayResponse{}); err != nil {
		return err
	}
	go relayIn(stream, c)
	return relayOut(stream, c)
}

// relayIn passes requests on; whatever ends them closes the connection, in one
// direction where it can.
func relayIn(stream grpc.BidiStreamingServer[pb.RelayRequest, pb.RelayResponse], c net.Conn) {
	for {
		req, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			if half, ok := c.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
				return
			}
			c.Close()
			return
		case err != nil || req.GetOpen() != nil || len(req.GetData()) > maxRelayBytes:
			c.Close()
			return
		}
		if _, err := c.Write(req.GetData()); err != nil {
			c.Close()
			return
		}
	}
}

func relayOut(stream grpc.BidiStreamingServer[pb.RelayRequest, pb.RelayResponse], c net.Conn) error {
	buf := make([]byte, relayBuffer)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if err := stream.Send(&pb.RelayResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the end of the connection, however it came
		}
	}
}
