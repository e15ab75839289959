package app

import (
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
)

// tuneMemory sets the collector's pace, and its limit to nine tenths of what the
// container may use, where the operator's GOGC and GOMEMLIMIT do not say otherwise.
func tuneMemory(ctx context.Context) {
	if before := debug.SetGCPercent(maxGCPercent); before != 100 {
		debug.SetGCPercent(before)
	} else {
		newPace(ctx, maxGCPercent)
	}
	if limit, ok := containerMemory(); ok && debug.SetMemoryLimit(-1) == unlimited {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

const unlimited = 1<<63 - 1

// usableMemory is what this daemon may use: what the collector keeps it to, or else the
// container's limit.
func usableMemory() (int64, bool) {
	memory, ok := containerMemory()
	if limit := debug.SetMemoryLimit(-1); limit != unlimited && (!ok || limit < memory) {
		return limit, true
	}
	return memory, ok
}

// windowLimit is what clients of HTTP/2 may have sent that nobody takes yet, in bytes of
// all connections together: a quarter of the memory, as much as held bodies may take. An
// eighth of it more is for sections of fields that are not complete.
// Without a limit of memory the number of connections bounds it; 0 says so.
func windowLimit() int64 {
	memory, _ := usableMemory()
	return memory / 4
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

// heldLimit is the limit in this container.
func heldLimit() int64 {
	if memory, ok := usableMemory(); ok {
		return min(hold.Max, memory/4)
	}
	return hold.Max
}

// unreadLimit is the limit of unread answers: an eighth of the memory.
func unreadLimit() int64 {
	if memory, ok := usableMemory(); ok {
		return min(hold.Max, memory/8)
	}
	return hold.Max
}
