package core

import (
	"net/netip"
	"strconv"
)

// Tuple is a TCP connection as the workload's end sees it.
type Tuple struct {
	Client netip.AddrPort // the workload's own address and port
	Server netip.AddrPort // the listener it reached
}

// String renders the tuple as "client -> server".
func (t Tuple) String() string { return t.Client.String() + " -> " + t.Server.String() }

// ProcessRef names one process without the risk of a recycled pid. PID is the
// number the workload itself sees; StartTime is field 22 of proc_pid_stat(5), in
// clock ticks since boot.
type ProcessRef struct {
	PID       int
	StartTime uint64
}

// String renders the reference as "pid@start".
func (p ProcessRef) String() string {
	return strconv.Itoa(p.PID) + "@" + strconv.FormatUint(p.StartTime, 10)
}

// NoUID stands for somebody who is no user of this machine, or is not known. No user has
// this uid.
const NoUID = 1<<32 - 1

// IdentityStatus says whether an identity may be relied on. Only IdentityKnown
// may; every other value, and every value a build does not know, is a denial.
type IdentityStatus uint8

// The identity statuses.
const (
	IdentityUnspecified IdentityStatus = iota // zero: nothing was determined
	IdentityKnown                             // one program owns the connection
	IdentityNotFound                          // no process of the workload owns it
	IdentityAmbiguous                         // owners that are different programs share it
	IdentityChanged                           // a binary's content differs from its first use
	IdentityNotReady                          // there is no workload (yet, or any more)
	IdentityFailed                            // the lookup itself failed
)

var identityStatusText = [...]string{"unspecified", "known", "not_found", "ambiguous", "changed", "not_ready", "failed"}

// String is the stable text form, used in records.
func (s IdentityStatus) String() string {
	if int(s) < len(identityStatusText) {
		return identityStatusText[s]
	}
	return "unspecified"
}

// Program is one executable in an identity.
type Program struct {
	Path   string // as the kernel resolved it, in the workload's mount namespace
	SHA256 string // lower-case hex of the file's content; empty if not determined
}

// Identity answers "who is asking". Everything but Status and Detail is
// meaningful only when Status is IdentityKnown.
type Identity struct {
	Status  IdentityStatus
	Detail  string // why, for people; never contains file content or environment
	Process ProcessRef
	UID     uint32
	Program Program
	// Ancestors are the programs of the parents, nearest first, up to but
	// without the sandbox's own init. At most MaxAncestors.
	Ancestors []Program
	// CommandPaths are absolute paths found in the argument vectors of the
	// process and its ancestors. They explain; they never grant.
	CommandPaths []string
}

// MaxAncestors bounds Identity.Ancestors.
const MaxAncestors = 64
