package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/pkg/core"
)

// service is a real gRPC service with all four kinds of calls.
type service struct {
	pb.UnimplementedTestServiceServer
}

func payload(n int) *pb.Payload { return &pb.Payload{Body: bytes.Repeat([]byte("p"), n)} }

func (service) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_, deadline := ctx.Deadline()
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-head", strings.Join(md["x-ask"], ","), "x-deadline", fmt.Sprint(deadline)))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail-bin", string([]byte{0, 1, 255})))
	if s := in.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	if in.GetFillUsername() { // means: never answer
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &pb.SimpleResponse{Payload: payload(int(in.ResponseSize)), Username: fmt.Sprint(len(in.GetPayload().GetBody()))}, nil
}

func (service) StreamingOutputCall(in *pb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	for _, p := range in.ResponseParameters {
		if err := out.Send(&pb.StreamingOutputCallResponse{Payload: payload(int(p.Size))}); err != nil {
			return err
		}
	}
	return nil
}

func (service) StreamingInputCall(in grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	total := 0
	for {
		m, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(total)})
		}
		if err != nil {
			return err
		}
		total += len(m.GetPayload().GetBody())
	}
}

func (service) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, p := range m.ResponseParameters {
			if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(int(p.Size))}); err != nil {
				return err
			}
		}
	}
}

const large = 8 << 20

type judge = func(context.Context, *http2.Stream) (context.Context, *http1.ErrorBody)

// calls is a gRPC client whose calls go through a tunnel to a gRPC server.
func calls(t testing.TB, j judge) pb.TestServiceClient {
	t.Helper()
	l := listen(t)
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}})), grpc.MaxRecvMsgSize(2*large))
	pb.RegisterTestServiceServer(srv, service{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() { srv.Stop(); <-served })
	p, _ := pool(t, l.Addr().String(), Config{})
	return caller(t, tunnel(t, p, j))
}

// caller is a gRPC client of whoever listens there.
func caller(t testing.TB, front string) pb.TestServiceClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: host, RootCAs: roots()})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", front)
		}), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*large)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewTestServiceClient(cc)
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestUnaryCallsKeepTheirMetadata(t *testing.T) {
	c := calls(t, nil)
	ctx := metadata.AppendToOutgoingContext(deadline(t), "x-ask", "a", "x-ask", "b", "x-ask-bin", "\x00\xff")
	var head, tail metadata.MD
	out, err := c.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(3), ResponseSize: 5}, grpc.Header(&head), grpc.Trailer(&tail))
	if err != nil {
		t.Fatal(err)
	}
	if out.Username != "3" || len(out.Payload.Body) != 5 {
		t.Errorf("%v", out)
	}
	if head.Get("x-head")[0] != "a,b" || head.Get("x-deadline")[0] != "true" || tail.Get("x-tail-bin")[0] != "\x00\x01\xff" {
		t.Errorf("%v %v", head, tail)
	}
}

func TestAnOriginsStatusPasses(t *testing.T) {
	_, err := calls(t, nil).UnaryCall(deadline(t), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(codes.AlreadyExists), Message: "no: 100% ü"}})
	if s := status.Convert(err); s.Code() != codes.AlreadyExists || s.Message() != "no: 100% ü" {
		t.Errorf("%v", err)
	}
}

func TestLargeAndCompressedMessagesPass(t *testing.T) {
	c := calls(t, nil)
	for name, opts := range map[string][]grpc.CallOption{"plain": nil, "gzip": {grpc.UseCompressor(gzip.Name)}} {
		t.Run(name, func(t *testing.T) {
			out, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{Payload: payload(large), ResponseSize: large}, opts...)
			if err != nil || out.Username != fmt.Sprint(large) || len(out.Payload.Body) != large {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestStreamsInEitherDirectionPass(t *testing.T) {
	c := calls(t, nil)
	sizes := []*pb.ResponseParameters{{Size: 1}, {Size: 70000}, {Size: 0}}
	down, err := c.StreamingOutputCall(deadline(t), &pb.StreamingOutputCallRequest{ResponseParameters: sizes})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range sizes {
		if m, err := down.Recv(); err != nil || len(m.GetPayload().GetBody()) != int(want.Size) {
			t.Fatalf("%v", err)
		}
	}
	if _, err := down.Recv(); err != io.EOF {
		t.Errorf("%v", err)
	}
	up, err := c.StreamingInputCall(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 70000, 0} {
		if err := up.Send(&pb.StreamingInputCallRequest{Payload: payload(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := up.CloseAndRecv(); err != nil || m.AggregatedPayloadSize != 70001 {
		t.Errorf("%v %v", m, err)
	}
}

// exchange sends one message on a stream and waits for its answer.
func exchange(t *testing.T, s grpc.BidiStreamingClient[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) {
	t.Helper()
	if err := s.Send(&pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: 7}}}); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err != nil || len(m.Payload.Body) != 7 {
		t.Fatalf("%v %v", m, err)
	}
}

func TestBothSidesMaySpeakAtOnce(t *testing.T) {
	s, err := calls(t, nil).FullDuplexCall(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 { // ping-pong: each answer may bring a ping of the client's
		exchange(t, s)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("%v", err)
	}
}

func TestADeadlineEndsTheCallAtTheOriginToo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := calls(t, nil).UnaryCall(ctx, &pb.SimpleRequest{FillUsername: true}) // stopping the server would hang otherwise
	// The origin knows the deadline too; when its reset comes first, the client sees that.
	if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestADeniedCallIsSeenAsSuch(t *testing.T) {
	c := calls(t, func(ctx context.Context, s *http2.Stream) (context.Context, *http1.ErrorBody) {
		if s.Path == "/grpc.testing.TestService/UnaryCall" && s.GRPC {
			return ctx, nil
		}
		return ctx, &http1.ErrorBody{Error: core.ReasonPolicyDenied, Detail: s.Method + " " + s.Path + " not permitted by policy"}
	})
	if _, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.EmptyCall(deadline(t), &pb.Empty{})
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "policy_denied: POST /grpc.testing.TestService/EmptyCall not permitted by policy" {
		t.Errorf("%v", err)
	}
	s, err := c.FullDuplexCall(deadline(t))
	if err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("%v", err)
	}
	if _, err := c.UnaryCall(deadline(t), &pb.SimpleRequest{}); err != nil { // the connection is as before
		t.Fatal(err)
	}
}

func TestARevokedCallIsDenied(t *testing.T) {
	revoke := make(chan context.CancelCauseFunc, 1)
	c := calls(t, func(ctx context.Context, _ *http2.Stream) (context.Context, *http1.ErrorBody) {
		ctx, cancel := context.WithCancelCause(ctx)
		revoke <- cancel
		return ctx, nil
	})
	s, err := c.FullDuplexCall(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, s)
	(<-revoke)(&http2.Revoked{Reason: core.ReasonPolicyChanged, Detail: "no longer permitted"})
	_, err = s.Recv()
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "policy_changed: no longer permitted" {
		t.Errorf("%v", err)
	}
}

func TestAnOriginThatCannotBeReachedIsUnavailable(t *testing.T) {
	p, _ := pool(t, "", Config{Dial: nil})
	p.cfg.Dial = failing
	front := tunnel(t, p, nil)
	cc, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: host, RootCAs: roots()})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", front)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, err = pb.NewTestServiceClient(cc).EmptyCall(deadline(t), &pb.Empty{})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "upstream_invalid_response: "+errUnreachable.Error() {
		t.Errorf("%v", err)
	}
}

var errUnreachable = errors.New("no address answered")
