package control

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// identifyTimeout bounds one question. It is longer than the process daemon takes to hash
// one program, the largest on a slow disk, and than a crowd waits on a busy machine. One that
// has stopped answering is noticed by its connection's pings.
const identifyTimeout = 40 * time.Second

// Identify asks the process daemon instance whose listener took the connection who
// owns it. It never fails: every failure is a status that denies.
func (h *Hub) Identify(ctx context.Context, instance core.InstanceID, id core.RequestID, t core.Tuple) core.Identity {
	a := h.attached.Load()
	if a == nil || a.peer.Instance != instance {
		return core.Identity{Status: core.IdentityNotReady, Detail: "the process daemon is not attached"}
	}
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	return a.asks.ask(ctx, &pb.IdentifyRequest{
		ProcessInstanceId: string(instance), RequestId: string(id),
		Client: link.AddressToProto(t.Client), Server: link.AddressToProto(t.Server),
	})
}

// asks pairs questions with answers on one Identify stream. While there is none, just
// after a start, questions wait for it. A peer that stops reading fills the queue. In
// both cases every question ends with its own deadline.
type asks struct {
	queue chan *pb.IdentifyRequest
	ended chan struct{} // closed when there will never be a stream again

	mu      sync.Mutex
	up      bool                          // guarded by mu; there is a stream
	opened  chan struct{}                 // guarded by mu; closed when the next stream opens
	next    uint64                        // guarded by mu
	waiting map[uint64]chan core.Identity // guarded by mu
}

func newAsks() *asks {
	return &asks{queue: make(chan *pb.IdentifyRequest, 128), waiting: make(map[uint64]chan core.Identity),
		ended: make(chan struct{}), opened: make(chan struct{})}
}

// end answers whoever waits for a stream. Called once.
func (a *asks) end() { close(a.ended) }

func (a *asks) ask(ctx context.Context, req *pb.IdentifyRequest) core.Identity {
	if !a.await(ctx) {
		return core.Identity{Status: core.IdentityNotReady, Detail: "the process daemon does not answer yet"}
	}
	answer, ok := a.enter(req)
	if !ok {
		return core.Identity{Status: core.IdentityNotReady, Detail: "the process daemon does not answer yet"}
	}
	defer a.forget(req.Id)
	select {
	case a.queue <- req:
	case who := <-answer:
		return who // that the stream is gone
	case <-ctx.Done():
		return core.Identity{Status: core.IdentityFailed, Detail: "the process daemon is too busy"}
	}
	select {
	case who := <-answer:
		return who
	case <-ctx.Done():
		return core.Identity{Status: core.IdentityFailed, Detail: "the process daemon did not answer in time"}
	}
}

// await waits for a stream; false: there was none in time.
func (a *asks) await(ctx context.Context) bool {
	a.mu.Lock()
	up, opened := a.up, a.opened
	a.mu.Unlock()
	if up {
		return true
	}
	select {
	case <-opened:
		return true
	case <-a.ended:
		return false
	case <-ctx.Done():
		return false
	}
}

// enter numbers a question and registers who waits for its answer.
func (a *asks) enter(req *pb.IdentifyRequest) (chan core.Identity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.up {
		return nil, false
	}
	a.next++
	req.Id = a.next
	answer := make(chan core.Identity, 1)
	a.waiting[req.Id] = answer
	return answer, true
}

func (a *asks) forget(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, id)
}

func (a *asks) answer(id uint64, who core.Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ch, ok := a.waiting[id]; ok {
		delete(a.waiting, id)
		ch <- who
	}
}

// serve moves questions and answers over one stream until it breaks.
func (a *asks) serve(ctx context.Context, stream grpc.BidiStreamingClient[pb.IdentifyRequest, pb.IdentifyResponse]) error {
	a.open()
	defer a.close()
	ctx, cancel := context.WithCancel(ctx)
	var sending sync.WaitGroup
	defer sending.Wait() // or it could take a question of the next stream
	defer cancel()
	sending.Go(func() { a.send(ctx, stream) })
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		a.answer(resp.GetId(), link.IdentityFromProto(resp))
	}
}

// send ends with ctx; an error of Send shows as the end of Recv.
func (a *asks) send(ctx context.Context, stream grpc.BidiStreamingClient[pb.IdentifyRequest, pb.IdentifyResponse]) {
	for {
		select {
		case <-ctx.Done():
			return
		case req := <-a.queue:
			if stream.Send(req) != nil {
				return
			}
		}
	}
}

func (a *asks) open() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.up = true
	close(a.opened)
}

// close answers everybody who still waits: nothing will come any more.
func (a *asks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.up, a.opened = false, make(chan struct{})
	for id, ch := range a.waiting {
		delete(a.waiting, id)
		ch <- core.Identity{Status: core.IdentityFailed, Detail: "the process daemon went away"}
	}
}
