package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Pauses between attempts to attach. The longest is short: while we are not
// attached the workload has no egress.
const (
	shortestPause = 20 * time.Millisecond
	longestPause  = 500 * time.Millisecond
)

// handshakeTimeout bounds one handshake call.
const handshakeTimeout = 5 * time.Second

// stayAttached attaches again and again until ctx ends.
func (l *Link) stayAttached(ctx context.Context) error {
	pause := shortestPause
	for ctx.Err() == nil {
		began := time.Now()
		attached, err := l.attach(ctx)
		l.peer.Store(nil)
		if ctx.Err() != nil {
			break
		}
		why := err.Error()
		l.why.Store(&why)
		if time.Since(began) > longestPause {
			pause = shortestPause
		}
		if attached {
			l.opt.Log.Warn("detached from the network daemon", slog.Any("error", err))
		} else {
			l.opt.Log.Debug("could not attach to the network daemon", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause + rand.N(pause)):
		}
		pause = min(2*pause, longestPause)
	}
	return nil
}

// attach makes one attachment and keeps it until it breaks. attached says that
// the handshake succeeded.
func (l *Link) attach(ctx context.Context) (attached bool, err error) {
	conn, err := link.NewClient(l.opt.RunDir, link.NetworkSocket, link.Credentials{UID: l.opt.PeerUID, Refused: l.opt.Handler.Refused})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	client := pb.NewNetworkServiceClient(conn)
	peer, err := l.shakeHands(ctx, client)
	if err != nil {
		return false, err
	}
	l.peer.Store(&peer)
	l.opt.Log.Info("attached to the network daemon", slog.String("peer", peer.Build.String()), slog.String("peer_instance", string(peer.Instance)))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.watchConfig(ctx, client, peer.Instance) })
	g.Go(func() error { return l.reportEvents(ctx, client) })
	return true, g.Wait()
}

func (l *Link) shakeHands(ctx context.Context, client pb.NetworkServiceClient) (core.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	resp, err := client.Handshake(ctx, &pb.HandshakeRequest{
		MinRevision: l.opt.MinRevision,
		MaxRevision: l.opt.MaxRevision,
		Features:    l.opt.Features,
		Build:       link.BuildToProto(l.opt.Build),
		InstanceId:  string(l.opt.Instance),
		Mode:        link.ModeToProto(l.opt.Mode),
	})
	switch {
	case status.Code(err) == codes.FailedPrecondition:
		err := errors.New(status.Convert(err).Message())
		l.opt.Handler.Incompatible(err)
		return core.Peer{}, err
	case err != nil:
		return core.Peer{}, errors.New("not attached: " + status.Convert(err).Message())
	}
	peer := core.Peer{
		Build:    link.BuildFromProto(resp.GetBuild()),
		Instance: core.InstanceID(resp.GetInstanceId()),
		Revision: resp.GetRevision(),
		Features: link.Common(l.opt.Features, resp.GetFeatures()),
	}
	if !peer.Instance.Valid() || peer.Revision < l.opt.MinRevision || peer.Revision > l.opt.MaxRevision {
		err := fmt.Errorf("%s answered the handshake with revision %d, but %s speaks %d to %d: upgrade the older image",
			peer.Build, peer.Revision, l.opt.Build, l.opt.MinRevision, l.opt.MaxRevision)
		l.opt.Handler.Incompatible(err)
		return core.Peer{}, err
	}
	return peer, nil
}

func (l *Link) watchConfig(ctx context.Context, client pb.NetworkServiceClient, network core.InstanceID) error {
	stream, err := client.WatchConfig(ctx, &pb.WatchConfigRequest{ProcessInstanceId: string(l.opt.Instance)})
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	for {
		msg, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch the configuration: %w", err)
		}
		c, err := link.ConfigFromProto(msg)
		if err == nil && c.NetworkInstance != network {
			err = errors.New("configuration of another network daemon instance")
		}
		if err != nil {
			l.opt.Handler.Refused(err)
			return err
		}
		l.opt.Handler.Config(c)
	}
}

func (l *Link) reportEvents(ctx context.Context, client pb.NetworkServiceClient) error {
	stream, err := client.ReportEvents(ctx, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("report events: %w", err)
	}
	err = link.SendEvents(ctx, stream, l.opt.Instance, l.opt.Outbox)
	if errors.Is(err, io.EOF) {
		_, err = stream.Recv() // the status behind the EOF
	}
	return err
}
