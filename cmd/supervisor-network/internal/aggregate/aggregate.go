// Package aggregate counts what was denied and allowed, by destination and program,
// until somebody has taken the counts.
//
// It answers the threat of a workload that makes so many events that a daemon's memory
// grows, that its data path waits for whoever reads them, or that one denial is lost
// behind many: keys, samples and bytes are bounded, an event costs one short lock of a
// sixteenth of the keys, and what loses its detail is still counted by stage and reason.
// It does not answer a workload that pushes one key out by making thousands of others;
// that key is then only in the counts and in the records. Nor does it survive a kill of
// the daemon: what was counted since the last delivery, ten seconds ago at most, is then
// only in the records.
//
// Invariant: every occurrence that was added is in exactly one batch, either with its
// key or among the suppressed ones; a batch is handed out unchanged until it is
// acknowledged.
package aggregate

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of one Aggregator. Keys and bytes are for denials and activity each.
const (
	MaxKeys       = 2048
	MaxBytes      = 8 << 20
	MaxSamples    = 20 // distinct method and path of one key
	MaxCauses     = 8  // distinct stage and reason of one key
	MaxPathBytes  = 256
	maxAncestors  = 8
	maxSuppressed = 64 // distinct stage and reason without a key
	shards        = 16
)

// Key is what is counted together.
type Key struct {
	Host   string
	Port   uint16
	Binary string // empty: not known
}

// Cause is why something was denied.
type Cause struct {
	Stage  core.Stage
	Reason core.Reason
}

// Sample is one method and path, without query, with how often it was asked for.
type Sample struct {
	Method, Path string
	Count        uint64
}

// CauseCount is a cause with how often it was seen.
type CauseCount struct {
	Cause
	Count       uint64
	First, Last time.Time
}

// Summary is what is known of one key.
type Summary struct {
	Key
	Count       uint64
	First, Last time.Time
	// Causes of denials, in the order they were first seen. At most MaxCauses; what is
	// above is in OtherCauses.
	Causes      []CauseCount
	OtherCauses uint64
	// Samples are at most MaxSamples; Unsampled counts what had another method or path.
	// Whatever had neither is in none of the two.
	Samples   []Sample
	Unsampled uint64
	Ancestors []core.Program // of the first occurrence, nearest first, at most eight
	Rule      string         // of the newest that was allowed
	RequestID core.RequestID // of the newest
}

// Batch is everything that was counted in one stretch of time.
type Batch struct {
	Number   uint64 // grows by one; a batch that is handed out again has the same
	From, To time.Time
	Denials  []Summary // by host, port and binary
	Activity []Summary // what was allowed, in the same order
	// Suppressed counts what lost its key.
	Suppressed        map[Cause]uint64
	SuppressedAllowed uint64
	Total, Denied     uint64
	Groups            map[Group]uint64 // of denials
}

// Empty reports whether nothing was counted.
func (b *Batch) Empty() bool { return b.Total == 0 }

// Aggregator counts. Make it with New; safe for concurrent use.
type Aggregator struct {
	seed     maphash.Seed
	now      func() time.Time
	denials  table
	activity table
	groups   [len(groupNames)]atomic.Uint64

	mu     sync.Mutex
	since  time.Time // guarded by mu
	number uint64    // guarded by mu
	frozen *Batch    // guarded by mu; handed out and not acknowledged
}

// New makes an Aggregator.
func New() *Aggregator {
	a := &Aggregator{seed: maphash.MakeSeed(), now: time.Now}
	a.since = a.now()
	return a
}

// Add counts an event. Only connections, requests and bypass attempts are; the rest is
// left out. It never blocks on whoever reads, and keeps nothing of ev.
func (a *Aggregator) Add(ev *core.Event) {
	if ev.Kind != core.EventConnection && ev.Kind != core.EventBypass {
		return
	}
	t := &a.denials
	if ev.Verdict == core.Allow {
		t = &a.activity
	} else {
		a.groups[groupOf(ev).index()].Add(ev.Occurrences())
	}
	var h maphash.Hash
	h.SetSeed(a.seed)
	h.WriteString(ev.Host)
	h.WriteByte(byte(ev.Port))
	h.WriteString(ev.Program.Path)
	t.shards[h.Sum64()%shards].add(ev)
}

// Suppressed is how many denials lost their key since New, by now.
func (a *Aggregator) Suppressed() (n uint64) {
	for i := range a.denials.shards {
		s := &a.denials.shards[i]
		s.mu.Lock()
		n += s.everSuppressed
		s.mu.Unlock()
	}
	return n
}

// Pending is the batch to deliver: the one that was not acknowledged, or else what was
// counted since. It is the caller's to read and nobody's to change.
func (a *Aggregator) Pending() *Batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.frozen == nil {
		a.frozen = a.freeze()
	}
	return a.frozen
}

// Ack forgets the pending batch, if it is the one with this number.
func (a *Aggregator) Ack(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.frozen != nil && a.frozen.Number == number {
		a.frozen = nil
	}
}

// freeze takes what was counted. An event that is added meanwhile is in this batch or
// in the next. Preconditions: mu is held.
func (a *Aggregator) freeze() *Batch {
	a.number++
	b := &Batch{Number: a.number, From: a.since, To: a.now(), Suppressed: make(map[Cause]uint64),
		Groups: make(map[Group]uint64)}
	a.since = b.To
	b.Denials, b.Denied = a.denials.take(b.Suppressed)
	allowed := make(map[Cause]uint64)
	var passed uint64
	b.Activity, passed = a.activity.take(allowed)
	for _, n := range allowed {
		b.SuppressedAllowed += n
	}
	b.Total = b.Denied + passed
	for i := range a.groups {
		if n := a.groups[i].Swap(0); n > 0 {
			b.Groups[groupNames[i]] = n
		}
	}
	return b
}

// Deliver calls take with every batch that is not empty, once in every interval and once
// more when ctx ends. After a failure, take gets the same batch again, with the same
// number.
func (a *Aggregator) Deliver(ctx context.Context, every time.Duration, take func(context.Context, *Batch) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
		}
		for range 2 { // what failed before, and what came since
			b := a.Pending()
			if b.Empty() {
				a.Ack(b.Number)
				break
			}
			if err := take(context.WithoutCancel(ctx), b); err != nil {
				break
			}
			a.Ack(b.Number)
		}
	}
	return nil
}

// table counts by key in shards.
type table struct{ shards [shards]shard }

// take empties the table.
func (t *table) take(suppressed map[Cause]uint64) (out []Summary, total uint64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		entries, lost, count := s.entries, s.suppressed, s.count
		s.entries, s.suppressed, s.count, s.bytes = nil, nil, 0, 0
		s.mu.Unlock()
		total += count
		for _, e := range entries {
			out = append(out, *e)
		}
		for cause, n := range lost {
			suppressed[cause] += n
		}
	}
	slices.SortFunc(out, func(x, y Summary) int { return x.Key.compare(y.Key) })
	return out, total
}

func (k Key) compare(o Key) int {
	if c := strings.Compare(k.Host, o.Host); c != 0 {
		return c
	}
	if k.Port != o.Port {
		return int(k.Port) - int(o.Port)
	}
	return strings.Compare(k.Binary, o.Binary)
}
