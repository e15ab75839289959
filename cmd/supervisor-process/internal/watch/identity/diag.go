package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

// errNoSocket says that no such connection exists.
var errNoSocket = errors.New("no socket has this connection")

// Of inet_diag.h.
const (
	sockDiagByFamily = 20
	requestBytes     = unix.NLMSG_HDRLEN + 56
	messageBytes     = 72
)

// OpenDiag opens a socket that answers about the TCP connections of the current
// network namespace, wherever it is passed to.
func OpenDiag() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket(NETLINK_SOCK_DIAG)", err)
	}
	wait := unix.NsecToTimeval(1e9)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt(SO_RCVTIMEO)", err)
	}
	return os.NewFile(uintptr(fd), "sock_diag"), nil
}

// diag asks the kernel, one question at a time; an answer takes microseconds.
type diag struct {
	fd int

	mu  sync.Mutex
	seq uint32 // guarded by mu
	buf []byte // guarded by mu
}

// lookup returns the inode of the client's end of a connection.
func (d *diag) lookup(t core.Tuple) (uint64, error) {
	client, server := t.Client.Addr().Unmap(), t.Server.Addr().Unmap()
	if client.Is4() != server.Is4() || !client.IsValid() {
		return 0, fmt.Errorf("%s mixes address families", t)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	if err := unix.Sendto(d.fd, request(d.seq, client, server, t.Client.Port(), t.Server.Port()), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto(sock_diag)", err)
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("recvfrom(sock_diag)", err)
		}
		if n < unix.NLMSG_HDRLEN || binary.NativeEndian.Uint32(d.buf[8:]) != d.seq {
			continue // the late answer to an earlier question
		}
		return inode(d.buf[:n])
	}
}

// request is a struct inet_diag_req_v2 for one exact connection.
func request(seq uint32, client, server netip.Addr, sport, dport uint16) []byte {
	b := make([]byte, requestBytes)
	native, big := binary.NativeEndian, binary.BigEndian
	native.PutUint32(b[0:], requestBytes)
	native.PutUint16(b[4:], sockDiagByFamily)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	native.PutUint32(b[8:], seq)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if client.Is4() {
		r[0] = unix.AF_INET
	}
	native.PutUint32(r[4:], ^uint32(0)) // every state
	big.PutUint16(r[8:], sport)
	big.PutUint16(r[10:], dport)
	copy(r[12:28], client.AsSlice())
	copy(r[28:44], server.AsSlice())
	native.PutUint64(r[48:], ^uint64(0)) // no cookie
	return b
}

// inode reads the answer.
func inode(b []byte) (uint64, error) {
	body := b[unix.NLMSG_HDRLEN:]
	switch kind := binary.NativeEndian.Uint16(b[4:]); {
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		if errno == unix.ENOENT {
			return 0, errNoSocket
		}
		return 0, os.NewSyscallError("sock_diag", errno)
	case kind != sockDiagByFamily || len(body) < messageBytes:
		return 0, fmt.Errorf("sock_diag: message %d of %d bytes", kind, len(b))
	}
	n := binary.NativeEndian.Uint32(body[68:])
	if n == 0 {
		return 0, errNoSocket // closed by its owner already
	}
	return uint64(n), nil
}
