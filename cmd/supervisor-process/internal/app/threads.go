package app

import (
	"runtime"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
)

// maxThreads bounds the threads that run Go code here at one time: this daemon answers
// questions of microseconds, and its processors are the workload's.
const maxThreads = 4

// gather lets few threads run Go code, half as many as there are processors: an answer
// passes from one goroutine to the next, and each time another thread were woken for it,
// which costs more than what it has to do. It leaves alone what an operator has set.
func gather() {
	if config.Threads() == "" {
		runtime.GOMAXPROCS(fewer(runtime.GOMAXPROCS(0)))
	}
}

func fewer(processors int) int { return min(max(processors/2, 1), maxThreads) }
