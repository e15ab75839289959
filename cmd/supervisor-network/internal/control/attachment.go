package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// attachment is the network daemon's side of one attached process daemon: three
// streams to its ProcessService, each reopened when it breaks.
type attachment struct {
	opt    Options
	peer   core.Peer
	asks   *asks
	handle sync.Mutex // one Handler call at a time
	client atomic.Pointer[pb.ProcessServiceClient]
}

func newAttachment(opt Options, peer core.Peer) *attachment {
	return &attachment{opt: opt, peer: peer, asks: newAsks()}
}

// run keeps the streams open until ctx ends.
func (a *attachment) run(ctx context.Context) {
	defer a.asks.end()
	conn, err := link.NewClient(a.opt.RunDir, link.ProcessSocket, link.Credentials{UID: a.opt.PeerUID, Refused: a.opt.Handler.Refused})
	if err != nil {
		a.opt.Handler.Refused(err)
		return
	}
	defer conn.Close()
	client := pb.NewProcessServiceClient(conn)
	a.client.Store(&client)
	a.opt.Handler.Attached(ctx, a.peer)
	defer a.opt.Handler.Detached(a.peer)

	var wg sync.WaitGroup
	for name, stream := range map[string]func(context.Context, pb.ProcessServiceClient) error{
		"watch_workload": a.watchWorkload,
		"identify":       a.identify,
		"report_events":  a.reportEvents,
	} {
		wg.Go(func() { a.keep(ctx, name, func(ctx context.Context) error { return stream(ctx, client) }) })
	}
	wg.Wait()
}

// keep runs one stream again and again, with a growing pause, until ctx ends.
func (a *attachment) keep(ctx context.Context, name string, stream func(context.Context) error) {
	const shortest, longest = 20 * time.Millisecond, time.Second
	pause := shortest
	for ctx.Err() == nil {
		start := time.Now()
		err := stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > longest {
			pause = shortest
		}
		// What ends with its peer is ordinary; the detachment is logged.
		a.opt.Log.Debug("contract stream broke", slog.String("stream", name), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(pause + rand.N(pause)):
		}
		pause = min(2*pause, longest)
	}
}

func (a *attachment) watchWorkload(ctx context.Context, client pb.ProcessServiceClient) error {
	stream, err := client.WatchWorkload(ctx, &pb.WatchWorkloadRequest{
		NetworkInstanceId: string(a.opt.Instance), ProcessInstanceId: string(a.peer.Instance),
	}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		w, err := stream.Recv()
		if err != nil {
			return err
		}
		workload := link.WorkloadFromProto(w)
		if workload.Instance != a.peer.Instance {
			return errors.New("a snapshot of another process daemon instance arrived")
		}
		a.handle.Lock()
		a.opt.Handler.Workload(ctx, workload)
		a.handle.Unlock()
	}
}

func (a *attachment) identify(ctx context.Context, client pb.ProcessServiceClient) error {
	stream, err := client.Identify(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	return a.asks.serve(ctx, stream)
}

func (a *attachment) reportEvents(ctx context.Context, client pb.ProcessServiceClient) error {
	stream, err := client.ReportEvents(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	err = link.SendEvents(ctx, stream, a.opt.Instance, a.opt.Outbox)
	if errors.Is(err, io.EOF) {
		_, err = stream.Recv() // the status behind the EOF
	}
	return err
}
