package control

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Relay is a connection into the sandbox. One goroutine may send while another receives.
type Relay struct {
	stream grpc.BidiStreamingClient[pb.RelayRequest, pb.RelayResponse]
}

// OpenRelay connects to the SSH server of an instance's sandbox, or to a port of its
// loopback. The connection ends with ctx.
func (h *Hub) OpenRelay(ctx context.Context, instance core.InstanceID, target core.RelayTarget, port uint16) (*Relay, error) {
	a := h.attached.Load()
	if a == nil || a.peer.Instance != instance {
		return nil, errors.New("the sandbox's process daemon is not attached")
	}
	client := a.client.Load()
	if client == nil {
		return nil, errors.New("the sandbox's process daemon is just being attached")
	}
	to := pb.RelayTarget_RELAY_TARGET_UNSPECIFIED // refused
	switch target {
	case core.RelaySSH:
		to = pb.RelayTarget_RELAY_TARGET_SSH
	case core.RelayLoopback:
		to = pb.RelayTarget_RELAY_TARGET_LOOPBACK
	}
	stream, err := (*client).OpenRelay(ctx)
	if err != nil {
		return nil, err
	}
	// What became of it is the first answer, also when this send fails.
	_ = stream.Send(&pb.RelayRequest{Open: &pb.RelayOpen{
		NetworkInstanceId: string(h.opt.Instance), ProcessInstanceId: string(instance), Target: to, Port: uint32(port),
	}})
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	return &Relay{stream}, nil
}

// Send sends bytes towards the sandbox, at most 64 KiB.
func (r *Relay) Send(data []byte) error { return r.stream.Send(&pb.RelayRequest{Data: data}) }

// CloseSend ends what is sent towards the sandbox.
func (r *Relay) CloseSend() error { return r.stream.CloseSend() }

// Recv returns bytes from the sandbox; io.EOF: the connection has ended.
func (r *Relay) Recv() ([]byte, error) {
	m, err := r.stream.Recv()
	return m.GetData(), err
}
