package app

import (
	"log/slog"
	"os"
	"strings"
)

// warnOfSwap says when what this process holds may be written to a disk. It cannot be
// prevented from here: a value is copied into every request that it goes into, locked
// pages of a collected heap are never given back, and the right to lock more than a
// few of them is a capability.
func (d *daemon) warnOfSwap() {
	if swaps, limit := swapFiles(); swappable(swaps, limit) {
		d.log.Warn("memory of this daemon, with its secrets, may be swapped",
			slog.String("remedy", "a node without swap; or a memory request that equals the limit, with which the kubelet gives a container no swap"))
	}
}

// swapFiles are what the node swaps to, and how much of it this container may use
// (proc(5); Documentation/admin-guide/cgroup-v2.rst, memory.swap.max). What cannot be
// read is empty.
func swapFiles() (swaps, limit string) {
	a, _ := os.ReadFile("/proc/swaps")
	b, _ := os.ReadFile("/sys/fs/cgroup/memory.swap.max")
	return string(a), string(b)
}

// swappable reports whether there is something to swap to, and no limit of nothing.
func swappable(swaps, limit string) bool {
	return strings.Count(strings.TrimSpace(swaps), "\n") > 0 && strings.TrimSpace(limit) != "0"
}
