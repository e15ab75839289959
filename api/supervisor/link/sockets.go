package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
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

// Listen opens a Unix socket in the run directory, replacing one that an earlier
// instance left behind. Whoever can reach the directory may connect; credentials
// decide who may speak. network is "unix" or "unixpacket".
func Listen(ctx context.Context, network, runDir, name string) (*net.UnixListener, error) {
	path := filepath.Join(runDir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the stale socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, path)
	if err != nil {
		return nil, fmt.Errorf("open the contract socket: %w", err)
	}
	if err := openToOthers(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the contract socket to the other container: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// openToOthers lets everybody connect to a socket. The directory may belong to the other
// daemon: what that one put in the socket's place, or leads to, keeps its mode.
func openToOthers(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("something else was put in its place")
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o666)
}

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

// NewClient makes a gRPC client of a contract socket. It connects at the first
// call; the caller closes it.
func NewClient(runDir, name string, creds Credentials) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix:"+filepath.Join(runDir, name),
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
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
