// Package control is the network daemon's end of the local contract: it serves
// NetworkService, calls ProcessService, fetches the listeners, and converts
// between api and core.
//
// It answers the threats of an impostor (every connection is checked for the
// process daemon's uid, and while one instance is attached no other one is), of a
// peer of another release (the handshake refuses, naming both builds) and of a
// peer that restarts (everything is resynchronised from full snapshots, and what
// belonged to the old instance is cancelled with its context). It does not decide
// about traffic.
//
// Invariant: Handler.Attached is called once per attachment, its context ends when
// that process daemon is gone, and only behind Detached can another instance attach.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// Handler is told what the process daemon does. Its methods are called one at a
// time.
type Handler interface {
	// Attached is called when a process daemon has attached. ctx ends when it is
	// gone.
	Attached(ctx context.Context, peer core.Peer)
	// Detached is called when it is gone, behind all else that is said of it and before
	// it, or another one, attaches.
	Detached(peer core.Peer)
	// Workload is called with every snapshot of the attached daemon, within the
	// same ctx.
	Workload(ctx context.Context, w core.Workload)
	// Events takes new events of the process daemon, in order. They must have been
	// recorded when the call returns.
	Events(evs []core.Event)
	// Refused is told of a peer or handshake that was refused.
	Refused(err error)
}

// Options configures a Hub.
type Options struct {
	RunDir   string // directory of the sockets
	PeerUID  uint32 // the process daemon's uid
	Build    core.Build
	Instance core.InstanceID
	Log      *slog.Logger
	Outbox   *outbox.Outbox // events for the process daemon
	Inbox    *link.Inbox    // which of the process daemon's events were taken; nil: this Hub's own
	Handler  Handler
	// Ready says whether this daemon is ready, for the gRPC health service. nil: none.
	Ready func() bool
	// MinRevision and MaxRevision are the contract revisions this build speaks;
	// 0 reads as core.MinRevision and core.MaxRevision.
	MinRevision, MaxRevision uint32
	// Features are the optional parts of the contract this build speaks: none yet.
	Features []string
}

// Hub is one network daemon's end of the contract. Make it with New.
type Hub struct {
	pb.UnimplementedNetworkServiceServer
	opt    Options
	config link.Watched[core.Config]
	socket *link.Listener // network.sock; set by Listen

	attached atomic.Pointer[attachment] // the attached process daemon, or nil

	mu     sync.Mutex
	greets map[core.InstanceID]core.Peer // guarded by mu; handshakes not attached yet
}

// maxGreetings bounds handshakes that are never followed by WatchConfig.
const maxGreetings = 16

// New makes a Hub. It starts nothing.
func New(opt Options) *Hub {
	if opt.MinRevision == 0 {
		opt.MinRevision = core.MinRevision
	}
	if opt.MaxRevision == 0 {
		opt.MaxRevision = core.MaxRevision
	}
	if opt.Inbox == nil {
		opt.Inbox = &link.Inbox{}
	}
	return &Hub{opt: opt, greets: make(map[core.InstanceID]core.Peer)}
}

// SetConfig publishes a snapshot to the process daemon, now and after every
// reconnect.
func (h *Hub) SetConfig(c core.Config) { h.config.Set(c) }

// Attached returns the attached process daemon.
func (h *Hub) Attached() (core.Peer, bool) {
	if a := h.attached.Load(); a != nil {
		return a.peer, true
	}
	return core.Peer{}, false
}

// Listen opens network.sock.
func (h *Hub) Listen() (l *link.Listener, err error) {
	h.socket, err = link.Listen("unix", h.opt.RunDir, link.NetworkSocket, h.opt.Log)
	return h.socket, err
}

// Reachable is nil while the socket that Listen opened can be connected to by its name.
func (h *Hub) Reachable() error { return h.socket.Reachable() }

// Run serves the contract on l until ctx ends, and closes l. Afterwards no event is
// taken any more.
func (h *Hub) Run(ctx context.Context, l net.Listener) error {
	srv := link.NewServer(link.Credentials{UID: h.opt.PeerUID, Refused: h.opt.Handler.Refused})
	pb.RegisterNetworkServiceServer(srv, h)
	if h.opt.Ready != nil {
		link.RegisterHealth(srv, h.opt.Ready)
	}
	defer h.opt.Inbox.Close()
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the contract: %w", err)
	}
	return nil
}

// Handshake implements NetworkService.
func (h *Hub) Handshake(_ context.Context, req *pb.HandshakeRequest) (*pb.HandshakeResponse, error) {
	peer, err := link.Agree(h.opt.Build, h.opt.MinRevision, h.opt.MaxRevision, req)
	if err != nil {
		h.opt.Handler.Refused(err)
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	peer.Features = link.Common(h.opt.Features, req.GetFeatures())
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.greets) >= maxGreetings {
		clear(h.greets)
	}
	h.greets[peer.Instance] = peer
	return &pb.HandshakeResponse{
		Revision:   peer.Revision,
		Features:   peer.Features,
		Build:      link.BuildToProto(h.opt.Build),
		InstanceId: string(h.opt.Instance),
	}, nil
}

// WatchConfig implements NetworkService. The stream is the attachment: it lives as
// long as the process daemon does.
func (h *Hub) WatchConfig(req *pb.WatchConfigRequest, stream grpc.ServerStreamingServer[pb.Config]) error {
	peer, err := h.greeted(core.InstanceID(req.GetProcessInstanceId()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	a := newAttachment(h.opt, peer)
	if !h.attached.CompareAndSwap(nil, a) {
		return status.Error(codes.AlreadyExists, "another process daemon is attached; it must end first")
	}
	defer h.attached.Store(nil)
	h.opt.Log.Info("process daemon attached", slog.String("peer", peer.Build.String()), slog.String("peer_instance", string(peer.Instance)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	err = h.config.Each(ctx, func(c core.Config) error { return stream.Send(link.ConfigToProto(c)) })
	cancel()
	<-done
	h.opt.Log.Info("process daemon detached", slog.String("peer_instance", string(peer.Instance)))
	return err
}

// ReportEvents implements NetworkService.
func (h *Hub) ReportEvents(stream grpc.BidiStreamingServer[pb.EventBatch, pb.EventAck]) error {
	return h.opt.Inbox.Receive(stream, h.opt.Handler.Events)
}

// greeted takes the handshake of an instance.
func (h *Hub) greeted(id core.InstanceID) (core.Peer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	peer, ok := h.greets[id]
	if !ok {
		return core.Peer{}, status.Error(codes.FailedPrecondition, "WatchConfig needs a Handshake of the same instance first")
	}
	delete(h.greets, id)
	return peer, nil
}
