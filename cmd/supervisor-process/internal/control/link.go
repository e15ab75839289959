// Package control is the process daemon's end of the local contract: it serves
// ProcessService and the descriptor hand-over, calls NetworkService, and converts
// between api and core.
//
// It answers the threats of an impostor (every connection is checked for the
// network daemon's uid, and only the instance that answered our handshake is
// served) and of a peer that restarts or is of another release (a handshake before
// everything else, then full snapshots). It does not hold policy or decide.
//
// Invariant: whatever the network daemon says reaches Handler only after a
// handshake with that same instance.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// Handler is what the process daemon does for the network daemon. Methods may be
// called from several goroutines.
type Handler interface {
	// Config takes a configuration snapshot.
	Config(c core.Config)
	// Identify says who owns a connection of the workload.
	Identify(ctx context.Context, id core.RequestID, t core.Tuple) core.Identity
	// Listeners returns what may be handed over now, or why nothing. The files
	// stay the handler's.
	Listeners() ([]link.Descriptor, error)
	// OpenRelay connects to the sandbox's SSH server or to a port of the workload's
	// loopback.
	OpenRelay(ctx context.Context, target core.RelayTarget, port uint16) (net.Conn, error)
	// Events takes new events of the network daemon, in order. They must have been
	// recorded when the call returns.
	Events(evs []core.Event)
	// Incompatible is told that the network daemon refused the handshake.
	Incompatible(err error)
	// Refused is told of a peer that was refused.
	Refused(err error)
}

// Options configures a Link.
type Options struct {
	RunDir   string // directory of the sockets
	PeerUID  uint32 // the network daemon's uid
	Build    core.Build
	Instance core.InstanceID
	Mode     core.Mode
	Log      *slog.Logger
	Outbox   *outbox.Outbox // events for the network daemon
	Inbox    *link.Inbox    // which of the network daemon's events were taken; nil: this Link's own
	Handler  Handler
	// Ready says whether this daemon is ready, for the gRPC health service. nil: none.
	Ready func() bool
	// MinRevision and MaxRevision are the contract revisions this build speaks;
	// 0 reads as core.MinRevision and core.MaxRevision.
	MinRevision, MaxRevision uint32
	// Features are the optional parts of the contract this build speaks: none yet.
	Features []string
}

// Link is one process daemon's end of the contract. Make it with Open.
type Link struct {
	pb.UnimplementedProcessServiceServer
	opt      Options
	workload link.Watched[core.Workload]
	relays   atomic.Int64
	peer     atomic.Pointer[core.Peer] // the network daemon that answered our handshake
	why      atomic.Pointer[string]    // the last attachment ended, or did not begin

	server   *link.Listener // process.sock
	handover *link.Listener // handover.sock
}

// Open makes a Link and opens its sockets. Run serves and closes them.
func Open(opt Options) (*Link, error) {
	if opt.MinRevision == 0 {
		opt.MinRevision = core.MinRevision
	}
	if opt.MaxRevision == 0 {
		opt.MaxRevision = core.MaxRevision
	}
	if opt.Inbox == nil {
		opt.Inbox = &link.Inbox{}
	}
	l := &Link{opt: opt}
	var err error
	if l.server, err = link.Listen("unix", opt.RunDir, link.ProcessSocket, opt.Log); err != nil {
		return nil, err
	}
	if l.handover, err = link.Listen("unixpacket", opt.RunDir, link.HandoverSocket, opt.Log); err != nil {
		l.server.Close()
		return nil, err
	}
	return l, nil
}

// SetWorkload publishes a snapshot to the network daemon, now and after every
// reconnect.
func (l *Link) SetWorkload(w core.Workload) { l.workload.Set(w) }

// Peer returns the network daemon we are attached to.
func (l *Link) Peer() (core.Peer, bool) {
	if p := l.peer.Load(); p != nil {
		return *p, true
	}
	return core.Peer{}, false
}

// Reachable is nil while both sockets can be connected to by their names.
func (l *Link) Reachable() error { return errors.Join(l.server.Reachable(), l.handover.Reachable()) }

// Unattached says why the last attachment ended, or did not begin; empty: there was none.
func (l *Link) Unattached() string {
	if why := l.why.Load(); why != nil {
		return *why
	}
	return ""
}

// Run keeps the contract up until ctx ends: it serves both sockets and stays
// attached to whatever network daemon instance there is. Afterwards no event is taken
// any more.
func (l *Link) Run(ctx context.Context) error {
	srv := link.NewServer(link.Credentials{UID: l.opt.PeerUID, Refused: l.opt.Handler.Refused})
	pb.RegisterProcessServiceServer(srv, l)
	if l.opt.Ready != nil {
		link.RegisterHealth(srv, l.opt.Ready)
	}
	defer l.opt.Inbox.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		stop := context.AfterFunc(ctx, srv.Stop)
		defer stop()
		if err := srv.Serve(l.server); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve the contract: %w", err)
		}
		return nil
	})
	g.Go(func() error { return l.serveHandover(ctx) })
	g.Go(func() error { return l.stayAttached(ctx) })
	return g.Wait()
}

// current reports whether a call comes from the instance we shook hands with.
func (l *Link) current(network, process string) error {
	switch p := l.peer.Load(); {
	case core.InstanceID(process) != l.opt.Instance:
		return status.Error(codes.FailedPrecondition, "another process daemon instance was asked for")
	case p == nil || core.InstanceID(network) != p.Instance:
		return status.Error(codes.FailedPrecondition, "no handshake with this network daemon instance")
	}
	return nil
}

// WatchWorkload implements ProcessService.
func (l *Link) WatchWorkload(req *pb.WatchWorkloadRequest, stream grpc.ServerStreamingServer[pb.Workload]) error {
	if err := l.current(req.GetNetworkInstanceId(), req.GetProcessInstanceId()); err != nil {
		return err
	}
	return l.workload.Each(stream.Context(), func(w core.Workload) error { return stream.Send(link.WorkloadToProto(w)) })
}

// ReportEvents implements ProcessService.
func (l *Link) ReportEvents(stream grpc.BidiStreamingServer[pb.EventBatch, pb.EventAck]) error {
	return l.opt.Inbox.Receive(stream, l.opt.Handler.Events)
}

// maxHandovers bounds hand-overs in progress; a peer that connects and says nothing
// holds one place for a few seconds.
const maxHandovers = 8

func (l *Link) serveHandover(ctx context.Context) error {
	slots := make(chan struct{}, maxHandovers)
	var wg sync.WaitGroup
	defer wg.Wait()
	return link.Accept(ctx, l.handover, l.opt.Log, func(c *net.UnixConn) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			l.handOver(c)
		})
	})
}

func (l *Link) handOver(c *net.UnixConn) {
	err := link.ServeListener(c, l.opt.PeerUID, l.opt.Instance, func(network core.InstanceID) ([]link.Descriptor, error) {
		if p := l.peer.Load(); p == nil || p.Instance != network {
			return nil, errors.New("no handshake with this network daemon instance")
		}
		return l.opt.Handler.Listeners()
	})
	if err != nil {
		l.opt.Handler.Refused(err)
	}
}
