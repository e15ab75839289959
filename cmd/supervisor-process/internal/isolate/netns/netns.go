// Package netns prepares the workload's network namespace: lo, the routes that make
// every packet reach the fence, and the proxy's listeners.
//
// It answers the threat of a namespace with a way out: Setup fails when there is any
// interface but lo. The routes lead everything to lo, so that a direct connection is
// seen and refused by the fence instead of failing unseen; nothing is delivered by
// them, because the fence accepts loopback addresses only. It does not filter.
//
// Invariant: everything here works on the calling thread's network namespace, but Dial, which
// leaves that as it is.
//
// Sources: ip-route(8) (type local), rtnetlink(7).
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Setup brings lo up and routes everything to it. The fence must be installed
// before. ipv6 says whether the namespace has IPv6; without it nothing of IPv6 can
// be sent either.
func Setup() (ipv6 bool, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return false, fmt.Errorf("list the workload's interfaces: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Name != "lo" && !isFallback(l) {
			return false, fmt.Errorf("the workload's network namespace has an interface %s beside lo", l.Attrs().Name)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return false, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return false, fmt.Errorf("bring lo up: %w", err)
	}
	if err := route(lo, "0.0.0.0/0", "127.0.0.1"); err != nil {
		return false, err
	}
	if _, err := os.Stat("/proc/sys/net/ipv6/conf/lo"); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	switch err := route(lo, "::/0", "::1"); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EADDRNOTAVAIL):
		return false, nil // disabled for this namespace
	default:
		return false, err
	}
}

// isFallback reports whether a link is one of those that the kernel creates in every new
// namespace for each loaded tunnel module. They are down and lead nowhere, and the
// workload has no right to bring them up.
func isFallback(l netlink.Link) bool {
	switch l.Attrs().Name {
	case "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0":
		return l.Attrs().Flags&net.FlagUp == 0
	default:
		return false
	}
}

// route makes every destination of a family local to lo, with a loopback source,
// so that refusals find their way back.
func route(lo netlink.Link, to, source string) error {
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	err = netlink.RouteReplace(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: dst, Src: net.ParseIP(source),
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_MAIN,
	})
	if err != nil {
		return fmt.Errorf("route %s to lo: %w", to, err)
	}
	return nil
}

// Listen opens the proxy's listeners. The caller closes them; on error there are
// none.
func Listen(ctx context.Context, port uint16, ipv6 bool) ([]*net.TCPListener, error) {
	addresses := []string{"127.0.0.1"}
	if ipv6 {
		addresses = append(addresses, "::1")
	}
	lc := net.ListenConfig{Control: onlyOwnFamily}
	var out []*net.TCPListener
	for _, a := range addresses {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(a, strconv.Itoa(int(port))))
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, fmt.Errorf("open the proxy's listener: %w", err)
		}
		out = append(out, l.(*net.TCPListener))
	}
	return out, nil
}

// onlyOwnFamily keeps an IPv6 listener from taking IPv4 connections.
func onlyOwnFamily(network, _ string, c syscall.RawConn) (err error) {
	if network != "tcp6" {
		return nil
	}
	controlErr := c.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt(IPV6_V6ONLY)", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	})
	return errors.Join(controlErr, err)
}
