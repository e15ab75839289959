package aggregate

import (
	"slices"
	"strings"
	"sync"

	"github.com/splitpod/splitpod/pkg/core"
)

// shard is a part of a table's keys. The zero value is empty.
type shard struct {
	mu         sync.Mutex
	entries    map[Key]*Summary // guarded by mu
	bytes      int              // guarded by mu; of entries, roughly
	count      uint64           // guarded by mu; every occurrence
	suppressed map[Cause]uint64 // guarded by mu; occurrences without their key

	everSuppressed uint64 // guarded by mu; of all batches
}

const (
	keysPerShard  = MaxKeys / shards
	bytesPerShard = MaxBytes / shards
	// overhead is what an entry or a sample costs beside its texts.
	overhead = 256
)

func (s *shard) add(ev *core.Event) {
	n := ev.Occurrences()
	key := Key{ev.Host, ev.Port, ev.Program.Path}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count += n
	e, ok := s.entries[key]
	if !ok {
		if e = s.open(key, ev); e == nil {
			s.suppress(Cause{ev.Stage, ev.Reason}, n)
			return
		}
	}
	e.Count += n
	if ev.Time.After(e.Last) {
		e.Last = ev.Time
	}
	if ev.Time.Before(e.First) {
		e.First = ev.Time
	}
	e.RequestID = ev.RequestID
	if ev.Verdict == core.Allow {
		if e.Rule != ev.Rule {
			e.Rule = strings.Clone(ev.Rule)
		}
	} else {
		e.cause(ev, n)
	}
	s.sample(e, ev, n)
}

// open makes room for a key and adds it; nil if it is too large for that.
func (s *shard) open(key Key, ev *core.Event) *Summary {
	cost := overhead + len(key.Host) + len(key.Binary)
	ancestors := ev.Ancestors[:min(len(ev.Ancestors), maxAncestors)]
	for i := range ancestors {
		cost += len(ancestors[i].Path) + 64
	}
	if cost > bytesPerShard/8 {
		return nil
	}
	for len(s.entries) >= keysPerShard || s.bytes+cost > bytesPerShard {
		s.evict()
	}
	if s.entries == nil {
		s.entries = make(map[Key]*Summary)
	}
	e := &Summary{First: ev.Time, Last: ev.Time, Ancestors: slices.Clone(ancestors),
		Key: Key{strings.Clone(key.Host), key.Port, strings.Clone(key.Binary)}}
	s.entries[e.Key] = e
	s.bytes += cost
	return e
}

// looks is how many keys are compared to find one to give up. It bounds what a new key
// costs.
const looks = 16

// evict removes one of a few keys, the one that was seen least often or else was silent
// longest, and keeps its counts. Preconditions: mu is held, there are entries.
func (s *shard) evict() {
	var least *Summary
	left := looks
	for _, e := range s.entries { // begins anywhere
		if least == nil || e.Count < least.Count || e.Count == least.Count && e.Last.Before(least.Last) {
			least = e
		}
		if left--; left == 0 {
			break
		}
	}
	rest := least.Count
	for _, c := range least.Causes {
		s.suppress(c.Cause, c.Count)
		rest -= c.Count
	}
	if rest > 0 {
		s.suppress(Cause{}, rest)
	}
	s.bytes -= least.cost()
	delete(s.entries, least.Key)
}

// cost is what an entry takes of its shard's bytes.
func (e *Summary) cost() int {
	n := overhead + len(e.Host) + len(e.Binary)
	for i := range e.Ancestors {
		n += len(e.Ancestors[i].Path) + 64
	}
	for i := range e.Samples {
		n += sampleCost(e.Samples[i].Method, e.Samples[i].Path)
	}
	return n
}

func sampleCost(method, path string) int { return overhead/4 + len(method) + len(path) }

// suppress counts what lost its key. Causes come from closed sets, but those of the
// other daemon are only as closed as that is.
func (s *shard) suppress(c Cause, n uint64) {
	if s.suppressed == nil {
		s.suppressed = make(map[Cause]uint64)
	}
	if _, known := s.suppressed[c]; !known && len(s.suppressed) >= maxSuppressed {
		c = Cause{}
	}
	s.suppressed[c] += n
	s.everSuppressed += n
}

func (e *Summary) cause(ev *core.Event, n uint64) {
	c := Cause{ev.Stage, ev.Reason}
	i := slices.IndexFunc(e.Causes, func(have CauseCount) bool { return have.Cause == c })
	switch {
	case i >= 0:
		e.Causes[i].Count += n
		e.Causes[i].Last = ev.Time
	case len(e.Causes) < MaxCauses:
		e.Causes = append(e.Causes, CauseCount{c, n, ev.Time, ev.Time})
	default:
		e.OtherCauses += n
	}
}

// sample counts the method and path. Preconditions: mu is held.
func (s *shard) sample(e *Summary, ev *core.Event, n uint64) {
	if ev.Method == "" && ev.Path == "" {
		return
	}
	for i := range e.Samples {
		if e.Samples[i].Method == ev.Method && e.Samples[i].Path == ev.Path {
			e.Samples[i].Count += n
			return
		}
	}
	cost := sampleCost(ev.Method, ev.Path)
	if len(e.Samples) >= MaxSamples || len(ev.Path) > MaxPathBytes || len(ev.Method) > MaxPathBytes || s.bytes+cost > bytesPerShard {
		e.Unsampled += n
		return
	}
	e.Samples = append(e.Samples, Sample{strings.Clone(ev.Method), strings.Clone(ev.Path), n})
	s.bytes += cost
}
