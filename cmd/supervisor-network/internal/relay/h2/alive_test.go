package h2

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// quiet is a service that says nothing for an hour, and then one message.
type quiet struct {
	pb.UnimplementedTestServiceServer
}

func (quiet) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	<-time.After(time.Hour)
	return out.Send(&pb.StreamingOutputCallResponse{Payload: payload(1)})
}

// TestAQuietCallIsLeftAlone: servers of gRPC end a connection on which they are asked for
// life more often than they like, with all calls that are under way.
func TestAQuietCallIsLeftAlone(t *testing.T) {
	right, cert, trusted := permit(t, host, 1), certificate(), roots()
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 16)
		srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})))
		pb.RegisterTestServiceServer(srv, quiet{})
		go func() { _ = srv.Serve(l) }()
		defer srv.Stop()
		p := New(Config{Dial: func(ctx context.Context, _ decide.Permit) (*tls.Conn, error) {
			c, err := l.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			tc := tls.Client(c, &tls.Config{ServerName: host, RootCAs: trusted, NextProtos: []string{"h2"}})
			return tc, tc.HandshakeContext(ctx)
		}})
		defer p.Close()
		r, err := http.NewRequest("POST", "https://"+host+"/grpc.testing.TestService/StreamingOutputCall", &message{})
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = -1
		r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		resp, err := p.RoundTrip(t.Context(), right, r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if said, err := io.ReadAll(resp.Body); len(said) == 0 || err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%d bytes, %v, trailers %v", len(said), err, resp.Trailer)
		}
	})
}

// message is a call's only message, an empty one.
type message struct{ said bool }

func (m *message) Read(p []byte) (int, error) {
	if m.said {
		return 0, io.EOF
	}
	m.said = true
	return copy(p, "\x00\x00\x00\x00\x00"), nil
}

func (*message) Close() error { return nil }

// TestWhatNobodyConfirmsEnds: the kernel does what pings would do sooner.
func TestWhatNobodyConfirmsEnds(t *testing.T) {
	p, _ := pool(t, httpOrigin(t, ok, nil), Config{})
	var last atomic.Pointer[tls.Conn]
	dial := p.cfg.Dial
	p.cfg.Dial = func(ctx context.Context, q decide.Permit) (*tls.Conn, error) {
		c, err := dial(ctx, q)
		last.Store(c)
		return c, err
	}
	get(t, p, permit(t, host, 1))
	raw, err := last.Load().NetConn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var user, probes int
	err = raw.Control(func(fd uintptr) {
		user, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		probes, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	})
	if got := time.Duration(user) * time.Millisecond; got != confirm || probes == 0 || err != nil {
		t.Errorf("bytes are confirmed within %s, probes %d, %v", got, probes, err)
	}
}
