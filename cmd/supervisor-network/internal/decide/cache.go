package decide

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/splitpod/splitpod/pkg/core"
)

// facts are everything the procedure sees of a question, and so the key of a
// remembered decision.
type facts struct {
	host      string
	port      uint16
	program   string
	ancestors []core.Program
}

func (f *facts) equal(o *facts) bool {
	return f.port == o.port && f.host == o.host && f.program == o.program &&
		slices.EqualFunc(f.ancestors, o.ancestors, func(a, b core.Program) bool { return a.Path == b.Path })
}

// size is how many bytes remembering f costs, roughly.
func (f *facts) size() int {
	n := len(f.host) + len(f.program)
	for i := range f.ancestors {
		n += len(f.ancestors[i].Path) + 32
	}
	return n
}

// clone copies what may point into a buffer of the connection.
func (f *facts) clone() facts {
	c := facts{host: strings.Clone(f.host), port: f.port, program: strings.Clone(f.program)}
	for i := range f.ancestors {
		c.ancestors = append(c.ancestors, core.Program{Path: strings.Clone(f.ancestors[i].Path)})
	}
	return c
}

// Limits of the cache: together some 16 MiB, whatever the workload asks.
const (
	cacheSlots    = 4096 // a power of two
	maxCachedSize = 4096 // bytes of one question
)

// cache remembers decisions. Each question has one slot, which a newer question takes
// over. So there is no lock and no list, and a workload that asks for thousands of names
// only displaces its own decisions.
type cache struct {
	seed  maphash.Seed
	slots [cacheSlots]atomic.Pointer[remembered]
}

type remembered struct {
	facts  facts
	permit Permit
	denial *Denial
}

func newCache() *cache { return &cache{seed: maphash.MakeSeed()} }

func (c *cache) slot(f *facts) *atomic.Pointer[remembered] {
	h := maphash.String(c.seed, f.host) ^ uint64(f.port)
	h = mix(h, maphash.String(c.seed, f.program))
	for i := range f.ancestors {
		h = mix(h, maphash.String(c.seed, f.ancestors[i].Path))
	}
	return &c.slots[h%cacheSlots]
}

// mix folds v into h so that the order of values counts.
func mix(h, v uint64) uint64 {
	h = h<<7 | h>>57
	return (h ^ v) * 0x9e3779b97f4a7c15
}

func (c *cache) get(f *facts) (Permit, *Denial, bool) {
	r := c.slot(f).Load()
	if r == nil || !r.facts.equal(f) {
		return Permit{}, nil, false
	}
	return r.permit, r.denial, true
}

func (c *cache) put(f *facts, p Permit, d *Denial) {
	if f.size() <= maxCachedSize {
		c.slot(f).Store(&remembered{f.clone(), p, d})
	}
}
