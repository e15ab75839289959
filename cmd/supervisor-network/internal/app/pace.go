package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// What one request allocates is garbage when its answer is sent. Between two collections
// there may be much of it while little else is in memory, which saves processor time, and
// as much as there is of everything else when many connections are held. Behind a time of
// much work the node gets it back.
const (
	maxGCPercent = 400
	minGCPercent = 100
	garbage      = 32 << 20 // bytes, where that is within both
	atMost       = 2        // collections behind each time of much work, so that it does
	quietFor     = time.Second / 2
	work         = 1 << 20 // bytes allocated within quietFor
)

// gcPercent is the collector's pace for so many bytes that are in use.
func gcPercent(used uint64) int {
	return int(max(min(garbage*100/max(used, 1), maxGCPercent), minGCPercent))
}

// pace is the collector's, set after every collection to what was then in use.
type pace struct {
	ctx     context.Context // when it ends, nothing is set any more
	percent int
	quiet   *time.Timer // of giveBack

	allocated atomic.Uint64 // bytes, since the start of the daemon; at giveBack's last look
	given     atomic.Int32  // collections by giveBack since there was much work
}

// newPace begins with a pace that is set already.
func newPace(ctx context.Context, percent int) *pace {
	p := &pace{ctx: ctx, percent: percent}
	p.quiet = time.AfterFunc(quietFor, p.giveBack)
	p.keep()
	return p
}

// keep waits for the end of the next collection.
func (p *pace) keep() {
	type collected struct{ _ *int } // no part of a larger allocation, which would outlive it
	runtime.AddCleanup(new(collected), (*pace).collected, p)
}

func (p *pace) collected() {
	if p.ctx.Err() != nil {
		return
	}
	defer p.keep()
	next := gcPercent(memoryIn("/gc/heap/live:bytes") + memoryIn("/gc/scan/stack:bytes"))
	if next*10 < p.percent*9 || next*10 > p.percent*11 { // it stops everything for a moment
		debug.SetGCPercent(next)
		p.percent = next
	}
	p.quiet.Reset(quietFor)
}

// giveBack collects what a time of much work left behind, once it is over.
func (p *pace) giveBack() {
	allocated := memoryIn("/gc/heap/allocs:bytes")
	live := memoryIn("/gc/heap/live:bytes")
	switch before := p.allocated.Swap(allocated); {
	case p.ctx.Err() != nil:
	case allocated-before > work:
		p.given.Store(0)
		p.quiet.Reset(quietFor)
	case live > garbage && memoryIn("/memory/classes/heap/objects:bytes")+emptyStack() < live+live/4: // to collect is to read all that lives
	case p.given.Add(1) <= atMost: // the first one finds stacks of 16 KB for each of a thousand handshakes, and halves them
		debug.FreeOSMemory()
	}
}

// emptyStack is what a collection may give back of all stacks: it halves those of which
// less than a quarter is in use, with a kilobyte in reserve.
func emptyStack() uint64 {
	stacks, used := memoryIn("/memory/classes/heap/stacks:bytes"), memoryIn("/gc/scan/stack:bytes")
	return stacks - min(stacks, 4*(used+memoryIn("/sched/goroutines:goroutines")<<10))
}

// memoryIn reads one of runtime/metrics, in bytes.
func memoryIn(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
