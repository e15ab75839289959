package export

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// connect prepares one connection for both signals. It goes straight to the endpoint:
// no proxy of the environment is asked.
func (x *Exporter) connect(opt *Options) (err error) {
	creds := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: opt.Roots})
	if opt.Clear {
		creds = insecure.NewCredentials()
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithUnaryInterceptor(x.refused), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 10))}
	if opt.Headers != "" {
		if err := opt.Headers.Check(); err != nil {
			return err
		}
		options = append(options, grpc.WithPerRPCCredentials(opt.Headers))
	}
	x.conn, err = grpc.NewClient("dns:///"+opt.Address, options...)
	if err != nil {
		return fmt.Errorf("prepare to reach %s: %w", opt.Address, err)
	}
	const first, longest = time.Second, 5 * time.Second
	x.toLogs, err = otlploggrpc.New(context.Background(), otlploggrpc.WithGRPCConn(x.conn), otlploggrpc.WithTimeout(sendTime), otlploggrpc.WithHeaders(map[string]string{}),
		otlploggrpc.WithRetry(otlploggrpc.RetryConfig{Enabled: true, InitialInterval: first, MaxInterval: longest, MaxElapsedTime: sendTime}))
	if err != nil {
		return fmt.Errorf("prepare to send logs: %w", err)
	}
	x.toSpans, err = otlptracegrpc.New(context.Background(), otlptracegrpc.WithGRPCConn(x.conn), otlptracegrpc.WithTimeout(sendTime), otlptracegrpc.WithHeaders(map[string]string{}),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: first, MaxInterval: longest, MaxElapsedTime: sendTime}))
	if err != nil {
		return fmt.Errorf("prepare to send traces: %w", err)
	}
	return nil
}

// refused counts what a collector says it rejected of a request that it took.
func (x *Exporter) refused(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return err
	}
	switch r := reply.(type) {
	case *collogs.ExportLogsServiceResponse:
		x.dropped[Logs].Add(uint64(max(r.GetPartialSuccess().GetRejectedLogRecords(), 0)))
		r.PartialSuccess = nil
	case *coltraces.ExportTraceServiceResponse:
		x.dropped[Traces].Add(uint64(max(r.GetPartialSuccess().GetRejectedSpans(), 0)))
		r.PartialSuccess = nil
	}
	return nil
}
