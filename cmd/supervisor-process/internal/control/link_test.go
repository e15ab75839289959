package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
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

// handler is a Handler that tells a test what happened.
type handler struct {
	configs      chan core.Config
	incompatible chan error
	refused      chan error
	file         *os.File
}

func (h *handler) Config(c core.Config) { h.configs <- c }
func (h *handler) Identify(context.Context, core.RequestID, core.Tuple) core.Identity {
	return core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: "/bin/x"}}
}
func (h *handler) Listeners() ([]link.Descriptor, error) {
	return []link.Descriptor{{Name: "proxy4", File: h.file}}, nil
}
func (h *handler) OpenRelay(_ context.Context, target core.RelayTarget, port uint16) (net.Conn, error) {
	if target == core.RelayLoopback && port == 1 {
		return nil, errors.New("nobody listens")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go func() { // an echo that answers the end too
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
		_, _ = fmt.Fprintf(c, "end of %d", port)
	}()
	var d net.Dialer
	return d.DialContext(context.Background(), "tcp", l.Addr().String())
}

func (h *handler) Events([]core.Event)    {}
func (h *handler) Incompatible(err error) { h.incompatible <- err }
func (h *handler) Refused(err error) {
	select {
	case h.refused <- err:
	default:
	}
}

// network is a network daemon's NetworkService, as a test plays it.
type network struct {
	pb.UnimplementedNetworkServiceServer
	id       core.InstanceID
	revision uint32
	configs  chan *pb.Config
	refuse   error
}

func (n *network) Handshake(context.Context, *pb.HandshakeRequest) (*pb.HandshakeResponse, error) {
	if n.refuse != nil {
		return nil, n.refuse
	}
	return &pb.HandshakeResponse{Revision: n.revision, Features: []string{"not offered"}, InstanceId: string(n.id), Build: &pb.Build{Component: "supervisor-network", Version: "9"}}, nil
}

func (n *network) WatchConfig(_ *pb.WatchConfigRequest, s grpc.ServerStreamingServer[pb.Config]) error {
	for {
		select {
		case c := <-n.configs:
			if err := s.Send(c); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (n *network) ReportEvents(s grpc.BidiStreamingServer[pb.EventBatch, pb.EventAck]) error {
	<-s.Context().Done()
	return nil
}

func (n *network) serve(t *testing.T, dir string) (stop func()) {
	t.Helper()
	l, err := link.Listen("unix", dir, link.NetworkSocket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := link.NewServer(link.Credentials{UID: ownUID})
	pb.RegisterNetworkServiceServer(srv, n)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return srv.Stop
}

func newNetwork() *network {
	return &network{id: core.NewInstanceID(), revision: core.MaxRevision, configs: make(chan *pb.Config, 4)}
}

func (n *network) config(generation uint64) *pb.Config {
	return link.ConfigToProto(core.Config{Generation: core.Generation(generation), NetworkInstance: n.id, ProxyPort: 3128})
}

func startLink(t *testing.T, uid uint32) (*Link, *handler, string) {
	t.Helper()
	dir := t.TempDir()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close(); f.Close() })
	h := &handler{make(chan core.Config, 8), make(chan error, 64), make(chan error, 64), f}
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Open(Options{
		RunDir: dir, PeerUID: uid, Build: core.Build{Component: "supervisor-process", Version: "1"}, Instance: core.NewInstanceID(),
		Mode: core.ModeSandbox, Log: slog.New(slog.DiscardHandler), Outbox: outbox.New(64), Handler: h,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return l, h, dir
}

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

func TestConfigurationsOfEveryNetworkInstanceArrive(t *testing.T) {
	l, h, dir := startLink(t, ownUID)
	for generation := uint64(1); generation < 4; generation++ { // a restart each
		n := newNetwork()
		n.configs <- n.config(generation)
		stop := n.serve(t, dir)
		if c := wait(t, "a configuration", h.configs); uint64(c.Generation) != generation || c.NetworkInstance != n.id {
			t.Fatalf("got %+v", c)
		}
		if p, ok := l.Peer(); !ok || p.Instance != n.id || len(p.Features) > 0 {
			t.Errorf("attached to %+v, which may only have features that were offered", p)
		}
		stop()
	}
}

func TestARefusedHandshakeIsToldWithItsReason(t *testing.T) {
	_, h, dir := startLink(t, ownUID)
	n := newNetwork()
	n.refuse = status.Error(codes.FailedPrecondition, "supervisor-process 1 is too old: upgrade the supervisor-process image")
	n.serve(t, dir)
	if err := wait(t, "the reason", h.incompatible); !strings.Contains(err.Error(), "upgrade the supervisor-process image") {
		t.Errorf("got %v", err)
	}
}

func TestARevisionWeDoNotSpeakIsRefused(t *testing.T) {
	_, h, dir := startLink(t, ownUID)
	n := newNetwork()
	n.revision = core.MaxRevision + 1
	n.configs <- n.config(1)
	n.serve(t, dir)
	if err := wait(t, "the reason", h.incompatible); !strings.Contains(err.Error(), "supervisor-network 9") || !strings.Contains(err.Error(), "supervisor-process 1") {
		t.Errorf("got %v", err)
	}
	if len(h.configs) > 0 {
		t.Error("its configuration was taken")
	}
}

func TestAConfigurationOfAnotherInstanceIsRefused(t *testing.T) {
	_, h, dir := startLink(t, ownUID)
	n := newNetwork()
	n.configs <- newNetwork().config(1)
	n.serve(t, dir)
	if err := wait(t, "the refusal", h.refused); !strings.Contains(err.Error(), "another network daemon instance") {
		t.Errorf("got %v", err)
	}
	if len(h.configs) > 0 {
		t.Error("it was taken")
	}
}

func TestAnImpostorOfAnotherUIDIsRefused(t *testing.T) {
	l, h, dir := startLink(t, ownUID+1)
	n := newNetwork()
	n.configs <- n.config(1)
	n.serve(t, dir)
	if err := wait(t, "the refusal", h.refused); !strings.Contains(err.Error(), "uid") {
		t.Errorf("got %v", err)
	}
	if _, ok := l.Peer(); ok || len(h.configs) > 0 {
		t.Error("it was believed")
	}
}

func TestOnlyTheAttachedInstanceIsServed(t *testing.T) {
	l, h, dir := startLink(t, ownUID)
	if _, err := link.FetchListeners(t.Context(), dir, ownUID, core.NewInstanceID(), l.opt.Instance); err == nil {
		t.Error("listeners were handed over without a handshake")
	}
	n := newNetwork()
	n.configs <- n.config(1)
	n.serve(t, dir)
	wait(t, "a configuration", h.configs)
	if _, err := link.FetchListeners(t.Context(), dir, ownUID, core.NewInstanceID(), l.opt.Instance); err == nil {
		t.Error("listeners were handed over to another instance")
	}
	got, err := link.FetchListeners(t.Context(), dir, ownUID, n.id, l.opt.Instance)
	if err != nil || len(got) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	got[0].File.Close()

	conn, err := link.NewClient(dir, link.ProcessSocket, link.Credentials{UID: ownUID})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewProcessServiceClient(conn)
	l.SetWorkload(core.Workload{Instance: l.opt.Instance, Phase: core.PhaseRunning})
	if got := firstWorkload(t, client, core.NewInstanceID(), l.opt.Instance); status.Code(got) != codes.FailedPrecondition {
		t.Errorf("a workload snapshot for another instance: %v", got)
	}
	if err := firstWorkload(t, client, n.id, l.opt.Instance); err != nil {
		t.Error(err)
	}
}

func firstWorkload(t *testing.T, client pb.ProcessServiceClient, network, process core.InstanceID) error {
	t.Helper()
	s, err := client.WatchWorkload(t.Context(), &pb.WatchWorkloadRequest{NetworkInstanceId: string(network), ProcessInstanceId: string(process)})
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

// TestEveryQuestionIsAnswered: also those with an address that is none, and those
// meant for another instance.
func TestEveryQuestionIsAnswered(t *testing.T) {
	l, _, dir := startLink(t, ownUID)
	conn, err := link.NewClient(dir, link.ProcessSocket, link.Credentials{UID: ownUID})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, err := pb.NewProcessServiceClient(conn).Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := link.AddressToProto(netip.MustParseAddrPort("127.0.0.1:80"))
	for id, req := range map[uint64]*pb.IdentifyRequest{
		1: {ProcessInstanceId: string(l.opt.Instance), Client: good, Server: good},
		2: {ProcessInstanceId: string(core.NewInstanceID()), Client: good, Server: good},
		3: {ProcessInstanceId: string(l.opt.Instance)},
		4: {},
	} {
		req.Id, req.RequestId = id, string(core.NewRequestID())
		if err := s.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := s.Recv()
		if err != nil || resp.GetId() != id {
			t.Fatalf("%v, %v", resp, err)
		}
		if known := resp.GetStatus() == pb.IdentityStatus_IDENTITY_STATUS_KNOWN; known != (id == 1) {
			t.Errorf("question %d: %v", id, resp)
		}
	}
}

func TestRelaysCarryBytesBothWays(t *testing.T) {
	l, h, dir := startLink(t, ownUID)
	n := newNetwork()
	n.configs <- n.config(1)
	n.serve(t, dir)
	wait(t, "a configuration", h.configs)
	conn, err := link.NewClient(dir, link.ProcessSocket, link.Credentials{UID: ownUID})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewProcessServiceClient(conn)
	open := func(o *pb.RelayOpen, data []byte) (grpc.BidiStreamingClient[pb.RelayRequest, pb.RelayResponse], error) {
		s, err := client.OpenRelay(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&pb.RelayRequest{Open: o, Data: data}); err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		return s, err
	}
	network, process := string(n.id), string(l.opt.Instance)
	s, err := open(&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_LOOPBACK, Port: 80}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := strings.Repeat("0123456789", 20_000)
	go func() {
		for i := 0; i < len(sent); i += 50_000 {
			_ = s.Send(&pb.RelayRequest{Data: []byte(sent[i : i+50_000])})
		}
		_ = s.CloseSend()
	}()
	var got strings.Builder
	for {
		resp, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(resp.GetData())
	}
	if got.String() != sent+"end of 80" {
		t.Errorf("%d bytes came back", got.Len())
	}
	for name, tt := range map[string]struct {
		open *pb.RelayOpen
		data []byte
		code codes.Code
	}{
		"nothing":          {&pb.RelayOpen{}, nil, codes.FailedPrecondition},
		"another network":  {&pb.RelayOpen{NetworkInstanceId: string(core.NewInstanceID()), ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_SSH}, nil, codes.FailedPrecondition},
		"another sandbox":  {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: string(core.NewInstanceID()), Target: pb.RelayTarget_RELAY_TARGET_SSH}, nil, codes.FailedPrecondition},
		"no target":        {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process}, nil, codes.InvalidArgument},
		"a target to come": {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: 9, Port: 1}, nil, codes.InvalidArgument},
		"no port":          {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_LOOPBACK}, nil, codes.InvalidArgument},
		"a port beyond":    {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_LOOPBACK, Port: 65536}, nil, codes.InvalidArgument},
		"a port for SSH":   {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_SSH, Port: 22}, nil, codes.InvalidArgument},
		"data before it":   {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_SSH}, []byte("x"), codes.InvalidArgument},
		"nobody listens":   {&pb.RelayOpen{NetworkInstanceId: network, ProcessInstanceId: process, Target: pb.RelayTarget_RELAY_TARGET_LOOPBACK, Port: 1}, nil, codes.Unavailable},
	} {
		if _, err := open(tt.open, tt.data); status.Code(err) != tt.code {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
	if n := l.relays.Load(); n != 0 {
		t.Errorf("%d relays are still counted", n)
	}
}
