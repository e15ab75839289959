package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/api/supervisor/link"
	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

var ownUID = uint32(os.Getuid())

// events is a Handler that tells a test what happened.
type events struct {
	attached chan core.Peer
	gone     chan core.InstanceID
	workload chan core.Workload
	refused  chan error
	leave    chan struct{} // closed when it may be over; nil: it may
}

func newEvents() *events {
	return &events{make(chan core.Peer, 8), make(chan core.InstanceID, 8), make(chan core.Workload, 8), make(chan error, 64), nil}
}

func (e *events) Attached(_ context.Context, p core.Peer) { e.attached <- p }
func (e *events) Detached(p core.Peer) {
	e.gone <- p.Instance
	if e.leave != nil {
		<-e.leave
	}
}
func (e *events) Workload(_ context.Context, w core.Workload) { e.workload <- w }
func (e *events) Events([]core.Event)                         {}
func (e *events) Refused(err error)                           { e.refused <- err }

func wait[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// startHub runs a Hub that admits peers of uid.
func startHub(t *testing.T, uid uint32) (*Hub, *events, string) {
	t.Helper()
	dir, ev := t.TempDir(), newEvents()
	h := New(Options{
		RunDir: dir, PeerUID: uid, Build: core.Build{Component: "supervisor-network", Version: "2.0"}, Instance: core.NewInstanceID(),
		Log: slog.New(slog.DiscardHandler), Outbox: outbox.New(64), Handler: ev, MinRevision: 2, MaxRevision: 3,
		Features: []string{"both", "ours"},
	})
	ctx, cancel := context.WithCancel(t.Context())
	l, err := h.Listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h, ev, dir
}

// process is a process daemon's ProcessService, as a test plays it.
type process struct {
	pb.UnimplementedProcessServiceServer
	id       core.InstanceID
	identity *pb.IdentifyResponse // the answer to every question; nil: silence
	stop     func()
}

func (p *process) WatchWorkload(req *pb.WatchWorkloadRequest, s grpc.ServerStreamingServer[pb.Workload]) error {
	if err := s.Send(&pb.Workload{ProcessInstanceId: string(p.id), Phase: pb.WorkloadPhase_WORKLOAD_PHASE_PREPARED}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (p *process) Identify(s grpc.BidiStreamingServer[pb.IdentifyRequest, pb.IdentifyResponse]) error {
	for {
		req, err := s.Recv()
		if err != nil {
			return err
		}
		if p.identity == nil {
			continue
		}
		if err := s.Send(&pb.IdentifyResponse{Id: req.GetId(), Status: p.identity.GetStatus(), Program: p.identity.GetProgram()}); err != nil {
			return err
		}
	}
}

func (p *process) ReportEvents(s grpc.BidiStreamingServer[pb.EventBatch, pb.EventAck]) error {
	<-s.Context().Done()
	return nil
}

// attach plays a process daemon: its server, its handshake, its attachment.
func attach(t *testing.T, dir string, p *process) (pb.NetworkServiceClient, grpc.ServerStreamingClient[pb.Config]) {
	t.Helper()
	l, err := link.Listen("unix", dir, link.ProcessSocket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := link.NewServer(link.Credentials{UID: ownUID})
	pb.RegisterProcessServiceServer(srv, p)
	go func() { _ = srv.Serve(l) }()
	client, closeClient := dial(t, dir)
	p.stop = sync.OnceFunc(func() { srv.Stop(); closeClient() })
	t.Cleanup(p.stop)
	if _, err := client.Handshake(t.Context(), hello(p.id)); err != nil {
		t.Fatal(err)
	}
	stream, err := client.WatchConfig(t.Context(), &pb.WatchConfigRequest{ProcessInstanceId: string(p.id)})
	if err != nil {
		t.Fatal(err)
	}
	return client, stream
}

func dial(t *testing.T, dir string) (pb.NetworkServiceClient, func()) {
	t.Helper()
	conn, err := link.NewClient(dir, link.NetworkSocket, link.Credentials{UID: ownUID})
	if err != nil {
		t.Fatal(err)
	}
	return pb.NewNetworkServiceClient(conn), func() { conn.Close() }
}

func hello(id core.InstanceID) *pb.HandshakeRequest {
	return &pb.HandshakeRequest{MinRevision: 1, MaxRevision: 2, InstanceId: string(id), Mode: pb.Mode_MODE_SANDBOX,
		Build: &pb.Build{Component: "supervisor-process", Version: "1.0"}}
}

func TestAttachmentLivesAsLongAsThePeer(t *testing.T) {
	h, ev, dir := startHub(t, ownUID)
	ev.leave = make(chan struct{})
	h.SetConfig(core.Config{Generation: 5, NetworkInstance: h.opt.Instance, ProxyPort: 3128})
	first := &process{id: core.NewInstanceID(), identity: &pb.IdentifyResponse{Status: pb.IdentityStatus_IDENTITY_STATUS_KNOWN, Program: &pb.Program{Path: "/usr/bin/curl"}}}
	_, stream := attach(t, dir, first)
	if c, err := stream.Recv(); err != nil || c.GetGeneration() != 5 {
		t.Fatalf("first snapshot: %v, %v", c, err)
	}
	if p := wait(t, "the attachment", ev.attached); p.Instance != first.id || p.Revision != 2 {
		t.Errorf("attached %+v", p)
	}
	wait(t, "the workload", ev.workload)

	tuple := core.Tuple{Client: netip.MustParseAddrPort("127.0.0.1:1"), Server: netip.MustParseAddrPort("127.0.0.1:2")}
	for { // the stream opens beside the others
		if who := h.Identify(t.Context(), first.id, "r", tuple); who.Status == core.IdentityKnown {
			if who.Program.Path != "/usr/bin/curl" {
				t.Errorf("got %+v", who)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	if who := h.Identify(t.Context(), core.NewInstanceID(), "r", tuple); who.Status == core.IdentityKnown {
		t.Error("another instance's connection was answered")
	}

	client, closeClient := dial(t, dir)
	defer closeClient()
	refused := func(id core.InstanceID) {
		t.Helper()
		if _, err := client.Handshake(t.Context(), hello(id)); err != nil {
			t.Fatal(err)
		}
		s, err := client.WatchConfig(t.Context(), &pb.WatchConfigRequest{ProcessInstanceId: string(id)})
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.AlreadyExists {
			t.Fatalf("a second process daemon: %v", err)
		}
	}
	refused(core.NewInstanceID()) // while it lives

	first.stop()
	if id := wait(t, "the end", ev.gone); id != first.id {
		t.Errorf("%s is gone", id)
	}
	for range 20 { // the end is not over yet
		refused(core.NewInstanceID())
		refused(first.id)
	}
	close(ev.leave)
	if who := h.Identify(t.Context(), first.id, "r", tuple); who.Status == core.IdentityKnown {
		t.Error("an identity outlived its process daemon")
	}

	// The next instance gets the newest snapshot at once.
	h.SetConfig(core.Config{Generation: 6, NetworkInstance: h.opt.Instance, ProxyPort: 3128})
	next := &process{id: core.NewInstanceID()}
	for {
		_, stream = attach(t, dir, next)
		c, err := stream.Recv()
		if status.Code(err) == codes.AlreadyExists { // the old one is being cleaned up
			next.stop()
			continue
		}
		if err != nil || c.GetGeneration() != 6 {
			t.Fatalf("snapshot after a restart: %v, %v", c, err)
		}
		break
	}
}

func TestASilentPeerDeniesInTime(t *testing.T) {
	h, ev, dir := startHub(t, ownUID)
	h.SetConfig(core.Config{Generation: 1, ProxyPort: 1})
	p := &process{id: core.NewInstanceID()}
	attach(t, dir, p)
	wait(t, "the attachment", ev.attached)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if who := h.Identify(ctx, p.id, "r", core.Tuple{}); who.Status != core.IdentityFailed && who.Status != core.IdentityNotReady {
		t.Errorf("got %+v", who)
	}
}

func TestNothingWithoutAHandshake(t *testing.T) {
	h, _, dir := startHub(t, ownUID)
	h.SetConfig(core.Config{Generation: 1, ProxyPort: 1})
	client, closeClient := dial(t, dir)
	defer closeClient()
	s, err := client.WatchConfig(t.Context(), &pb.WatchConfigRequest{ProcessInstanceId: string(core.NewInstanceID())})
	if err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
}

func TestAMismatchIsRefusedAndRecorded(t *testing.T) {
	_, ev, dir := startHub(t, ownUID)
	client, closeClient := dial(t, dir)
	defer closeClient()
	req := hello(core.NewInstanceID())
	req.MaxRevision = 1
	_, err := client.Handshake(t.Context(), req)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "supervisor-process 1.0") || !strings.Contains(err.Error(), "supervisor-network 2.0") {
		t.Errorf("got %v", err)
	}
	if err := wait(t, "a record", ev.refused); !strings.Contains(err.Error(), "upgrade the supervisor-process image") {
		t.Errorf("recorded %v", err)
	}
}

// TestFeaturesAreWhatBothNamed: one that only the peer knows is neither agreed on nor
// a reason to refuse.
func TestFeaturesAreWhatBothNamed(t *testing.T) {
	_, _, dir := startHub(t, ownUID)
	client, closeClient := dial(t, dir)
	defer closeClient()
	req := hello(core.NewInstanceID())
	req.Features = []string{"of the future", "both"}
	resp, err := client.Handshake(t.Context(), req)
	if err != nil || !slices.Equal(resp.GetFeatures(), []string{"both"}) {
		t.Errorf("agreed on %q, %v", resp.GetFeatures(), err)
	}
}

func TestAnotherUIDCannotSpeak(t *testing.T) {
	_, ev, dir := startHub(t, ownUID+1)
	client, closeClient := dial(t, dir)
	defer closeClient()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := client.Handshake(ctx, hello(core.NewInstanceID())); err == nil {
		t.Error("the handshake succeeded")
	}
	if err := wait(t, "a record", ev.refused); !strings.Contains(err.Error(), "uid") {
		t.Errorf("recorded %v", err)
	}
}

// TestGarbageOnTheSocketHurtsNobody: bytes that are no HTTP/2, and a message that
// is too large; afterwards the contract still works.
func TestGarbageOnTheSocketHurtsNobody(t *testing.T) {
	h, ev, dir := startHub(t, ownUID)
	h.SetConfig(core.Config{Generation: 1, ProxyPort: 1})
	c, err := link.Dial(t.Context(), "unix", dir, link.NetworkSocket)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 10000)))
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("garbage keeps its connection")
			}
			break
		}
	}
	c.Close()
	client, closeClient := dial(t, dir)
	defer closeClient()
	large := hello(core.NewInstanceID())
	large.Build.Version = strings.Repeat("x", link.MaxMessageBytes+1)
	if _, err := client.Handshake(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message above the limit: %v", err)
	}
	attach(t, dir, &process{id: core.NewInstanceID()})
	wait(t, "the attachment", ev.attached)
}
