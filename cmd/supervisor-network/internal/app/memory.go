package app

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent trades memory for processor time: this daemon's live heap is small, and
// what one request allocates is garbage when its answer is sent.
const gcPercent = 400

// tuneMemory sets the collector's pace, and its limit to nine tenths of what the
// container may use, where the operator's GOGC and GOMEMLIMIT do not say otherwise.
func tuneMemory() {
	if before := debug.SetGCPercent(gcPercent); before != 100 {
		debug.SetGCPercent(before)
	}
	const unlimited = 1<<63 - 1
	if limit, ok := containerMemory(); ok && debug.SetMemoryLimit(-1) == unlimited {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// containerMemory reads the limit of this container's cgroup, of either version
// (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel).
func containerMemory() (int64, bool) {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		return n, err == nil && n < 1<<50 // "max", or a number that stands for it
	}
	return 0, false
}
