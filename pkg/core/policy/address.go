package policy

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// blocked are the ranges to which no policy can open a way, with their reason.
var blocked = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, with cloud metadata"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified, this network"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 addresses written as IPv6"},
}

// blockedRange says which always-blocked range a prefix touches; "" if none.
func blockedRange(p netip.Prefix) string {
	for _, b := range blocked {
		if b.prefix.Overlaps(p) {
			return b.prefix.String() + ", " + b.why
		}
	}
	return ""
}

// readAllowedIPs reads allowed_ips: addresses and prefixes.
func readAllowedIPs(o strictyaml.Object) []AllowedIP {
	ts := o.Texts("allowed_ips")
	out := make([]AllowedIP, 0, len(ts))
	for _, t := range ts {
		if p, ok := readPrefix(t); ok {
			out = append(out, AllowedIP{Prefix: p, At: t.At()})
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func readPrefix(t strictyaml.Text) (netip.Prefix, bool) {
	p, err := parsePrefix(t.S)
	if errors.Is(err, errZone) {
		t.Fail("%s has a zone; write the address without it", strictyaml.Quoted(t.S))
		return p, false
	}
	if err != nil {
		t.Fail("%s is neither an address nor a prefix; write for example 10.0.0.0/8 or 10.1.2.3", strictyaml.Quoted(t.S))
		return p, false
	}
	switch {
	case p.Addr().Is4In6() && p.Bits() >= 96:
		v4 := netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
		t.Fail("%s is an IPv4 address written as IPv6; write %s", strictyaml.Quoted(t.S), v4)
	case p.Masked() != p:
		t.Fail("%s has address bits behind its length; write %s", strictyaml.Quoted(t.S), p.Masked())
	case blockedRange(p) != "":
		t.Fail("%s touches a range that is refused in every mode (%s); leave that range out", strictyaml.Quoted(t.S), blockedRange(p))
	default:
		if widest := usualBits(p.Addr()); p.Bits() < widest {
			t.Warn("%s is wide; a prefix of at least /%d is usual", strictyaml.Quoted(t.S), widest)
		}
		return p, true
	}
	return p, false
}

// usualBits is the shortest prefix that is not worth a warning.
func usualBits(a netip.Addr) int {
	if a.Is4() {
		return 16
	}
	return 32
}

var errZone = errors.New("the address has a zone")

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a.Zone() != "" {
		return netip.Prefix{}, errZone
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
