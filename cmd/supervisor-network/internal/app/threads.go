package app

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
)

// spareThreads are threads beyond one a processor that may run Go code. A thread that
// writes to a socket wakes who reads it, and often has to leave it its processor there
// and then, inside of the system call: without a spare one, nobody goes on in its place.
const spareThreads = 2

// respread is how often a limit is looked for: one may be set on a pod that runs.
const respread = 10 * time.Second

// spreadOn allows for the spare threads as long as ctx lasts.
func spreadOn(ctx context.Context, cgroup string) {
	tick := time.NewTicker(respread)
	defer tick.Stop()
	for {
		spread(cgroup)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// spread allows for the spare threads. It leaves alone what an operator has set, and
// daemons that may not use all processors there are: they would only be throttled sooner.
// The runtime follows their limit by itself, but never below two threads.
func spread(cgroup string) {
	processors := runtime.NumCPU()
	limit, limited := processorTime(cgroup)
	fewer := limited && limit < float64(processors)
	switch threads := runtime.GOMAXPROCS(0); {
	case config.Threads() != "":
	case fewer && threads == processors+spareThreads:
		runtime.SetDefaultGOMAXPROCS()
	case !fewer && threads == processors:
		runtime.GOMAXPROCS(processors + spareThreads)
	}
}

// cgroups is where this container's cgroup is.
const cgroups = "/sys/fs/cgroup"

// processorTime reads how many processors' time a cgroup, of either version, may take
// (Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst of the kernel).
func processorTime(cgroup string) (processors float64, limited bool) {
	data, err := os.ReadFile(cgroup + "/cpu.max")
	if err != nil {
		quota, _ := os.ReadFile(cgroup + "/cpu/cpu.cfs_quota_us")
		period, _ := os.ReadFile(cgroup + "/cpu/cpu.cfs_period_us")
		data = slices.Concat(quota, []byte(" "), period)
	}
	var quota, period int64
	n, _ := fmt.Sscan(string(data), &quota, &period) // "max" and -1 are no limit
	return float64(quota) / float64(period), n == 2 && quota > 0 && period > 0
}
