package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/test/need"
)

var ownUID = uint32(os.Getuid())

func TestHandshakeNamesBothBuildsAndWhatToUpgrade(t *testing.T) {
	own := core.Build{Component: "supervisor-network", Version: "2.0"}
	id := string(core.NewInstanceID())
	peer := &pb.Build{Component: "supervisor-process", Version: "1.0"}
	for _, tt := range []struct {
		name string
		req  *pb.HandshakeRequest
		want []string // nil: agreed
	}{
		{"same range", &pb.HandshakeRequest{MinRevision: 2, MaxRevision: 3, Build: peer, InstanceId: id, Mode: pb.Mode_MODE_SANDBOX}, nil},
		{"overlapping range", &pb.HandshakeRequest{MinRevision: 1, MaxRevision: 2, Build: peer, InstanceId: id, Mode: pb.Mode_MODE_ATTACH}, nil},
		{"too old", &pb.HandshakeRequest{MinRevision: 1, MaxRevision: 1, Build: peer, InstanceId: id, Mode: pb.Mode_MODE_SANDBOX}, []string{"supervisor-process 1.0", "supervisor-network 2.0", "upgrade the supervisor-process image"}},
		{"too new", &pb.HandshakeRequest{MinRevision: 4, MaxRevision: 9, Build: peer, InstanceId: id, Mode: pb.Mode_MODE_SANDBOX}, []string{"supervisor-process 1.0", "supervisor-network 2.0", "upgrade the supervisor-network image"}},
		{"no range", &pb.HandshakeRequest{MinRevision: 3, MaxRevision: 2, Build: peer, InstanceId: id, Mode: pb.Mode_MODE_SANDBOX}, []string{"no range"}},
		{"zero", &pb.HandshakeRequest{Build: peer, InstanceId: id, Mode: pb.Mode_MODE_SANDBOX}, []string{"no range"}},
		{"no instance", &pb.HandshakeRequest{MinRevision: 2, MaxRevision: 2, Build: peer, InstanceId: "x", Mode: pb.Mode_MODE_SANDBOX}, []string{"no instance id"}},
		{"no mode", &pb.HandshakeRequest{MinRevision: 2, MaxRevision: 2, Build: peer, InstanceId: id}, []string{"mode"}},
		{"a mode of the future", &pb.HandshakeRequest{MinRevision: 2, MaxRevision: 2, Build: peer, InstanceId: id, Mode: 77}, []string{"mode", "upgrade the supervisor-network image"}},
		{"the wrong component", &pb.HandshakeRequest{MinRevision: 2, MaxRevision: 2, Build: &pb.Build{Component: "workload"}, InstanceId: id, Mode: pb.Mode_MODE_SANDBOX}, []string{"workload"}},
		{"nothing", &pb.HandshakeRequest{}, []string{"expected supervisor-process"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Agree(own, 2, 3, tt.req)
			if tt.want == nil {
				if err != nil || got.Revision != min(3, tt.req.MaxRevision) || string(got.Instance) != id {
					t.Fatalf("got %+v, %v", got, err)
				}
				return
			}
			if err == nil || got.Instance != "" {
				t.Fatalf("agreed: %+v", got)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		})
	}
}

// unixPair listens in a fresh directory and connects to itself.
func unixPair(t *testing.T, network string) (client, server *net.UnixConn) {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen(network, dir, "x.sock", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = Dial(t.Context(), network, dir, "x.sock"); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = accepted.(*net.UnixConn)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestPeersWithAnotherUIDAreRefusedOnBothSides(t *testing.T) {
	client, server := unixPair(t, "unix")
	for _, c := range []*net.UnixConn{client, server} {
		if err := CheckPeer(c, ownUID); err != nil {
			t.Errorf("own uid: %v", err)
		}
		if err := CheckPeer(c, ownUID+1); err == nil || !strings.Contains(err.Error(), fmt.Sprint("expected uid ", ownUID+1)) {
			t.Errorf("another uid: %v", err)
		}
	}
	told := 0
	creds := Credentials{UID: ownUID + 1, Refused: func(error) { told++ }}
	if _, _, err := creds.ServerHandshake(server); err == nil {
		t.Error("the server side admitted it")
	}
	if _, _, err := creds.ClientHandshake(t.Context(), "", client); err == nil {
		t.Error("the client side admitted it")
	}
	if told != 2 {
		t.Errorf("told %d times", told)
	}
}

// TestARealProcessOfAnotherUserIsRefused: the kernel's word, not the peer's.
func TestARealProcessOfAnotherUserIsRefused(t *testing.T) {
	need.Root(t)
	nc := need.Program(t, "nc")
	dir, err := os.MkdirTemp("", "splitpod-link-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen("unix", dir, "x.sock", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", nc, "-U", dir+"/x.sock")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := CheckPeer(c, ownUID); err == nil || !strings.Contains(err.Error(), "uid 1234") {
		t.Errorf("got %v", err)
	}
}

func listener(t *testing.T) (*net.TCPListener, *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); f.Close() })
	return l.(*net.TCPListener), f
}

// handover serves one request and fetches it.
func handover(t *testing.T, serve func(*net.UnixConn) error, process core.InstanceID) ([]Descriptor, error, error) {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen("unixpacket", dir, HandoverSocket, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = serve(c.(*net.UnixConn))
		}
		served <- err
	}()
	got, err := FetchListeners(t.Context(), dir, ownUID, core.NewInstanceID(), process)
	t.Cleanup(func() {
		for _, d := range got {
			d.File.Close()
		}
	})
	return got, err, <-served
}

func TestHandoverPassesTheListener(t *testing.T) {
	own := core.NewInstanceID()
	l, f := listener(t)
	got, err, served := handover(t, func(c *net.UnixConn) error {
		return ServeListener(c, ownUID, own, func(core.InstanceID) ([]Descriptor, error) { return []Descriptor{{"proxy4", f}}, nil })
	}, own)
	if err != nil || served != nil || len(got) != 1 || got[0].Name != "proxy4" {
		t.Fatalf("got %v, %v, %v", got, err, served)
	}
	passed, err := net.FileListener(got[0].File)
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if accepted, err := passed.Accept(); err != nil {
		t.Error(err)
	} else {
		accepted.Close()
	}
}

func TestHandoverRefuses(t *testing.T) {
	own := core.NewInstanceID()
	_, f := listener(t)
	give := func(core.InstanceID) ([]Descriptor, error) { return []Descriptor{{"proxy4", f}}, nil }
	send := func(msg []byte, oob []byte) func(*net.UnixConn) error {
		return func(c *net.UnixConn) error {
			defer c.Close()
			_, _ = c.Read(make([]byte, 512))
			_, _, err := c.WriteMsgUnix(msg, oob, nil)
			return err
		}
	}
	fd, err := descriptorOf(f)
	if err != nil {
		t.Fatal(err)
	}
	two, err := proto.Marshal(&pb.HandoverResponse{Listeners: []*pb.Listener{{Name: "a"}, {Name: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		serve func(*net.UnixConn) error
		asked core.InstanceID
		want  string
	}{
		"for another instance": {func(c *net.UnixConn) error { return ServeListener(c, ownUID, own, give) }, core.NewInstanceID(), "another process daemon instance"},
		"with the reason of the check": {func(c *net.UnixConn) error {
			return ServeListener(c, ownUID, own, func(core.InstanceID) ([]Descriptor, error) { return nil, errors.New("not yet") })
		}, own, "not yet"},
		"to another uid":               {func(c *net.UnixConn) error { return ServeListener(c, ownUID+1, own, give) }, own, ""},
		"garbage":                      {send([]byte("\xff\xff\xff"), nil), own, "receive listeners"},
		"names without descriptors":    {send(two, nil), own, "2 names for 0 descriptors"},
		"fewer descriptors than names": {send(two, unix.UnixRights(fd)), own, "2 names for 1 descriptors"},
		"an empty answer":              {send(nil, nil), own, "receive listeners"},
		"an answer that is too large":  {send(make([]byte, handoverBytes+1), unix.UnixRights(fd)), own, "cut"},
	} {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			got, err, _ := handover(t, tt.serve, tt.asked)
			if err == nil || len(got) != 0 || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want an error with %q", got, err, tt.want)
			}
			if after := descriptors(t); after > before {
				t.Errorf("%d descriptors leaked", after-before)
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// wire is a ReportEvents stream in memory.
type wire struct {
	ctx     context.Context
	batches chan *pb.EventBatch
	acks    chan *pb.EventAck
}

func newWire(ctx context.Context) wire {
	return wire{ctx, make(chan *pb.EventBatch), make(chan *pb.EventAck)}
}

func pass[T any](ctx context.Context, ch chan T, v T) error {
	select {
	case ch <- v:
		return nil
	case <-ctx.Done():
		return io.EOF
	}
}

func take[T any](ctx context.Context, ch chan T) (v T, err error) {
	select {
	case v = <-ch:
		return v, nil
	case <-ctx.Done():
		return v, io.EOF
	}
}

type senderEnd struct{ wire }

func (w senderEnd) Send(b *pb.EventBatch) error { return pass(w.ctx, w.batches, b) }
func (w senderEnd) Recv() (*pb.EventAck, error) { return take(w.ctx, w.acks) }
func (w senderEnd) CloseSend() error            { return nil }

type receiverEnd struct{ wire }

func (w receiverEnd) Recv() (*pb.EventBatch, error) { return take(w.ctx, w.batches) }
func (w receiverEnd) Send(a *pb.EventAck) error     { return pass(w.ctx, w.acks, a) }

// TestEventsSurviveReconnects: every event arrives exactly once and in order,
// although the stream breaks at every point it can break.
func TestEventsSurviveReconnects(t *testing.T) {
	own := core.NewInstanceID()
	box := outbox.New(outbox.DefaultLimit)
	const total = 1000
	for i := range total {
		box.Add(core.Event{Kind: core.EventConnection, Host: fmt.Sprintf("h%d", i), Reason: core.ReasonPolicyDenied})
	}
	var inbox Inbox
	var got []string
	for broken := 0; box.Stats().Waiting > 0; broken++ {
		if broken > 100 {
			t.Fatal("no progress")
		}
		ctx, cancel := context.WithCancel(t.Context())
		w := newWire(ctx)
		taken := 0
		done := make(chan error, 1)
		go func() {
			done <- inbox.Receive(receiverEnd{w}, func(evs []core.Event) {
				for _, ev := range evs {
					got = append(got, ev.Host)
				}
				if taken++; taken == broken%3+1 {
					cancel() // before the acknowledgement of a batch
				}
			})
		}()
		go func() {
			for box.Stats().Waiting > 0 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_ = SendEvents(ctx, senderEnd{w}, own, box)
		<-done
		cancel()
	}
	if len(got) != total {
		t.Fatalf("%d events arrived, want %d", len(got), total)
	}
	for i, h := range got {
		if h != fmt.Sprintf("h%d", i) {
			t.Fatalf("event %d is %s", i, h)
		}
	}
}

// TestASlowReaderDoesNotGrowTheSender: without acknowledgements one batch is on its
// way, and the outbox folds what comes.
func TestASlowReaderDoesNotGrowTheSender(t *testing.T) {
	box := outbox.New(16)
	for i := range 10000 {
		box.Add(core.Event{Kind: core.EventConnection, Verdict: core.Deny, Reason: core.ReasonPolicyDenied, Host: fmt.Sprintf("h%d", i)})
	}
	if s := box.Stats(); s.Waiting > 64 || s.Undetailed == 0 {
		t.Errorf("%+v: the queue is not bounded, or hides what it dropped", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := newWire(ctx)
	done := make(chan error, 1)
	go func() { done <- SendEvents(ctx, senderEnd{w}, core.NewInstanceID(), box) }()
	first, err := take(t.Context(), w.batches)
	if err != nil || len(first.GetEvents()) == 0 || len(first.GetEvents()) > maxBatch {
		t.Fatalf("%v, %v", first, err)
	}
	select {
	case second := <-w.batches:
		t.Errorf("a second batch of %d events came without an acknowledgement", len(second.GetEvents()))
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	<-done
}

func TestBadBatchesEndTheStream(t *testing.T) {
	for name, batch := range map[string]*pb.EventBatch{
		"no instance":        {},
		"an instance to log": {InstanceId: strings.Repeat("\n", 1<<20)},
		"too many events":    {InstanceId: string(core.NewInstanceID()), Events: make([]*pb.Event, maxBatch+1)},
	} {
		t.Run(name, func(t *testing.T) {
			var inbox Inbox
			w := newWire(t.Context())
			go func() { w.batches <- batch }()
			err := inbox.Receive(receiverEnd{w}, func([]core.Event) { t.Error("events were taken") })
			if status.Code(err) != codes.InvalidArgument || len(err.Error()) > 500 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func fresh(in *Inbox, from core.InstanceID, seq uint64) (taken bool) {
	in.take(from, []*pb.Event{{Sequence: seq}}, func([]core.Event) { taken = true })
	return taken
}

func TestInboxForgetsOnlyTheOldestProducer(t *testing.T) {
	var in Inbox
	var ids []core.InstanceID
	for range maxProducers + 1 {
		id := core.NewInstanceID()
		ids = append(ids, id)
		if !fresh(&in, id, 5) || fresh(&in, id, 5) || fresh(&in, id, 4) || fresh(&in, id, 0) {
			t.Fatal("numbers are not compared")
		}
	}
	if fresh(&in, ids[1], 5) || !fresh(&in, ids[0], 5) {
		t.Error("the wrong producer was forgotten")
	}
}

func TestIdentityOfTheFutureDenies(t *testing.T) {
	for _, resp := range []*pb.IdentifyResponse{nil, {}, {Status: 99}} {
		if got := IdentityFromProto(resp); got.Status == core.IdentityKnown {
			t.Errorf("%v reads as known", resp)
		}
	}
}

// TestALinkInPlaceOfASocketIsNotOpened: the directory may be the other daemon's, which may
// put something in a socket's place before it is opened to that daemon.
func TestALinkInPlaceOfASocketIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	secret, at := filepath.Join(dir, "secret"), filepath.Join(dir, ProcessSocket)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(secret, nil, 0o600))
	for what, put := range map[string]func() error{
		"a link":      func() error { return os.Symlink(secret, at) },
		"a hard link": func() error { return os.Link(secret, at) },
		"a directory": func() error { return os.Mkdir(at, 0o700) },
		"nothing":     func() error { return nil },
	} {
		must(put())
		if _, err := openToOthers(at); err == nil {
			t.Errorf("%s was opened", what)
		}
		must(os.RemoveAll(at))
	}
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v)", info.Mode(), err)
	}
	l, err := Listen("unix", dir, ProcessSocket, quiet)
	must(err)
	defer l.Close()
	if info, err := os.Lstat(at); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("the socket has mode %v (%v)", info.Mode(), err)
	}
}

// TestAPeerHasFewConnections: each costs memory, whatever it says.
func TestAPeerHasFewConnections(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen("unix", dir, ProcessSocket, quiet)
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(Credentials{UID: ownUID})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	connect := func() (c *net.UnixConn, served bool) {
		c, err := Dial(t.Context(), "unix", dir, ProcessSocket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // and no settings
		n, err := c.Read(make([]byte, 1024))
		return c, n > 0 && err == nil
	}
	var open []*net.UnixConn
	for range maxConnections {
		c, served := connect()
		if !served {
			t.Fatalf("connection %d of %d is not served", len(open)+1, maxConnections)
		}
		open = append(open, c)
	}
	if _, served := connect(); served {
		t.Errorf("connection %d is served", maxConnections+1)
	}
	open[0].Close()
	for deadline := time.Now().Add(time.Minute); ; {
		if _, served := connect(); served {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a connection that ended is not given back")
		}
	}
}
