package link

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/credentials"
)

// peerUID reads the uid of the other end of a Unix socket, as the kernel recorded
// it at connect or listen time (SO_PEERCRED, unix(7)).
func peerUID(c net.Conn) (uint32, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("peer credentials: %T is not a Unix socket", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *syscall.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	if sockErr != nil {
		return 0, fmt.Errorf("getsockopt(SO_PEERCRED): %w", sockErr)
	}
	return cred.Uid, nil
}

// CheckPeer refuses every connection whose other end does not have uid want. The
// connection stays open; the caller closes it.
func CheckPeer(c net.Conn, want uint32) error {
	uid, err := peerUID(c)
	if err != nil {
		return err
	}
	if uid != want {
		return fmt.Errorf("the peer on %s has uid %d, expected uid %d", c.LocalAddr(), uid, want)
	}
	return nil
}

// Credentials is a gRPC transport for Unix sockets that adds no encryption (the
// bytes never leave the kernel) but admits only peers with UID, whichever side
// opened the connection.
type Credentials struct {
	UID     uint32
	Refused func(error) // told about every refused peer; may be nil

	open *atomic.Int64 // connections that a server admitted; nil for a client
}

// maxConnections bounds those of one server. The other daemon has one, and a few more while
// it restarts; each costs memory for as long as it likes.
const maxConnections = 16

func (p Credentials) admit(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := CheckPeer(c, p.UID); err != nil {
		if p.Refused != nil {
			p.Refused(err)
		}
		c.Close()
		return nil, nil, err
	}
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (p Credentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.admit(c)
}

// ServerHandshake implements credentials.TransportCredentials.
func (p Credentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := p.admit(c)
	if err != nil || p.open == nil {
		return c, info, err
	}
	admitted := &admitted{Conn: c, open: p.open}
	if p.open.Add(1) > maxConnections {
		admitted.Close()
		return nil, nil, fmt.Errorf("the peer on %s has %d connections already", c.LocalAddr(), maxConnections)
	}
	return admitted, info, nil
}

// admitted is a connection that counts until it is closed.
type admitted struct {
	net.Conn
	open   *atomic.Int64
	closed sync.Once
}

// Close implements net.Conn.
func (a *admitted) Close() error {
	a.closed.Do(func() { a.open.Add(-1) })
	return a.Conn.Close()
}

// Info implements credentials.TransportCredentials.
func (p Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peercred"}
}

// Clone implements credentials.TransportCredentials.
func (p Credentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName implements credentials.TransportCredentials; it does nothing.
func (p Credentials) OverrideServerName(string) error { return nil }

type authInfo struct{ credentials.CommonAuthInfo }

// AuthType implements credentials.AuthInfo.
func (authInfo) AuthType() string { return "unix-peercred" }
