// Package spool hands a daemon's records to a log, many in one write, so that nobody
// who makes one has to wait for whoever reads it.
//
// It answers the threat of a log that is not read, or cannot be written: lines wait in a
// bounded batch; those that find no place are counted, and the count is written after
// the batch. A caller that wants to know that its line was written waits for a bounded
// time; after one has waited in vain, nobody waits until something is written again. It
// does not keep lines beyond the daemon: whoever ends the daemon ends Run first.
//
// Invariant: lines leave in the order they were added, each whole and once, and Add
// never blocks.
package spool

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

const (
	// maxBatch bounds the bytes that wait for the log's reader; as many again may be
	// under way to it.
	maxBatch = 8 << 20
	// hastyBatch is written at once.
	hastyBatch = 256 << 10
	// flushEvery is how long a line may wait for others to be written with it.
	flushEvery = 5 * time.Millisecond
	// flushWait bounds how long Await waits.
	flushWait = 250 * time.Millisecond
)

// Spool collects lines for the writer of one log. It is locked for a copy only, and
// wakes the writer once for many lines. Make it with New and keep Run going; safe for
// concurrent use.
type Spool struct {
	out   io.Writer
	told  func(b []byte, dropped uint64) []byte
	due   *time.Timer   // the batch has waited long enough
	hurry chan struct{} // somebody waits for the batch, or it is large

	mu      sync.Mutex
	text    []byte        // guarded by mu; the batch
	written chan struct{} // guarded by mu; closed when the batch is written; nil while nobody waits
	stalled bool          // guarded by mu; somebody waited in vain, and nothing was written since
	dropped uint64        // guarded by mu; lines that found no place, or were not written
	ended   bool          // guarded by mu; nobody writes any more
}

// New makes a Spool. told appends the line that says how many were dropped.
func New(out io.Writer, told func(b []byte, dropped uint64) []byte) *Spool {
	due := time.NewTimer(time.Hour)
	due.Stop()
	return &Spool{out: out, told: told, due: due, hurry: make(chan struct{}, 1)}
}

// Written is closed when a line is written. nil: it never will be, or waiting for it
// has no prospect.
type Written <-chan struct{}

// Add copies a line into the batch, or counts it as dropped. With wait the batch is
// written at once, and the result is for Await.
func (s *Spool) Add(line []byte, wait bool) Written {
	s.mu.Lock()
	before := len(s.text)
	after := before + len(line)
	if s.ended || after > maxBatch {
		s.dropped++
		s.mu.Unlock()
		return nil
	}
	s.text = append(s.text, line...)
	var written chan struct{}
	if wait && !s.stalled {
		if s.written == nil {
			s.written = make(chan struct{})
		}
		written = s.written
	}
	s.mu.Unlock()

	switch {
	case wait || before < hastyBatch && after >= hastyBatch:
		select {
		case s.hurry <- struct{}{}:
		default:
		}
	case before == 0:
		s.due.Reset(flushEvery)
	}
	return written
}

// Await waits for a line to be written, for a quarter of a second at most.
func (s *Spool) Await(written Written) {
	if written == nil {
		return
	}
	timer := time.NewTimer(flushWait)
	defer timer.Stop()
	select {
	case <-written:
		return
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-written: // just now: who clears the mark comes after this, or did before
	default:
		s.stalled = true
	}
}

// Lost is how many lines were dropped.
func (s *Spool) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// batch is what is written at a time.
type batch struct {
	text    []byte
	written chan struct{} // may be nil
	dropped uint64        // lines dropped up to the end of it, ever
}

// take hands the batch out and goes on in spare. When ending finds nothing, nothing
// is taken any more.
func (s *Spool) take(spare []byte, ending bool) batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := batch{s.text, s.written, s.dropped}
	s.text, s.written = spare[:0], nil
	s.ended = ending && len(b.text) == 0
	return b
}

// moved says that a batch left, and then that the log is read.
func (s *Spool) moved(written chan struct{}) {
	if written != nil {
		close(written)
	}
	s.mu.Lock()
	s.stalled = false
	s.mu.Unlock()
}

// Run writes lines until ctx ends, then those that are left.
func (s *Spool) Run(ctx context.Context) {
	var spare []byte
	reported := uint64(0)
	for ending := false; ; {
		if !ending {
			select {
			case <-s.due.C:
			case <-s.hurry:
			case <-ctx.Done():
				ending = true
			}
		}
		b := s.take(spare, ending)
		if ending && len(b.text) == 0 {
			return
		}
		reported = s.write(&b, reported)
		if spare = b.text; cap(spare) > 2*hastyBatch && len(b.text) < cap(spare)/8 {
			spare = nil // what a burst needed is not kept
		}
	}
}

// write writes a batch and, behind it, how many lines found no place in it. It returns
// how many of those were told of by now.
func (s *Spool) write(b *batch, reported uint64) uint64 {
	lines := b.text
	if b.dropped != reported {
		lines = s.told(lines, b.dropped-reported)
	}
	if len(lines) > 0 {
		n, err := s.out.Write(lines)
		if err == nil {
			reported = b.dropped
		} else if n < len(b.text) {
			s.drop(uint64(bytes.Count(b.text[n:], []byte{'\n'}))) // told when writing works again
		}
	}
	s.moved(b.written)
	return reported
}

func (s *Spool) drop(n uint64) {
	s.mu.Lock()
	s.dropped += n
	s.mu.Unlock()
}
