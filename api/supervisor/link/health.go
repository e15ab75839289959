package link

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthInterval is how soon a watcher of the health service hears of a change.
const healthInterval = 500 * time.Millisecond

// health answers the gRPC health protocol (grpc.health.v1) for the whole server, by
// what holds at the moment.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	ready func() bool
}

// RegisterHealth lets srv answer whether ready holds.
func RegisterHealth(srv *grpc.Server, ready func() bool) {
	grpc_health_v1.RegisterHealthServer(srv, &health{ready: ready})
}

func (h *health) now() *grpc_health_v1.HealthCheckResponse {
	r := &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING}
	if h.ready() {
		r.Status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	return r
}

// Check implements grpc.health.v1.Health.
func (h *health) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if req.GetService() != "" {
		return nil, status.Error(codes.NotFound, "ask about the whole server: leave the service empty")
	}
	return h.now(), nil
}

// Watch implements grpc.health.v1.Health: the state now and every change.
func (h *health) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	if req.GetService() != "" {
		return stream.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN})
	}
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		if r := h.now(); r.Status != last {
			if err := stream.Send(r); err != nil {
				return err
			}
			last = r.Status
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-tick.C:
		}
	}
}
