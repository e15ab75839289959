package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/test/need"
)

// answers is a Resolver: the n-th question gets the n-th answer, the last one for
// ever.
type answers struct {
	lists [][]string
	asked atomic.Int32
}

func (a *answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n := int(a.asked.Add(1))
	var out []netip.Addr
	for _, s := range a.lists[min(n, len(a.lists))-1] {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

// loopbackIsPublic lets tests dial loopback: 127.0.0.66 alone stays blocked.
func loopbackIsPublic(a netip.Addr) (address.Class, string) {
	switch {
	case a == netip.MustParseAddr("127.0.0.66"):
		return address.Blocked, "blocked for the test"
	case a.IsLoopback():
		return address.Public, ""
	default:
		return address.Classify(a)
	}
}

func testDialer(cfg Config, lists ...[]string) (*Dialer, *answers) {
	a := &answers{lists: lists}
	if cfg.Resolver == nil {
		cfg.Resolver = a
	}
	d := New(cfg)
	d.classify = loopbackIsPublic
	return d, a
}

func listenOn(t *testing.T, addr string) (*net.TCPListener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// closedPort is a port of every address that refuses connections, and stays ours: it is
// bound, and nobody listens.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	_, port := bound(t, "0.0.0.0")
	return port
}

// bound is a socket that has a port, for as long as the test runs.
func bound(t *testing.T, ip string) (fd int, port uint16) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: netip.MustParseAddr(ip).As4()}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, uint16(name.(*syscall.SockaddrInet4).Port)
}

// deafPort is an address whose connections are never completed: its queue is full.
func deafPort(t *testing.T, ip string) uint16 {
	t.Helper()
	fd, port := bound(t, ip)
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	until(t, "the queue is full", func() bool { // Linux says of a listener how many wait, and how many may
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		return err == nil && info.Unacked > info.Sacked
	})
	return port
}

func wantReason(t *testing.T, err error, reason core.Reason) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Reason != reason {
		t.Fatalf("got %v, want %s", err, reason)
	}
	return e
}

func TestDialNeedsAValidPermit(t *testing.T) {
	d, a := testDialer(Config{}, []string{"127.0.0.1"})
	_, err := d.Dial(t.Context(), decide.Permit{})
	wantReason(t, err, core.ReasonInternal)
	if a.asked.Load() != 0 {
		t.Error("a name was resolved without a permit")
	}
}

// TestAPermitForModelsDialsNothing: this daemon itself answers for it.
func TestAPermitForModelsDialsNothing(t *testing.T) {
	d, a := testDialer(Config{}, []string{"127.0.0.1"})
	for _, endpoints := range []string{"[{host: a.example.com, port: 443}]", "[{host: inference.local, port: 443}]"} {
		doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies: {r: {endpoints: "+endpoints+", binaries: [{path: /x}]}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := decide.Compile(t.Context(), doc, decide.Options{IgnoreBinaries: true})
		if err != nil {
			t.Fatal(err)
		}
		p, denial := s.Connection(t.Context(), decide.Question{Host: decide.InferenceHost, Port: decide.InferencePort})
		if denial != nil {
			t.Fatalf("%+v", denial)
		}
		_, err = d.Dial(t.Context(), p)
		wantReason(t, err, core.ReasonInternal)
	}
	if a.asked.Load() != 0 {
		t.Error("the name was resolved")
	}
}

func TestAddressModes(t *testing.T) {
	const public, internal, blocked, mapped, metadata, carrier = "1.1.1.1", "10.0.0.1", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254", "64:ff9b::a9fe:a9fe"
	listed := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("1.1.1.1/32")}
	for _, c := range []struct {
		rule  string
		mode  decide.AddressMode
		addr  string
		allow bool
	}{
		{"public: a public address", decide.AddressPublic, public, true},
		{"public: a public IPv6 address", decide.AddressPublic, "2606:4700::1111", true},
		{"public: an internal address", decide.AddressPublic, internal, false},
		{"public: an internal address as IPv6", decide.AddressPublic, mapped, false},
		{"public: loopback", decide.AddressPublic, blocked, false},
		{"public: metadata in NAT64", decide.AddressPublic, carrier, false},
		{"declared: a public address", decide.AddressDeclared, public, true},
		{"declared: an internal address", decide.AddressDeclared, internal, true},
		{"declared: a unique local address", decide.AddressDeclared, "fd00::1", true},
		{"declared: loopback", decide.AddressDeclared, blocked, false},
		{"declared: metadata", decide.AddressDeclared, metadata, false},
		{"declared: metadata as IPv6", decide.AddressDeclared, "::ffff:" + metadata, false},
		{"declared: metadata in NAT64", decide.AddressDeclared, carrier, false},
		{"declared: metadata of AWS as IPv6", decide.AddressDeclared, "fd00:ec2::254", false},
		{"listed: the last address of the list", decide.AddressListed, "10.0.0.255", true},
		{"listed: the address behind the list", decide.AddressListed, "10.0.1.0", false},
		{"listed: an address of the list as IPv6", decide.AddressListed, mapped, true},
		{"listed: a public address of the list", decide.AddressListed, public, true},
		{"listed: another public address", decide.AddressListed, "1.1.1.2", false},
		{"listed: loopback although it is listed", decide.AddressListed, blocked, false},
		{"an unknown mode is as strict as public", decide.AddressMode(99), internal, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			d := New(Config{})
			to := destination{host: "h.test", port: 443, mode: c.mode, prefixes: listed}
			err := d.check(to, netip.MustParseAddr(c.addr).Unmap())
			if c.allow {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := wantReason(t, err, core.ReasonSSRFDenied); !strings.HasPrefix(e.Detail, "h.test:443 blocked: ") {
				t.Errorf("detail %q", e.Detail)
			}
		})
	}
}

func TestListedModeWithAnEmptyListAllowsNothing(t *testing.T) {
	err := New(Config{}).check(destination{mode: decide.AddressListed}, netip.MustParseAddr("1.1.1.1"))
	wantReason(t, err, core.ReasonSSRFDenied)
}

func TestDialRefusesANameWhenAnyAddressIsRefused(t *testing.T) {
	var many []string
	for i := range maxAddresses + 4 {
		many = append(many, fmt.Sprintf("127.0.0.%d", i+1))
	}
	for rule, addrs := range map[string][]string{
		"first":              {"127.0.0.66", "127.0.0.1"},
		"last":               {"127.0.0.1", "127.0.0.66"},
		"as IPv6":            {"127.0.0.1", "::ffff:127.0.0.66"},
		"an internal one":    {"127.0.0.1", "10.0.0.1"},
		"behind those tried": append(many, "127.0.0.66"),
	} {
		t.Run(rule, func(t *testing.T) {
			l, port := listenOn(t, "127.0.0.1:0")
			d, _ := testDialer(Config{}, addrs)
			_, err := d.dial(t.Context(), destination{host: "h.test", port: port})
			wantReason(t, err, core.ReasonSSRFDenied)
			ours, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			first, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			if first.RemoteAddr().String() != ours.LocalAddr().String() {
				t.Errorf("%s was dialled", first.LocalAddr())
			}
		})
	}
}

func TestDialRefusesBlockedLiterals(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254", "::a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2001:0:1::1", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::"} {
		d := New(Config{Resolver: &answers{}}) // it would panic
		mode := decide.AddressDeclared
		if host == "2001:0:1::1" {
			mode = decide.AddressPublic // Teredo to a public address is internal
		}
		_, err := d.dial(t.Context(), destination{host: host, port: 80, mode: mode})
		wantReason(t, err, core.ReasonSSRFDenied)
	}
}

func TestDialRefusesControlPlanePorts(t *testing.T) {
	for port, refused := range map[uint16]bool{
		2379: true, 2380: true, 6443: true, 10250: true, 10255: true,
		2378: false, 2381: false, 6442: false, 443: false, 10251: false,
	} {
		for _, mode := range []decide.AddressMode{decide.AddressPublic, decide.AddressDeclared, decide.AddressListed} {
			d, a := testDialer(Config{}, []string{})
			_, err := d.dial(t.Context(), destination{host: "h.test", port: port, mode: mode})
			if got := errors.Is(err, err) && a.asked.Load() == 0; got != refused {
				t.Errorf("port %d, mode %d: refused %v before the name was resolved: %v", port, mode, got, err)
			}
			if refused {
				wantReason(t, err, core.ReasonSSRFDenied)
			}
		}
	}
}

// The second answer would lead elsewhere; nobody asks for it.
func TestDialUsesTheAddressesItChecked(t *testing.T) {
	l, port := listenOn(t, "127.0.0.1:0")
	d, a := testDialer(Config{}, []string{"127.0.0.1"}, []string{"127.0.0.66"})
	c, err := d.dial(t.Context(), destination{host: "h.test", port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != l.Addr().String() || a.asked.Load() != 1 {
		t.Errorf("connected to %s after %d questions", c.RemoteAddr(), a.asked.Load())
	}
}

func TestDialConnectsToMappedAddressesAsIPv4(t *testing.T) {
	l, port := listenOn(t, "127.0.0.1:0")
	d, _ := testDialer(Config{}, []string{"::ffff:127.0.0.1"})
	c, err := d.dial(t.Context(), destination{host: "h.test", port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != l.Addr().String() {
		t.Errorf("connected to %s", c.RemoteAddr())
	}
}

func TestDialGoesOnBesideADeadAddress(t *testing.T) {
	port := deafPort(t, "127.0.0.2")
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	for errors.Is(err, syscall.EADDRINUSE) { // somebody has it there
		port = deafPort(t, "127.0.0.2")
		l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, _ := testDialer(Config{Attempt: time.Hour, Timeout: time.Hour, Stagger: 10 * time.Millisecond}, []string{"127.0.0.2", "127.0.0.1"})
	c, err := d.dial(t.Context(), destination{host: "h.test", port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ip := c.RemoteAddr().(*net.TCPAddr).IP.String(); ip != "127.0.0.1" {
		t.Errorf("connected to %s", ip)
	}
}

func TestDialGoesOnAtOnceWhenAnAddressRefuses(t *testing.T) {
	_, port := listenOn(t, "127.0.0.1:0")
	d, _ := testDialer(Config{Stagger: time.Hour, Timeout: time.Minute}, []string{"127.0.0.3", "127.0.0.4", "127.0.0.1"})
	c, err := d.dial(t.Context(), destination{host: "h.test", port: port})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestDialFails(t *testing.T) {
	closed := closedPort(t)
	deaf := deafPort(t, "127.0.0.2")
	for _, c := range []struct {
		rule  string
		cfg   Config
		addrs []string
		port  uint16
		want  core.Reason
	}{
		{"one address refuses", Config{}, []string{"127.0.0.1"}, closed, core.ReasonUpstreamUnreachable},
		{"all addresses refuse", Config{}, []string{"127.0.0.1", "127.0.0.3", "127.0.0.4"}, closed, core.ReasonUpstreamUnreachable},
		{"one address does not answer", Config{Attempt: 10 * time.Millisecond}, []string{"127.0.0.2"}, deaf, core.ReasonUpstreamTimeout},
		{"one does not answer, one refuses", Config{Attempt: 10 * time.Millisecond}, []string{"127.0.0.2", "127.0.0.3"}, deaf, core.ReasonUpstreamTimeout},
		{"the time for all is over", Config{Timeout: 10 * time.Millisecond}, []string{"127.0.0.2", "127.0.0.2"}, deaf, core.ReasonUpstreamTimeout},
		{"no address", Config{}, nil, closed, core.ReasonUpstreamUnreachable},
	} {
		t.Run(c.rule, func(t *testing.T) {
			d, _ := testDialer(c.cfg, c.addrs)
			_, err := d.dial(t.Context(), destination{host: "h.test", port: c.port})
			wantReason(t, err, c.want)
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	deaf := deafPort(t, "127.0.0.2")
	for _, addrs := range [][]string{{"127.0.0.2"}, {"127.0.0.2", "127.0.0.2"}} {
		d, a := testDialer(Config{Attempt: time.Hour, Timeout: time.Hour}, addrs)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for a.asked.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := d.dial(ctx, destination{host: "h.test", port: deaf})
		wantReason(t, err, core.ReasonUpstreamUnreachable)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not wrap the context's error", err)
		}
	}
}

// dnsServer answers every question with a response code, or not at all when it is
// negative.
func dnsServer(t *testing.T, code int) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if code < 0 || n < 12 {
				continue
			}
			buf[2] |= 0x80                 // it is a response
			buf[3] = 0x80 | byte(code)     // recursion is available
			copy(buf[10:12], []byte{0, 0}) // the EDNS record is not repeated
			_, _ = pc.WriteTo(buf[:questionEnd(buf[:n])], from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// questionEnd finds where the one question of a DNS message ends.
func questionEnd(m []byte) int {
	i := 12
	for i < len(m) && m[i] != 0 {
		i += int(m[i]) + 1
	}
	return min(i+5, len(m))
}

func TestDialReportsDNSFailures(t *testing.T) {
	const nameError, serverFailure, silence = 3, 2, -1
	for _, c := range []struct {
		rule string
		code int
		want core.Reason
	}{
		{"a name that does not exist", nameError, core.ReasonUpstreamUnreachable},
		{"a name without address", 0, core.ReasonUpstreamUnreachable},
		{"a server that fails", serverFailure, core.ReasonUpstreamTimeout},
		{"a server that is silent", silence, core.ReasonUpstreamTimeout},
	} {
		t.Run(c.rule, func(t *testing.T) {
			timeout := time.Minute
			if c.code == silence {
				timeout = 20 * time.Millisecond
			}
			d := New(Config{Resolver: dnsServer(t, c.code), Timeout: time.Hour, DNSTimeout: timeout})
			_, err := d.dial(t.Context(), destination{host: "nowhere.test", port: 443})
			if e := wantReason(t, err, c.want); !strings.HasPrefix(e.Detail, "nowhere.test ") || strings.Contains(e.Detail, "127.0.0.1") {
				t.Errorf("detail %q", e.Detail) // it must not name our DNS server
			}
		})
	}
}

// TestAWantOfDescriptorsIsNotTheDestinations, neither when it is dialled nor when its name is
// looked up.
func TestAWantOfDescriptorsIsNotTheDestinations(t *testing.T) {
	known, _ := testDialer(Config{}, []string{"127.0.0.1"})
	asked := New(Config{Resolver: dnsServer(t, 0)})
	defer need.NoDescriptors(t)()
	for what, d := range map[string]*Dialer{"dialled": known, "looked up": asked} {
		_, err := d.dial(t.Context(), destination{host: "h.test", port: 443})
		if e := wantReason(t, err, core.ReasonTooManyConnections); !strings.Contains(e.Detail, "no file descriptor left") {
			t.Errorf("%s: detail %q", what, e.Detail)
		}
	}
}

func TestDialTriesABoundedNumberOfAddresses(t *testing.T) {
	_, port := listenOn(t, fmt.Sprintf("127.0.1.%d:0", maxAddresses+1))
	var addrs []string
	for i := range maxAddresses + 1 {
		addrs = append(addrs, fmt.Sprintf("127.0.1.%d", i+1))
	}
	d, _ := testDialer(Config{Stagger: time.Hour, Timeout: time.Minute}, addrs)
	if _, err := d.dial(t.Context(), destination{host: "h.test", port: port}); err == nil {
		t.Error("the 17th address was tried")
	}
	d, _ = testDialer(Config{Stagger: time.Hour, Timeout: time.Minute}, addrs[1:])
	c, err := d.dial(t.Context(), destination{host: "h.test", port: port})
	if err != nil {
		t.Fatalf("the 16th address: %v", err)
	}
	c.Close()
}

func TestInterleaveTakesFamiliesInTurn(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"1.0.0.1", "1.0.0.1"},
		{"1.0.0.1 1.0.0.2 ::1 ::2", "1.0.0.1 ::1 1.0.0.2 ::2"},
		{"::1 ::2 ::3 1.0.0.1", "::1 1.0.0.1 ::2 ::3"},
		{"1.0.0.1 1.0.0.2", "1.0.0.1 1.0.0.2"},
	} {
		var in []netip.Addr
		for s := range strings.FieldsSeq(c.in) {
			in = append(in, netip.MustParseAddr(s))
		}
		var got []string
		for _, a := range interleave(in) {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(strings.Fields(c.want), got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestConnectionsThatComeTooLateAreClosed(t *testing.T) {
	_, server := pair(t)
	results := make(chan attempt, 2)
	results <- attempt{conn: server}
	results <- attempt{err: os.ErrClosed}
	discard(results, 2)
	if err := server.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is still open: %v", err)
	}
}

// TestOperatorDialsWhatIsConfigured and nothing else; loopback is allowed there, cloud
// metadata and the control plane are not.
func TestOperatorDialsWhatIsConfigured(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	d := New(Config{Timeout: time.Minute})
	listed := func(host string, p uint16) bool {
		return host == "127.0.0.1" && (p == port || p == 6443) || host == "169.254.169.254"
	}
	for address, want := range map[string]core.Reason{
		l.Addr().String():                               "",
		net.JoinHostPort("127.0.0.1", "1"):              core.ReasonInternal,
		net.JoinHostPort("localhost", fmt.Sprint(port)): core.ReasonInternal,
		"127.0.0.1:6443":                                core.ReasonSSRFDenied,
		"169.254.169.254:80":                            core.ReasonSSRFDenied,
	} {
		c, err := d.Operator(listed)(t.Context(), "tcp", address)
		if err == nil {
			c.Close()
		}
		e, _ := errors.AsType[*Error](err)
		if (want == "") != (err == nil) || e != nil && e.Reason != want {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
