package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/test/need"
)

// message is one log message as the kernel writes it.
func message(payload []byte) []byte {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: attrPrefix, Data: []byte("splitpod tcp\x00")},
		{Type: attrUID, Data: []byte{0, 0, 3, 232}},
		{Type: attrPayload, Data: payload},
	})
	if err != nil {
		panic(err)
	}
	text, err := netlink.Message{
		Header: netlink.Header{Type: msgPacket, Length: uint32(16 + 4 + len(attrs))},
		Data:   append([]byte{unix.AF_INET, 0, 0, 17}, attrs...),
	}.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return text
}

func header4(proto byte, fragment uint16, rest ...byte) []byte {
	b := make([]byte, 20)
	b[0], b[9] = 0x45, proto
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{127, 0, 0, 1, 203, 0, 113, 9})
	return append(b, rest...)
}

func header6(next byte, rest ...byte) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, next
	b[23] = 1
	copy(b[24:], []byte{0x20, 1, 0xd, 0xb8})
	b[39] = 5
	return append(b, rest...)
}

var ports = []byte{0x30, 0x39, 1, 0xbb} // 12345 to 443

func TestPacketsAreRead(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload []byte
		proto   string
		dst     string // "" is skipped
	}{
		{"TCP", header4(6, 0, ports...), "tcp", "203.0.113.9:443"},
		{"UDP without its ports", header4(17, 0, 1, 2), "udp", "203.0.113.9:0"},
		{"a later fragment has no ports", header4(17, 100, ports...), "udp", "203.0.113.9:0"},
		{"a first fragment has", header4(17, 0x2000, ports...), "udp", "203.0.113.9:443"},
		{"ICMP", header4(1, 0, 8, 0, 0, 0), "icmp", "203.0.113.9:0"},
		{"an unknown protocol", header4(253, 0, ports...), "253", "203.0.113.9:0"},
		{"IPv6", header6(6, ports...), "tcp", "[2001:db8::5]:443"},
		{"IPv6 with options", header6(60, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, ports...)...), "tcp", "[2001:db8::5]:443"},
		{"IPv6 options that reach too far", header6(60, 6, 255, 0, 0, 0, 0, 0, 0), "60", "[2001:db8::5]:0"},
		{"IPv6 options without end", header6(60, slices.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 12)...), "60", "[2001:db8::5]:0"},
		{"a later IPv6 fragment", header6(44, append([]byte{6, 0, 0, 8, 0, 0, 0, 0}, ports...)...), "tcp", "[2001:db8::5]:0"},
		{"cut in the header", header4(6, 0)[:19], "", ""},
		{"a header length below 20", append([]byte{0x41}, make([]byte, 40)...), "", ""},
		{"another version", []byte{0x55, 0, 0, 0}, "", ""},
		{"nothing", nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []Packet
			for p := range parse(message(tt.payload)) {
				got = append(got, p)
			}
			if tt.dst == "" {
				if len(got) > 0 {
					t.Errorf("got %+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Proto != tt.proto || got[0].Dst.String() != tt.dst || got[0].UID != 1000 || got[0].Prefix != "splitpod tcp" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestWhoOnlyAnswersIsToldFromWhoConnects: a first packet has SYN and nothing that answers.
func TestWhoOnlyAnswersIsToldFromWhoConnects(t *testing.T) {
	segment := func(flags ...byte) []byte {
		return append(append(slices.Clone(ports), make([]byte, 9)...), flags...)
	}
	for name, tt := range map[string]struct {
		payload []byte
		reply   bool
	}{
		"SYN":                    {header4(6, 0, segment(0x02)...), false},
		"SYN with ECN":           {header4(6, 0, segment(0xc2)...), false},
		"SYN and ACK":            {header4(6, 0, segment(0x12)...), true},
		"RST":                    {header4(6, 0, segment(0x04)...), true},
		"RST and ACK":            {header4(6, 0, segment(0x14)...), true},
		"ACK":                    {header4(6, 0, segment(0x10)...), true},
		"SYN over IPv6":          {header6(6, segment(0x02)...), false},
		"SYN and ACK over IPv6":  {header6(6, segment(0x12)...), true},
		"cut before the flags":   {header4(6, 0, segment()...), false},
		"a later fragment":       {header4(6, 100, segment(0x12)...), false},
		"UDP with the same byte": {header4(17, 0, segment(0x12)...), false},
	} {
		for p := range parse(message(tt.payload)) {
			if p.Reply != tt.reply {
				t.Errorf("%s: reply is %v", name, p.Reply)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(header4(6, 0, ports...)))
	f.Add(append(message(header6(60, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, ports...)...)), message(nil)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		for p := range parse(data) {
			if !p.Dst.IsValid() || !p.Src.IsValid() || p.Proto == "" {
				t.Errorf("incomplete packet %+v", p)
			}
			n++
		}
		if n > len(data)/unix.NLMSG_HDRLEN {
			t.Errorf("%d packets of %d bytes", n, len(data))
		}
	})
}

// TestTheKernelsLogIsRead in a namespace with a rule of the nft program.
func TestTheKernelsLogIsRead(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	program := need.Program(t, "nft")
	ip := need.Program(t, "ip")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for _, argv := range [][]string{
			{ip, "link", "set", "lo", "up"},
			{ip, "route", "add", "local", "default", "dev", "lo"},
			{program, "table inet t { chain c { type filter hook output priority 0; ip daddr 203.0.113.9 log prefix \"hello\" group 17 drop; }; }"},
		} {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", strings.Join(argv, " "), err, out)
				return
			}
		}
		f, err := Open(17)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 9}, Port: 53}); !errors.Is(err, unix.EPERM) {
			t.Errorf("sendto: %v", err)
		}
		var got []Packet
		r := &Reader{File: f}
		if drained, err := r.Drained(); drained || err != nil {
			t.Errorf("with a packet in the queue: drained %v, %v", drained, err)
		}
		err = r.Read(ctx, func(p Packet) {
			got = append(got, p)
			if r.mu.TryLock() {
				r.mu.Unlock()
				t.Error("Drained could look between the receipt of a packet and its count")
			}
			cancel()
		})
		if err != nil {
			t.Error(err)
		}
		if drained, err := r.Drained(); !drained || err != nil {
			t.Errorf("with nothing in the queue: drained %v, %v", drained, err)
		}
		if len(got) != 1 || got[0].Prefix != "hello" || got[0].Proto != "udp" || got[0].Dst.String() != "203.0.113.9:53" || got[0].UID != uint32(os.Getuid()) {
			t.Errorf("got %+v", got)
		}
	}()
	<-done
}
