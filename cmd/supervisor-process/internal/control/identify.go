package control

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// maxIdentify bounds lookups in progress; further questions wait in the stream.
const maxIdentify = 64

// Identify implements ProcessService. Every question is answered, whatever goes
// wrong with it.
func (l *Link) Identify(stream grpc.BidiStreamingServer[pb.IdentifyRequest, pb.IdentifyResponse]) error {
	var (
		asked = make(chan *pb.IdentifyRequest)
		send  sync.Mutex
		wg    sync.WaitGroup
	)
	// Those who answer stay, because their stacks have grown by then.
	answer := func(req *pb.IdentifyRequest) {
		for ; req != nil; req = <-asked {
			resp := link.IdentityToProto(req.GetId(), l.identify(stream.Context(), req))
			send.Lock()
			_ = stream.Send(resp) // a broken stream shows in Recv
			send.Unlock()
		}
	}
	defer wg.Wait()
	defer close(asked)
	for started := 0; ; {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case asked <- req:
			continue
		default:
		}
		if started < maxIdentify {
			started++
			wg.Go(func() { answer(req) })
			continue
		}
		asked <- req
	}
}

func (l *Link) identify(ctx context.Context, req *pb.IdentifyRequest) core.Identity {
	if core.InstanceID(req.GetProcessInstanceId()) != l.opt.Instance {
		return core.Identity{Status: core.IdentityNotReady, Detail: "the connection belongs to another process daemon instance"}
	}
	client, err := link.AddressFromProto(req.GetClient())
	if err != nil {
		return core.Identity{Status: core.IdentityFailed, Detail: "malformed question: client " + err.Error()}
	}
	server, err := link.AddressFromProto(req.GetServer())
	if err != nil {
		return core.Identity{Status: core.IdentityFailed, Detail: "malformed question: server " + err.Error()}
	}
	id := core.RequestID(req.GetRequestId())
	if !id.Valid() {
		return core.Identity{Status: core.IdentityFailed, Detail: "malformed question: request id"}
	}
	return l.opt.Handler.Identify(ctx, id, core.Tuple{Client: client, Server: server})
}
