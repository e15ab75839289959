package record

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

const (
	// maxBatch bounds the bytes that wait for the log's reader; as many again may be
	// under way to it.
	maxBatch = 8 << 20
	// hastyBatch is written at once.
	hastyBatch = 256 << 10
	// flushEvery is how long a record may wait for others to be written with it.
	flushEvery = 5 * time.Millisecond
	// flushWait bounds how long a denial waits for its record to be written.
	flushWait = 250 * time.Millisecond
)

// queue collects lines for the writer of one sink. It is locked for a copy only, and wakes the
// writer once for many lines.
type queue struct {
	Sink
	due   *time.Timer   // the batch has waited long enough
	hurry chan struct{} // somebody waits for the batch, or it is large

	mu      sync.Mutex
	text    []byte        // guarded by mu; the batch
	written chan struct{} // guarded by mu; closed when the batch is written; nil while nobody waits
	stalled bool          // guarded by mu; somebody waited in vain, and nothing was written since
	dropped uint64        // guarded by mu; lines that found no place, or were not written
	ended   bool          // guarded by mu; nobody writes any more
}

func newQueue(s Sink) *queue {
	due := time.NewTimer(time.Hour)
	due.Stop()
	return &queue{Sink: s, due: due, hurry: make(chan struct{}, 1)}
}

// add copies a line into the batch, or counts it as dropped. With wait it returns a
// channel that is closed when the line is written; nil when it never will be, or when
// waiting for it has no prospect.
func (q *queue) add(line []byte, wait bool) <-chan struct{} {
	q.mu.Lock()
	before := len(q.text)
	after := before + len(line)
	if q.ended || after > maxBatch {
		q.dropped++
		q.mu.Unlock()
		return nil
	}
	q.text = append(q.text, line...)
	var written chan struct{}
	if wait && !q.stalled {
		if q.written == nil {
			q.written = make(chan struct{})
		}
		written = q.written
	}
	q.mu.Unlock()

	switch {
	case wait || before < hastyBatch && after >= hastyBatch:
		select {
		case q.hurry <- struct{}{}:
		default:
		}
	case before == 0:
		q.due.Reset(flushEvery)
	}
	return written
}

// batch is what is written at a time.
type batch struct {
	text    []byte
	written chan struct{} // may be nil
	dropped uint64        // lines dropped up to the end of it, ever
}

// take hands the batch out and goes on in spare. When ending finds nothing, nothing
// is taken any more.
func (q *queue) take(spare []byte, ending bool) batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := batch{q.text, q.written, q.dropped}
	q.text, q.written = spare[:0], nil
	q.ended = ending && len(b.text) == 0
	return b
}

func (q *queue) drop(n uint64) {
	q.mu.Lock()
	q.dropped += n
	q.mu.Unlock()
}

func (q *queue) lost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// await waits for a batch to be written, with a bound. Nobody waits after that until
// something is.
func (q *queue) await(written <-chan struct{}) {
	timer := time.NewTimer(flushWait)
	defer timer.Stop()
	select {
	case <-written:
		return
	case <-timer.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-written: // just now: who clears the mark comes after this, or did before
	default:
		q.stalled = true
	}
}

// moved says that a batch left, and then that the sink is read.
func (q *queue) moved(written chan struct{}) {
	if written != nil {
		close(written)
	}
	q.mu.Lock()
	q.stalled = false
	q.mu.Unlock()
}

// Run writes what is queued until ctx ends, then what is left.
func (r *Recorder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, q := range r.sinks {
		wg.Go(func() { r.run(ctx, q) })
	}
	wg.Wait()
	return nil
}

func (r *Recorder) run(ctx context.Context, q *queue) {
	var spare []byte
	reported := uint64(0)
	for ending := false; ; {
		if !ending {
			select {
			case <-q.due.C:
			case <-q.hurry:
			case <-ctx.Done():
				ending = true
			}
		}
		b := q.take(spare, ending)
		if ending && len(b.text) == 0 {
			return
		}
		reported = r.write(q, &b, reported)
		if spare = b.text; cap(spare) > 2*hastyBatch && len(b.text) < cap(spare)/8 {
			spare = nil // what a burst needed is not kept
		}
	}
}

// write writes a batch and, behind it, how many records found no place in it. It
// returns how many of those were told of by now.
func (r *Recorder) write(q *queue, b *batch, reported uint64) uint64 {
	lines := b.text
	if b.dropped != reported {
		ev := core.Event{Kind: core.EventFinding, Time: r.now(), Stage: core.StageControl, Severity: core.SeverityHigh,
			Reason: core.EventRecordsDropped, Detail: "the log was not read fast enough", Count: b.dropped - reported, Instance: r.instance}
		lines = r.encode(lines, &ev, q.Text)
	}
	if len(lines) > 0 {
		n, err := q.Out.Write(lines)
		if err == nil {
			reported = b.dropped
		} else if n < len(b.text) {
			q.drop(uint64(bytes.Count(b.text[n:], []byte{'\n'}))) // told when writing works again
		}
	}
	q.moved(b.written)
	return reported
}
