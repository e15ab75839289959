package decide

import (
	"net/netip"

	"github.com/splitpod/splitpod/pkg/core"
)

// AddressMode says which addresses the name behind a Permit may resolve to. The
// zero value is the strictest.
type AddressMode uint8

// The address modes. Always-blocked addresses (loopback, link-local, metadata,
// unspecified, multicast and the like) are refused in every mode.
const (
	AddressPublic   AddressMode = iota // only public addresses
	AddressDeclared                    // the policy names this host exactly: internal addresses too
	AddressListed                      // only inside Permit.Prefixes
)

// Permit is the right to open one connection to one host and port. Only this
// package makes one that is valid: stages that send anything take a Permit and
// ask it for the host, so traffic without a decision does not compile. The zero
// value permits nothing. A Permit is immutable and safe to share.
type Permit struct {
	valid       bool
	host        string
	port        uint16
	rule        string
	mode        AddressMode
	prefixes    []netip.Prefix
	listed      string // the same in words
	opaque      bool
	uninspected bool
	generation  core.Generation
	endpoints   []int // numbers, in the Snapshot, of the endpoints that grant it
	// What the endpoints say together about requests.
	inspected    bool
	encodedSlash bool
	learned      bool
}

// Valid reports whether a decision made this Permit.
func (p Permit) Valid() bool { return p.valid }

// Host is the authorised host: lower-case, without port, IPv6 without brackets.
// It is empty for the zero value.
func (p Permit) Host() string { return p.host }

// Port is the authorised port; zero for the zero value.
func (p Permit) Port() uint16 { return p.port }

// Rule is the map key of the policy rule that allowed the connection: the
// lexicographically smallest, when several do.
func (p Permit) Rule() string { return p.rule }

// AddressMode says which addresses Host may resolve to.
func (p Permit) AddressMode() AddressMode { return p.mode }

// Prefixes are the only allowed destinations when AddressMode is AddressListed.
// The caller must not change the slice.
func (p Permit) Prefixes() []netip.Prefix { return p.prefixes }

// Listed is Prefixes in words, the same for the same list: to compare, or as a part of
// a key.
func (p Permit) Listed() string { return p.listed }

// Opaque reports whether bytes are carried untouched: the endpoint says tls: skip or
// protocol: tcp.
func (p Permit) Opaque() bool { return p.opaque }

// AllowsUninspected reports whether all endpoints that grant the connection let
// credentials go where nobody looks (allow_uninspected_credentials).
func (p Permit) AllowsUninspected() bool { return p.uninspected }

// Generation is the policy the decision was made on.
func (p Permit) Generation() core.Generation { return p.generation }

// SameTerms reports whether p authorises the same destination under the same
// conditions as q, whatever rule and generation they come from.
func (p Permit) SameTerms(q Permit) bool {
	return p.valid && q.valid && p.host == q.host && p.port == q.port && p.mode == q.mode &&
		p.opaque == q.opaque && p.uninspected == q.uninspected && p.inspected == q.inspected && p.listed == q.listed
}

// Denial is a refused decision: why, for machines and for people. Detail never
// names anything the workload did not send or may not know.
type Denial struct {
	Reason core.Reason
	Detail string
}
