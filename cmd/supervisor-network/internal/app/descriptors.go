package app

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// otherDescriptors are those that no connection of the workload takes: sockets between the
// daemons, files of state and records, a collector, who reads metrics, lookups of names.
const otherDescriptors = 256

// warnOfDescriptors says when there are too few for --max-connections. Beyond them connections
// wait until others end, and an origin that cannot be dialled for want of one is said to be
// refused for that. The Go runtime has raised the soft limit to the hard one.
func (d *daemon) warnOfDescriptors() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	if most := connectionsFor(limit.Cur); most < uint64(d.cfg.MaxConnections) {
		d.log.Warn("fewer file descriptors than --max-connections needs", slog.Uint64("limit", limit.Cur), slog.Int("max_connections", d.cfg.MaxConnections),
			slog.String("remedy", "raise the container's hard limit of open files (RLIMIT_NOFILE), or lower --max-connections"), slog.Uint64("connections", most))
	}
}

// connectionsFor is how many connections of the workload, each with one to its origin, have
// descriptors.
func connectionsFor(limit uint64) uint64 {
	if limit <= otherDescriptors {
		return 0
	}
	return (limit - otherDescriptors) / 2
}
