package core

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
)

// InstanceID names one run of one daemon: 32 lower-case hex digits, new at every
// start. A restarted daemon is a new instance, so a late answer meant for the
// old one can be told apart. The zero value names nobody.
type InstanceID string

// NewInstanceID makes an InstanceID from the system's random source.
func NewInstanceID() InstanceID {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand.Read never fails since Go 1.24
	return InstanceID(hex.EncodeToString(b))
}

// Valid reports whether the id has the shape NewInstanceID makes.
func (id InstanceID) Valid() bool { return isLowerHex(string(id), 32) }

// RequestID joins the records that both daemons write about one connection:
// 16 lower-case hex digits. It is made by the daemon that sees the connection
// first, never taken from the workload.
type RequestID string

// NewRequestID makes a RequestID. Nothing depends on nobody guessing it: it comes from the
// runtime's generator, which is seeded from the system's random source and asks it for
// nothing more.
func NewRequestID() RequestID {
	var id [16]byte
	hex.Encode(id[:], binary.NativeEndian.AppendUint64(nil, mathrand.Uint64()))
	return RequestID(id[:])
}

// Valid reports whether the id has the shape NewRequestID makes.
func (id RequestID) Valid() bool { return isLowerHex(string(id), 16) }

// Generation numbers the configurations of one network daemon instance; it grows
// by at least one with every change. Zero means none yet.
type Generation uint64

// Build names a binary: which daemon, which version. It goes into handshake
// errors, so that an operator knows which image to change.
type Build struct {
	Component string // "supervisor-network" or "supervisor-process"
	Version   string // release version, or "devel"
	Commit    string // revision it was built from, may be empty
}

// String renders the build for people, for example
// "supervisor-network 0.3.0 (1f2e3d4)".
func (b Build) String() string {
	if b.Commit == "" {
		return fmt.Sprintf("%s %s", b.Component, b.Version)
	}
	return fmt.Sprintf("%s %s (%s)", b.Component, b.Version, b.Commit)
}

func isLowerHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
