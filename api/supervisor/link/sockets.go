package link

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// Names of the sockets in the run directory.
const (
	NetworkSocket  = "network.sock"
	ProcessSocket  = "process.sock"
	HandoverSocket = "handover.sock"
)

// MaxMessageBytes bounds every message of the contract.
const MaxMessageBytes = 4 << 20

// connectTimeout bounds the time from accept to the first complete HTTP/2
// preface, so that a silent peer holds no place.
const connectTimeout = 10 * time.Second

// Dial connects to a Unix socket in the run directory. The caller checks the peer.
func Dial(ctx context.Context, network, runDir, name string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, filepath.Join(runDir, name))
	if err != nil {
		return nil, fmt.Errorf("connect to the contract socket: %w", err)
	}
	return c.(*net.UnixConn), nil
}

// window is how much a peer may send ahead. It is fixed: to find one that fits, each side
// would ask for an echo of nearly every message.
const window = 256 << 10

// NewServer makes a gRPC server with the contract's limits.
func NewServer(creds Credentials) *grpc.Server {
	creds.open = new(atomic.Int64)
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(64),
		grpc.MaxHeaderListSize(16<<10),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

// again is how long a client waits until it connects anew: it costs next to nothing, and
// nothing goes on meanwhile.
var again = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// NewClient makes a gRPC client of a contract socket. It connects at the first
// call; the caller closes it.
func NewClient(runDir, name string, creds Credentials) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix:"+filepath.Join(runDir, name),
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: connectTimeout}),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("contract client for %s: %w", name, err)
	}
	return conn, nil
}
