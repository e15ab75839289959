package nft_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/netns"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/nft"
	"github.com/splitpod/splitpod/test/need"
)

var update = flag.Bool("update", false, "write the golden file")

// inNamespace runs body on a thread with a fresh network namespace that has the
// fence, and throws the thread away.
func inNamespace(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	need.Root(t)
	need.NetNS(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(os.NewSyscallError("unshare(CLONE_NEWNET)", err))
			return
		}
		if err := nft.Install(false); err != nil {
			t.Error(err)
			return
		}
		if ipv6, err := netns.Setup(); err != nil || !ipv6 {
			t.Errorf("netns.Setup: IPv6 %t, %v", ipv6, err)
			return
		}
		if err := nft.Verify(false); err != nil {
			t.Error(err)
			return
		}
		body(t)
	}()
	<-done
}

// attempt is one try to send something out of the namespace.
type attempt struct {
	name                 string
	family, kind, proto  int
	to                   unix.Sockaddr
	payload              int // bytes; 0: only connect
	class                string
	mayBeMissingInKernel bool
}

func v4(addr string, port int) unix.Sockaddr {
	return &unix.SockaddrInet4{Addr: netip.MustParseAddr(addr).As4(), Port: port}
}

func v6(addr string, port int) unix.Sockaddr {
	return &unix.SockaddrInet6{Addr: netip.MustParseAddr(addr).As16(), Port: port}
}

const (
	inet4, inet6    = unix.AF_INET, unix.AF_INET6
	stream, packets = unix.SOCK_STREAM, unix.SOCK_DGRAM
)

var attempts = []attempt{
	{"TCP", inet4, stream, 0, v4("203.0.113.1", 443), 0, "tcp", false},
	{"TCP to the proxy's port elsewhere", inet4, stream, 0, v4("203.0.113.1", 3128), 0, "tcp", false},
	{"TCP to a private address", inet4, stream, 0, v4("10.77.0.1", 80), 0, "tcp", false},
	{"TCP over IPv6", inet6, stream, 0, v6("2001:db8::1", 443), 0, "tcp", false},
	{"TCP to a mapped address", inet6, stream, 0, v6("::ffff:203.0.113.1", 443), 0, "tcp", false},
	{"TCP to NAT64", inet6, stream, 0, v6("64:ff9b::203.0.113.1", 443), 0, "tcp", false},
	{"TCP DNS", inet4, stream, 0, v4("203.0.113.1", 53), 0, "dns", false},
	{"UDP", inet4, packets, 0, v4("203.0.113.1", 4789), 10, "udp", false},
	{"UDP over IPv6", inet6, packets, 0, v6("2001:db8::1", 443), 10, "udp", false},
	{"UDP DNS", inet4, packets, 0, v4("203.0.113.1", 53), 10, "dns", false},
	{"UDP DNS over IPv6", inet6, packets, 0, v6("2001:db8::1", 53), 10, "dns", false},
	{"UDP in fragments", inet4, packets, 0, v4("203.0.113.1", 9), 65000, "udp", false},
	{"UDP in fragments over IPv6", inet6, packets, 0, v6("2001:db8::1", 9), 65000, "udp", false},
	{"multicast", inet4, packets, 0, v4("224.0.0.251", 5353), 10, "udp", false},
	{"metadata", inet4, stream, 0, v4("169.254.169.254", 80), 0, "metadata", false},
	{"metadata over UDP", inet4, packets, 0, v4("169.254.169.254", 53), 10, "metadata", false},
	{"metadata over IPv6", inet6, stream, 0, v6("fd00:ec2::254", 80), 0, "metadata", false},
	{"ICMP raw", inet4, unix.SOCK_RAW, unix.IPPROTO_ICMP, v4("203.0.113.1", 0), 64, "icmp", false},
	{"ICMPv6 raw", inet6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, v6("2001:db8::1", 0), 64, "icmp", false},
	{"UDP-Lite", inet4, packets, unix.IPPROTO_UDPLITE, v4("203.0.113.1", 443), 10, "other", true},
	{"SCTP", inet4, stream, unix.IPPROTO_SCTP, v4("203.0.113.1", 443), 0, "other", true},
	{"SCTP as raw packets", inet4, unix.SOCK_RAW, unix.IPPROTO_SCTP, v4("203.0.113.1", 0), 64, "other", false},
	{"UDP-Lite as raw packets", inet4, unix.SOCK_RAW, unix.IPPROTO_UDPLITE, v4("203.0.113.1", 0), 64, "other", false},
	{"GRE as raw packets", inet4, unix.SOCK_RAW, unix.IPPROTO_GRE, v4("203.0.113.1", 0), 64, "other", false},
	{"an unknown protocol", inet4, unix.SOCK_RAW, 253, v4("203.0.113.1", 0), 64, "other", false},
	{"an unknown protocol over IPv6", inet6, unix.SOCK_RAW, 253, v6("2001:db8::1", 0), 64, "other", false},
}

// try makes the attempt; nil means that nothing refused it.
func (a attempt) try() error {
	fd, err := unix.Socket(a.family, a.kind|unix.SOCK_CLOEXEC, a.proto)
	if a.mayBeMissingInKernel && (errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT)) {
		return errNoSuchProtocol
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(5 * time.Second))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if a.payload == 0 {
		return unix.Connect(fd, a.to)
	}
	return unix.Sendto(fd, make([]byte, a.payload), 0, a.to)
}

var errNoSuchProtocol = errors.New("the kernel has no such protocol")

// TestEveryWayOutIsRefusedAtOnceAndCounted as root, who could do more than the
// workload: no packet is delivered to a listener on all addresses, the error comes
// in an instant and not by a time-out, and the counter of its class grows.
func TestEveryWayOutIsRefusedAtOnceAndCounted(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		tcp := listenAll(t)
		for _, a := range attempts {
			before, err := nft.Counters()
			if err != nil {
				t.Fatal(err)
			}
			err = a.try()
			if errors.Is(err, errNoSuchProtocol) {
				t.Logf("%s: %v", a.name, err)
				continue
			}
			if err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.EINPROGRESS) {
				t.Errorf("%s: got %v, want a refusal at once", a.name, err)
			}
			after, err := nft.Counters()
			if err != nil {
				t.Fatal(err)
			}
			if after[a.class] <= before[a.class] {
				t.Errorf("%s was not counted as %s: %v, then %v", a.name, a.class, before, after)
			}
		}
		for _, fd := range tcp {
			if n, from, err := unix.Accept4(fd, unix.SOCK_NONBLOCK); err == nil {
				t.Errorf("something was delivered: %d from %v", n, from)
			}
		}
		links, err := net.Interfaces()
		if err != nil || len(links) != 1 {
			t.Errorf("interfaces: %v, %v", links, err)
		}
	})
}

// listenAll listens on all addresses of the namespace, at the ports that attempts
// use.
func listenAll(t *testing.T) (fds []int) {
	t.Helper()
	for _, p := range []int{80, 443, 3128, 53} {
		fd, err := unix.Socket(inet6, stream|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Port: p}), unix.Listen(fd, 8)); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

func TestLoopbackWorks(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		listeners, err := netns.Listen(t.Context(), 3128, true)
		if err != nil || len(listeners) != 2 {
			t.Fatalf("%v, %v", listeners, err)
		}
		for _, l := range listeners {
			defer l.Close()
			family, to := inet4, v4("127.0.0.1", 3128)
			if strings.HasPrefix(l.Addr().String(), "[") {
				family, to = inet6, v6("::1", 3128)
			}
			if err := (attempt{family: family, kind: stream, to: to}).try(); err != nil {
				t.Errorf("%s: %v", l.Addr(), err)
			}
		}
		if err := (attempt{family: inet4, kind: stream, to: v4("127.9.9.9", 1)}).try(); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a closed loopback port: %v", err)
		}
	})
}

// TestASourceAddressOpensNothing: every address is local here, so a program may
// bind to any.
func TestASourceAddressOpensNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		listenAll(t)
		for _, source := range []string{"203.0.113.9", "127.0.0.5", "10.0.0.1"} {
			fd, err := unix.Socket(inet4, stream|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			wait := unix.NsecToTimeval(int64(300 * time.Millisecond))
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
			if err := unix.Bind(fd, v4(source, 0)); err != nil {
				t.Fatalf("bind to %s: %v", source, err)
			}
			if err := unix.Connect(fd, v4("203.0.113.1", 443)); err == nil {
				t.Errorf("from %s: connected", source)
			}
			unix.Close(fd)
		}
	})
}

func TestRulesetIsTheGoldenOne(t *testing.T) {
	program := need.Program(t, "nft")
	inNamespace(t, func(t *testing.T) {
		if err := nft.Verify(true); err == nil {
			t.Error("a fence that answers is taken for one that holds")
		}
		if out, err := exec.Command(program, "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := nft.Install(true); err != nil {
			t.Fatal(err)
		}
		if err := nft.Verify(true); err != nil {
			t.Error(err)
		}
		out, err := exec.Command(program, "-s", "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		golden := filepath.Join("testdata", "ruleset.nft")
		if *update {
			if err := os.WriteFile(golden, out, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(out)); diff != "" {
			t.Errorf("the ruleset differs (-want +got); write it with -update if that is meant:\n%s", diff)
		}
	})
}

// TestDamageIsFound: each line of nft is one way to weaken the fence.
func TestDamageIsFound(t *testing.T) {
	program := need.Program(t, "nft")
	for _, script := range []string{
		"flush ruleset",
		"add table ip other",
		"add table inet splitpod { flags dormant; }",
		"flush chain inet splitpod output",
		"flush chain inet splitpod refuse_tcp",
		"add rule inet splitpod output accept",
		"insert rule inet splitpod output tcp dport 80 accept",
		"add chain inet splitpod extra",
		"add chain inet splitpod output { policy accept; }",
		"add chain inet splitpod early { type filter hook output priority -10; }",
		"replace rule inet splitpod output handle %output-1% oifname lo ip daddr 127.0.0.0/7 accept",
		"replace rule inet splitpod input handle %input-1% accept",
	} {
		inNamespace(t, func(t *testing.T) {
			script = expand(t, program, script)
			if out, err := exec.Command(program, script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", script, err, out)
				return
			}
			if err := nft.Verify(false); err == nil {
				t.Errorf("not found: %s", script)
			}
		})
	}
}

var handle = regexp.MustCompile(`%(\w+)-1%`)

// expand replaces %chain-1% by the handle of the chain's first rule.
func expand(t *testing.T, program, script string) string {
	t.Helper()
	m := handle.FindStringSubmatch(script)
	if m == nil {
		return script
	}
	out, err := exec.Command(program, "-j", "-a", "list", "chain", "inet", "splitpod", m[1]).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Nftables []struct {
			Rule *struct{ Handle int }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Nftables {
		if e.Rule != nil {
			return strings.Replace(script, m[0], fmt.Sprint(e.Rule.Handle), 1)
		}
	}
	t.Fatalf("chain %s has no rule", m[1])
	return ""
}

// TestInstallIsAllOrNothing: a batch that fails leaves nothing behind.
func TestInstallIsAllOrNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		if err := nft.Install(false); err != nil {
			return // refused as a whole
		}
		if err := nft.Verify(false); err == nil {
			t.Error("a second installation doubled the rules and Verify accepts it")
		}
	})
}

func TestCountersFailWithoutTheFence(t *testing.T) {
	need.Root(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		if got, err := nft.Counters(); err == nil {
			t.Errorf("got %v", got)
		}
		if err := nft.Verify(false); err == nil {
			t.Error("an empty namespace is verified")
		}
	}()
	<-done
}
