// Command supervisor-network is the network half of Splitpod: the only way out of
// a sandbox. It runs beside the workload without privilege, accepts on listeners
// that live inside the workload's namespace, and decides what may leave.
//
// The way of a connection is one straight line, written once in internal/proxy:
//
//	listen → identify → decide → inspect → inject → relay → record
//
// listen takes a connection and reads its head; identify asks the process daemon
// which program it is; decide asks the policy and alone can make a decide.Permit;
// inspect looks into what the Permit lets it and reads one request after the other,
// each of which is decided on its own; inject puts credentials in the place of their
// placeholders, and needs that Permit, as relay does, which resolves, checks and
// dials; record leaves one record on every path out.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := command.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
