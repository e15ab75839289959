package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// LogGroup is the NFLOG group of refused packets.
const LogGroup = 17

// logPrefix starts the prefix of every log message; the class follows.
const logPrefix = "splitpod "

// classes of refused packets, in the order they are matched; each has a chain and a
// counter. What fits none is the last one.
var classes = []string{"metadata", "dns", "tcp", "udp", "icmp", "other"}

func chainOf(class string) string   { return "refuse_" + class }
func counterOf(class string) string { return "refused_" + class }

// rule is one rule as expressions.
type rule []expr.Any

// chain is one chain with its rules.
type chain struct {
	nftables.Chain
	rules []rule
}

// tableName is the fence's table, family inet.
const tableName = "splitpod"

// wanted is the whole fence. hold keeps the few TCP attempts that are logged without
// an answer, until whoever reads the log ends them.
func wanted(hold bool) (*nftables.Table, []chain) {
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	drop := nftables.ChainPolicyDrop
	base := func(name string, hook *nftables.ChainHook, rules ...rule) chain {
		return chain{nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook,
			Priority: nftables.ChainPriorityFilter, Policy: &drop}, rules}
	}
	var chains []chain
	for _, class := range classes {
		chains = append(chains, chain{nftables.Chain{Name: chainOf(class), Table: table}, refuse(class, hold)})
	}
	return table, append(chains,
		base("input", nftables.ChainHookInput, join(interfaceIs(expr.MetaKeyIIFNAME, "lo"), accept)),
		base("forward", nftables.ChainHookForward),
		base("output", nftables.ChainHookOutput, output()...),
	)
}

// output accepts what stays on loopback and sends the rest to its class.
func output() []rule {
	lo := interfaceIs(expr.MetaKeyOIFNAME, "lo")
	return []rule{
		join(lo, destination(netip.MustParsePrefix("127.0.0.0/8")), accept),
		join(lo, destination(netip.MustParsePrefix("::1/128")), accept),
		join(destination(netip.MustParsePrefix("169.254.169.254/32")), refuseAs("metadata")),
		join(destination(netip.MustParsePrefix("fd00:ec2::254/128")), refuseAs("metadata")),
		join(protocol(unix.IPPROTO_UDP), port(53), refuseAs("dns")),
		join(protocol(unix.IPPROTO_TCP), port(53), refuseAs("dns")),
		join(protocol(unix.IPPROTO_TCP), refuseAs("tcp")),
		join(protocol(unix.IPPROTO_UDP), refuseAs("udp")),
		join(protocol(unix.IPPROTO_ICMP), refuseAs("icmp")),
		join(protocol(unix.IPPROTO_ICMPV6), refuseAs("icmp")),
		refuseAs("other"),
	}
}

// refuse counts, logs a few, and answers at once: a reset for TCP, ICMP for others.
func refuse(class string, hold bool) []rule {
	const resetTCP, icmpx = unix.NFT_REJECT_TCP_RST, unix.NFT_REJECT_ICMPX_UNREACH
	rules := []rule{{&expr.Objref{Type: 1 /* NFT_OBJECT_COUNTER */, Name: counterOf(class)}}}
	if hold {
		// The attempt stays in SYN_SENT, so that its owner can be found.
		rules = append(rules, join(protocol(unix.IPPROTO_TCP), logged(class), rule{&expr.Verdict{Kind: expr.VerdictDrop}}))
		rules = append(rules, join(notProtocol(unix.IPPROTO_TCP), logged(class)))
	} else {
		rules = append(rules, logged(class))
	}
	return append(rules,
		join(protocol(unix.IPPROTO_TCP), rule{&expr.Reject{Type: resetTCP}}),
		rule{&expr.Reject{Type: icmpx, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}},
	)
}

// logged lets some packets through to the log.
func logged(class string) rule {
	return rule{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: 5, Unit: expr.LimitTimeSecond, Burst: 10},
		&expr.Log{
			Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group: LogGroup, Snaplen: 128, Data: []byte(logPrefix + class),
		},
	}
}

func notProtocol(number byte) rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{number}}}
}

func join(parts ...rule) (out rule) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

var accept = rule{&expr.Verdict{Kind: expr.VerdictAccept}}

func refuseAs(class string) rule {
	return rule{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chainOf(class)}}
}

func interfaceIs(key expr.MetaKey, name string) rule {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return rule{&expr.Meta{Key: key, Register: 1}, equals(padded)}
}

func equals(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func protocol(number byte) rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals([]byte{number})}
}

func port(number uint16) rule {
	return rule{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equals(binaryutil.BigEndian.PutUint16(number)),
	}
}

// destination matches the address family, then the address.
func destination(p netip.Prefix) rule {
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if p.Addr().Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	out := rule{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equals([]byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	}
	if p.Bits() < p.Addr().BitLen() {
		mask := make([]byte, length)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask, Xor: make([]byte, length)})
	}
	return append(out, equals(p.Addr().AsSlice()))
}
