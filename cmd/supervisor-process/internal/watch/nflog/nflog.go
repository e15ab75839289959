// Package nflog reads what the fence logs: one message for each refused packet that
// the fence's limit let through.
//
// It answers the threat of a bypass attempt that nobody learns of. Packets are the
// workload's own bytes and every length in them is checked; a message that cannot be
// read is skipped. It does not count: the fence's counters do, without a limit.
//
// Sources: nfnetlink_log.h of the kernel's user API, netlink(7), RFC 791 section
// 3.1, RFC 8200 sections 3 and 4, RFC 9293 section 3.1.
package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Packet is one refused packet. Dst has port 0 where there is none.
type Packet struct {
	Prefix   string // of the rule that logged it
	Proto    string // "tcp", "udp", …, or the protocol's number
	Src, Dst netip.AddrPort
	UID      uint32 // who sent it; 4294967295 when unknown
	Reply    bool   // of TCP: whoever sent it was connected to, and connects to nobody
}

// Of nfnetlink_log.h.
const (
	msgPacket, msgConfig = unix.NFNL_SUBSYS_ULOG << 8, unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCmd, configMode, configTimeout, configThreshold = 1, 2, 4, 5

	cmdBind, copyPacket = 1, 2

	attrPayload, attrPrefix, attrUID = 9, 10, 11
)

// past ends a read at once.
var past = time.Unix(1, 0)

// copyBytes of each packet are delivered.
const copyBytes = 128

// Open binds to a log group of the current network namespace. The socket stays in
// that namespace wherever it is passed to. It needs CAP_NET_ADMIN.
func Open(group uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket(NETLINK_NETFILTER)", err)
	}
	f := os.NewFile(uintptr(fd), "nflog")
	if err := bind(fd, group); err != nil {
		f.Close()
		return nil, fmt.Errorf("open log group %d: %w", group, err)
	}
	return f, nil
}

func bind(fd int, group uint16) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // more is better, less works
	mode := make([]byte, 6)
	binary.BigEndian.PutUint32(mode, copyBytes)
	mode[4] = copyPacket
	for _, attrs := range [][]netlink.Attribute{
		{{Type: configCmd, Data: []byte{cmdBind}}},
		{{Type: configMode, Data: mode}, {Type: configThreshold, Data: []byte{0, 0, 0, 1}}, {Type: configTimeout, Data: []byte{0, 0, 0, 1}}},
	} {
		if err := configure(fd, group, attrs); err != nil {
			return err
		}
	}
	return nil
}

func configure(fd int, group uint16, attrs []netlink.Attribute) error {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group >> 8), byte(group)}
	text, err := netlink.Message{
		Header: netlink.Header{Type: msgConfig, Flags: netlink.Request | netlink.Acknowledge, Length: uint32(16 + 4 + len(data)), Sequence: 1},
		Data:   append(header, data...),
	}.MarshalBinary()
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, text, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0) // the kernel answers before sendto returns
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	if n < 20 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel did not acknowledge")
	}
	if errno := -int32(binary.NativeEndian.Uint32(buf[16:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// Reader reads one log. The zero value with a file is ready.
type Reader struct {
	File *os.File
	mu   sync.Mutex // held from the receipt of packets until they are taken
}

// Read calls take for every packet until ctx ends. Packets that the kernel could not
// queue are missing; the fence has counted them.
func (r *Reader) Read(ctx context.Context, take func(Packet)) error {
	raw, err := r.File.SyscallConn()
	if err != nil {
		return fmt.Errorf("read the fence's log: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.File.SetReadDeadline(past) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			readErr = r.receive(int(fd), buf, take)
			return readErr != unix.EAGAIN
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read the fence's log: %w", err)
		case readErr == unix.ENOBUFS || readErr == unix.EINTR:
			continue
		case readErr != nil:
			return fmt.Errorf("read the fence's log: %w", readErr)
		}
	}
}

func (r *Reader) receive(fd int, buf []byte, take func(Packet)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return nil
	}
	for p := range parse(buf[:n]) {
		take(p)
	}
	return nil
}

// Drained reports whether everything was taken that the kernel had queued when it was
// called. On a busy machine nothing else says so: a reader may have received a packet
// long before it is given the processor to take it.
func (r *Reader) Drained() (drained bool, err error) {
	raw, err := r.File.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("look into the fence's log: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = raw.Control(func(fd uintptr) {
		n, pollErr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		drained = n == 0 && pollErr == nil
	})
	return drained, err
}

// parse yields the packets of one datagram.
func parse(buf []byte) func(func(Packet) bool) {
	return func(yield func(Packet) bool) {
		for len(buf) >= unix.NLMSG_HDRLEN {
			length := binary.NativeEndian.Uint32(buf)
			if length < unix.NLMSG_HDRLEN || uint64(length) > uint64(len(buf)) {
				return
			}
			kind := binary.NativeEndian.Uint16(buf[4:])
			body := buf[unix.NLMSG_HDRLEN:length]
			buf = buf[min(uint64(len(buf)), (uint64(length)+3)&^3):]
			if kind != msgPacket || len(body) < 4 {
				continue
			}
			if p, ok := parsePacket(body[4:]); ok && !yield(p) {
				return
			}
		}
	}
}

func parsePacket(attrs []byte) (Packet, bool) {
	p := Packet{UID: ^uint32(0)}
	found := false
	d, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return p, false
	}
	for d.Next() {
		data := d.Bytes()
		switch d.Type() {
		case attrPrefix:
			for len(data) > 0 && data[len(data)-1] == 0 {
				data = data[:len(data)-1]
			}
			p.Prefix = string(data)
		case attrUID:
			if len(data) == 4 {
				p.UID = binary.BigEndian.Uint32(data)
			}
		case attrPayload:
			found = p.address(data)
		}
	}
	return p, found && d.Err() == nil
}

// address reads the IP header and, where there are any, the ports.
func (p *Packet) address(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		return p.ipv4(b)
	case 6:
		return p.ipv6(b)
	default:
		return false
	}
}

func (p *Packet) ipv4(b []byte) bool {
	length := int(b[0]&15) * 4
	if length < 20 || len(b) < length {
		return false
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0
	p.transport(b[9], src, dst, b[length:], first)
	return true
}

func (p *Packet) ipv6(b []byte) bool {
	if len(b) < 40 {
		return false
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest, first := b[6], b[40:], true
	for range 8 { // extension headers
		switch {
		case next == unix.IPPROTO_FRAGMENT && len(rest) >= 8:
			first = binary.BigEndian.Uint16(rest[2:])&0xfff8 == 0
			next, rest = rest[0], rest[8:]
		case (next == unix.IPPROTO_HOPOPTS || next == unix.IPPROTO_ROUTING || next == unix.IPPROTO_DSTOPTS) && len(rest) >= 8 && len(rest) >= 8+int(rest[1])*8:
			next, rest = rest[0], rest[8+int(rest[1])*8:]
		default:
			p.transport(next, src, dst, rest, first)
			return true
		}
	}
	p.transport(next, src, dst, nil, false)
	return true
}

var names = map[byte]string{
	unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmpv6",
	unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_DCCP: "dccp", unix.IPPROTO_GRE: "gre",
}

func (p *Packet) transport(number byte, src, dst netip.Addr, b []byte, first bool) {
	p.Proto = names[number]
	if p.Proto == "" {
		p.Proto = strconv.Itoa(int(number))
	}
	var sport, dport uint16
	switch number {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE, unix.IPPROTO_DCCP:
		if first && len(b) >= 4 {
			sport, dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
		const flags, fin, syn, rst, ack = 13, 1, 2, 4, 16
		p.Reply = number == unix.IPPROTO_TCP && first && len(b) > flags && b[flags]&(fin|syn|rst|ack) != syn
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
}
