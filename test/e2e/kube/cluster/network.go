package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/test/world"
)

// NodeAddress is the node's: gateway of the pods, address of the cluster's DNS and
// API server. Pods get addresses of the same network.
const NodeAddress = "10.88.0.1"

// network makes a bridge that pods are attached to, with the node's address and a
// default route that leads nowhere, and gives the origins their addresses.
func network() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	// Without an address of its own a bridge has that of one of its ports, and changes
	// it as pods come and go.
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0", HardwareAddr: net.HardwareAddr{2, 0, 10, 88, 0, 1}}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range []struct {
		link netlink.Link
		addr string
	}{{bridge, NodeAddress + "/16"}, {lo, world.Address + "/24"}, {lo, world.Address6 + "/64"}} {
		addr, err := netlink.ParseAddr(a.addr)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(a.link, addr); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("add address %s: %w", a.addr, err)
		}
		if err := netlink.LinkSetUp(a.link); err != nil {
			return err
		}
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})
}
