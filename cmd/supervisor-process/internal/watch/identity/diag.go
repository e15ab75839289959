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
	sockDestroy      = 21
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

// CanDestroy reports whether the kernel lets the opener of f end connections
// (CONFIG_INET_DIAG_DESTROY, CAP_NET_ADMIN).
func CanDestroy(f *os.File) bool {
	fd, err := number(f)
	if err != nil {
		return false
	}
	d := diag{fd: fd}
	nobody := netip.MustParseAddrPort("192.0.2.1:1")
	_, err = d.ask(sockDestroy, core.Tuple{Client: nobody, Server: nobody}, anyCookie)
	return errors.Is(err, errNoSocket)
}

// diag asks the kernel, one question at a time; an answer takes microseconds.
type diag struct {
	fd int

	mu     sync.Mutex
	seq    uint32               // guarded by mu
	kernel unix.SockaddrNetlink // guarded by mu
	out    [requestBytes]byte   // guarded by mu
	in     [1024]byte           // guarded by mu
}

// socket is the client's end of a connection.
type socket struct {
	inode  uint64
	uid    uint32 // who made it
	cookie uint64 // no other socket has it
}

// anyCookie is in place of one that is not known.
const anyCookie = ^uint64(0)

// lookup returns the client's end of a connection.
func (d *diag) lookup(t core.Tuple) (socket, error) { return d.ask(sockDiagByFamily, t, anyCookie) }

// destroy ends the client's end of a connection with ECONNABORTED.
func (d *diag) destroy(t core.Tuple) error {
	s, err := d.lookup(t)
	if err != nil {
		return err
	}
	return d.end(t, s)
}

// end ends a socket, and no other: if it is gone, and the kernel did not know which one is
// meant, it would end a listener of its port.
func (d *diag) end(t core.Tuple, s socket) error {
	_, err := d.ask(sockDestroy, t, s.cookie)
	return err
}

// ask sends one question and reads its answer.
func (d *diag) ask(kind uint16, t core.Tuple, cookie uint64) (socket, error) {
	client, server := t.Client.Addr().Unmap(), t.Server.Addr().Unmap()
	if client.Is4() != server.Is4() || !client.IsValid() {
		return socket{}, fmt.Errorf("%s mixes address families", t)
	}
	client, server = client.WithZone(""), server.WithZone("")
	t = core.Tuple{Client: netip.AddrPortFrom(client, t.Client.Port()), Server: netip.AddrPortFrom(server, t.Server.Port())}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	request(&d.out, kind, d.seq, t, cookie)
	d.kernel.Family = unix.AF_NETLINK
	if err := unix.Sendto(d.fd, d.out[:], 0, &d.kernel); err != nil {
		return socket{}, os.NewSyscallError("sendto(sock_diag)", err)
	}
	for {
		n, from, err := unix.Recvfrom(d.fd, d.in[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return socket{}, os.NewSyscallError("recvfrom(sock_diag)", err)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			continue
		}
		if n < unix.NLMSG_HDRLEN || binary.NativeEndian.Uint32(d.in[8:]) != d.seq {
			continue // the late answer to an earlier question
		}
		return read(d.in[:n], t)
	}
}

// loopback is the index of lo, in every network namespace. A socket may be bound to it, and
// is then not found by a question that names no device; one that is not bound always is.
const loopback = 1

// request makes b a struct inet_diag_req_v2 for one exact connection.
func request(b *[requestBytes]byte, kind uint16, seq uint32, t core.Tuple, cookie uint64) {
	clear(b[:])
	native, big := binary.NativeEndian, binary.BigEndian
	native.PutUint32(b[0:], requestBytes)
	native.PutUint16(b[4:], kind)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	if kind == sockDestroy {
		native.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	}
	native.PutUint32(b[8:], seq)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if t.Client.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	native.PutUint32(r[4:], ^uint32(0)) // every state
	big.PutUint16(r[8:], t.Client.Port())
	big.PutUint16(r[10:], t.Server.Port())
	put(r[12:28], t.Client.Addr())
	put(r[28:44], t.Server.Addr())
	native.PutUint32(r[44:], loopback)
	native.PutUint64(r[48:], cookie)
}

// put writes an address; one of IPv4 takes the first four bytes.
func put(b []byte, a netip.Addr) {
	if a.Is4() {
		b4 := a.As4()
		copy(b, b4[:])
		return
	}
	b16 := a.As16()
	copy(b, b16[:])
}

// read reads the answer. Where there is no connection the kernel answers with a
// listener of the client's port, so that the answer is compared with the question.
func read(b []byte, t core.Tuple) (socket, error) {
	body := b[unix.NLMSG_HDRLEN:]
	switch kind := binary.NativeEndian.Uint16(b[4:]); {
	case kind == unix.NLMSG_ERROR && len(body) >= 4:
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		switch errno {
		case 0: // an acknowledgement
			return socket{}, nil
		case unix.ENOENT:
			return socket{}, errNoSocket
		}
		return socket{}, os.NewSyscallError("sock_diag", errno)
	case kind != sockDiagByFamily || len(body) < messageBytes:
		return socket{}, fmt.Errorf("sock_diag: message %d of %d bytes", kind, len(b))
	}
	const listening = 10 // TCP_LISTEN
	big := binary.BigEndian
	client := netip.AddrPortFrom(address(body[0], body[8:24]), big.Uint16(body[4:]))
	server := netip.AddrPortFrom(address(body[0], body[24:40]), big.Uint16(body[6:]))
	native := binary.NativeEndian
	s := socket{inode: uint64(native.Uint32(body[68:])), uid: native.Uint32(body[64:]), cookie: native.Uint64(body[44:])}
	if body[1] == listening || client != t.Client || server != t.Server || s.inode == 0 {
		return socket{}, errNoSocket // inode 0: closed by its owner already
	}
	return s, nil
}

// address reads an address of the answer; an IPv6 socket may hold an IPv4 one.
func address(family byte, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}
