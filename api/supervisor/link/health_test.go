package link

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestHealthSaysWhatHoldsNow(t *testing.T) {
	var ready atomic.Bool
	srv := grpc.NewServer()
	RegisterHealth(srv, ready.Load)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(conn)
	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, holds := range []bool{false, true, false} {
		ready.Store(holds)
		want := grpc_health_v1.HealthCheckResponse_NOT_SERVING
		if holds {
			want = grpc_health_v1.HealthCheckResponse_SERVING
		}
		if got, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || got.Status != want {
			t.Errorf("Check: %v %v, want %v", got, err, want)
		}
		if got, err := watch.Recv(); err != nil || got.Status != want {
			t.Errorf("Watch: %v %v, want %v", got, err, want)
		}
	}
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("another service: %v", err)
	}
}
