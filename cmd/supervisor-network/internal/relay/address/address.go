// Package address classifies destination addresses.
//
// It answers the threat of a permitted name that leads somewhere it must not: to
// this pod, to the cluster, to a cloud's metadata service, or to any of them
// dressed up in an IPv6 form that carries an IPv4 address. It does not resolve
// names and does not know the policy.
//
// Invariant: an address that carries another one is never better than what it
// carries, and what no rule here calls public is not.
//
// Sources: the IANA special-purpose address registries (RFC 6890), RFC 1122,
// RFC 1918, RFC 3056 (6to4), RFC 3927, RFC 4193, RFC 4291, RFC 4380 (Teredo),
// RFC 5737, RFC 6052 and RFC 8215 (NAT64), RFC 6598.
package address

import (
	"net/netip"
	"slices"
)

// Class says where an address may be reached from. The zero value is refused
// everywhere.
type Class uint8

// The classes.
const (
	Blocked  Class = iota // never, whatever the policy says
	Internal              // only when the policy names the destination
	Public
)

type block struct {
	prefix netip.Prefix
	class  Class
	why    string
}

func b(prefix string, class Class, why string) block {
	return block{netip.MustParsePrefix(prefix), class, why}
}

// blocks is searched from the top; the first that contains the address decides.
var blocks = []block{
	b("127.0.0.0/8", Blocked, "loopback"),
	b("169.254.0.0/16", Blocked, "link-local, cloud metadata"),
	b("168.63.129.16/32", Blocked, "cloud metadata (Azure wire server)"),
	b("100.100.100.200/32", Blocked, "cloud metadata (Alibaba)"),
	b("192.0.0.192/32", Blocked, "cloud metadata (Oracle)"),
	b("0.0.0.0/8", Blocked, "this network"),
	b("224.0.0.0/4", Blocked, "multicast"),
	b("255.255.255.255/32", Blocked, "broadcast"),
	b("240.0.0.0/4", Blocked, "reserved"),
	b("10.0.0.0/8", Internal, "private"),
	b("172.16.0.0/12", Internal, "private"),
	b("192.168.0.0/16", Internal, "private"),
	b("100.64.0.0/10", Internal, "carrier-grade NAT"),
	b("192.0.0.0/24", Internal, "IETF protocol assignments"),
	b("192.88.99.0/24", Internal, "6to4 relay anycast"),
	b("192.0.2.0/24", Internal, "documentation"),
	b("198.51.100.0/24", Internal, "documentation"),
	b("203.0.113.0/24", Internal, "documentation"),
	b("198.18.0.0/15", Internal, "benchmarking"),

	b("::/128", Blocked, "unspecified"),
	b("::1/128", Blocked, "loopback"),
	b("fe80::/10", Blocked, "link-local"),
	b("ff00::/8", Blocked, "multicast"),
	b("fd00:ec2::/32", Blocked, "cloud metadata and pod identities (AWS)"),
	b("fd20:ce::254/128", Blocked, "cloud metadata (Google)"),
	b("fd00:c1::a9fe:a9fe/128", Blocked, "cloud metadata (Oracle)"),
	b("fd00:42::42/128", Blocked, "cloud metadata (Scaleway)"),
	b("fd00:a9fe:a9fe::1/128", Blocked, "cloud metadata (Akamai)"),
	b("fd00:100::100:200/128", Blocked, "cloud metadata (Alibaba)"),
	b("fec0::/10", Blocked, "site-local"),
	b("fc00::/7", Internal, "unique local"),
	b("100::/64", Blocked, "discard-only"),
	b("2001:db8::/32", Internal, "documentation"),
	b("3fff::/20", Internal, "documentation"),
	b("2001:2::/48", Internal, "benchmarking"),
	b("5f00::/16", Internal, "segment routing"),
	b("2000::/3", Public, ""),
	b("::/0", Blocked, "reserved"),
}

// carriers are IPv6 blocks with an IPv4 address inside, at the given byte.
var carriers = []struct {
	prefix netip.Prefix
	at     int
	invert bool // Teredo hides the client's address by inverting it
	why    string
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false, "NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12, false, "local NAT64"},
	{netip.MustParsePrefix("2002::/16"), 2, false, "6to4"},
	{netip.MustParsePrefix("2001::/32"), 12, true, "Teredo"},
	{netip.MustParsePrefix("::/96"), 12, false, "IPv4-compatible"},
}

// Classify says what kind of address a is, and why it is not public.
func Classify(a netip.Addr) (Class, string) {
	if !a.IsValid() || a.Zone() != "" {
		return Blocked, "an address with a zone"
	}
	a = a.Unmap()
	class, why := lookup(a)
	if a.Is4() || class == Blocked && (a == netip.IPv6Unspecified() || a == netip.IPv6Loopback()) {
		return class, why
	}
	for _, c := range carriers {
		if !c.prefix.Contains(a) {
			continue
		}
		inner, innerWhy := lookup(carried(a, c.at, c.invert))
		if inner == Blocked {
			return Blocked, c.why + " to " + innerWhy
		}
		return Internal, c.why
	}
	return class, why
}

// lookup finds the block of an address; an IPv4 address in none is public.
func lookup(a netip.Addr) (Class, string) {
	i := slices.IndexFunc(blocks, func(b block) bool { return b.prefix.Contains(a) })
	if i < 0 {
		return Public, ""
	}
	return blocks[i].class, blocks[i].why
}

func carried(a netip.Addr, at int, invert bool) netip.Addr {
	raw := a.As16()
	var v4 [4]byte
	copy(v4[:], raw[at:at+4])
	if invert {
		for i := range v4 {
			v4[i] = ^v4[i]
		}
	}
	return netip.AddrFrom4(v4)
}

// ControlPlanePort reports whether a port belongs to the cluster's own control
// plane: etcd, the API server, the kubelet. No destination may use them.
func ControlPlanePort(port uint16) bool {
	switch port {
	case 2379, 2380, 6443, 10250, 10255:
		return true
	default:
		return false
	}
}
