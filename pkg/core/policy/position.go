package policy

import "net/netip"

// Position is a place in a policy file. Lines and columns count from 1; the zero
// value is nowhere.
type Position struct {
	Line, Column int
}

// AllowedIP is one entry of allowed_ips with its place in the file.
type AllowedIP struct {
	Prefix netip.Prefix
	At     Position
}
