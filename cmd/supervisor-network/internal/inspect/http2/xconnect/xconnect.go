// Package xconnect makes golang.org/x/net/http2 offer extended CONNECT (RFC 8441), by
// which clients open WebSockets in a stream.
//
// The library reads one switch for that, GODEBUG=http2xconnect=1, from the environment,
// and only while its package is initialised: a //go:debug line does not reach it, since
// it does not ask the runtime, and a value that main sets comes too late. So this
// package sets it while it is initialised itself. That it comes first is the Go
// specification's promise: packages are initialised in the order of their import paths
// as far as their imports allow it, this one imports only what the library does, and
// its path sorts before golang.org (and before net/http, where the library's server
// moves in Go 1.27). Whoever imports it, for its effect only, has the offer in every
// program and every test; TestExtendedConnectIsOffered fails where the order changes.
//
// What an operator put into GODEBUG stays, and http2xconnect=0 in it switches the offer
// off. No program is started by this daemon that could inherit the variable.
//
// Source: https://go.dev/ref/spec#Package_initialization.
package xconnect

import (
	"os"
	"strings"
)

const name = "http2xconnect="

func init() { _ = os.Setenv("GODEBUG", with(os.Getenv("GODEBUG"))) } // it fails only for names that are none

// with adds the switch to settings that do not have it.
func with(settings string) string {
	switch {
	case strings.Contains(settings, name):
		return settings
	case settings == "":
		return name + "1"
	default:
		return settings + "," + name + "1"
	}
}
