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
		slots = make(chan struct{}, maxIdentify)
		send  sync.Mutex
		wg    sync.WaitGroup
	)
	defer wg.Wait()
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			resp := link.IdentityToProto(req.GetId(), l.identify(stream.Context(), req))
			send.Lock()
			defer send.Unlock()
			_ = stream.Send(resp) // a broken stream shows in Recv
		})
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
