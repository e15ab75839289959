package h2

import (
	"errors"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/pkg/core"
)

// Budget is what may be held at one time, shared with whoever else takes of it. Safe for
// concurrent use.
type Budget interface {
	Take(n int64) bool // n bytes more, unless there is no room for them
	Give(n int64)      // back
}

// Ends for want of room. They are *http2.Revoked, so that gRPC clients are told.
var (
	// ErrUnread ends an answer that its client did not read on while others found no room.
	ErrUnread error = &http2.Revoked{Reason: core.ReasonTooManyBodies,
		Detail: "what is unread of answers takes the memory there is for it, and this one was left unread the longest; read on, or ask for fewer at a time"}
	// ErrCrowded ends a connection whose origin found no room for too long.
	ErrCrowded error = &http2.Revoked{Reason: core.ReasonTooManyBodies,
		Detail: "what is unread of answers takes the memory there is for it; read on, or ask for fewer at a time"}
)

// answer is the body of a response.
type answer struct {
	io.ReadCloser
	conn  *conn
	since atomic.Int64 // when somebody last stopped reading, since the pool's start
	ended atomic.Bool  // for the sake of others
	left  atomic.Bool
}

// reading stands for a time at which nobody has stopped reading.
const reading = math.MaxInt64

// watch knows of an answer, of which as much as comes may be unread until it is closed.
func (p *Pool) watch(body io.ReadCloser, c *conn) io.ReadCloser {
	a := &answer{ReadCloser: body, conn: c}
	a.since.Store(p.now())
	p.answers.Store(a, nil)
	return a
}

func (p *Pool) now() int64 { return int64(time.Since(p.start)) }

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	over := a.conn.wire.over()
	a.since.Store(reading)
	n, err := a.ReadCloser.Read(p)
	a.since.Store(a.conn.wire.pool.now())
	if over {
		a.conn.wire.read(n)
	}
	if err != nil && !errors.Is(err, io.EOF) && a.ended.Load() {
		err = ErrUnread
	}
	return n, err
}

// Close implements io.Closer. What is unread of the answer is gone with it.
func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	if a.left.CompareAndSwap(false, true) {
		a.conn.wire.pool.answers.Delete(a)
		a.conn.done()
	}
	return err
}

// Ended is how many answers have ended for want of room.
func (p *Pool) Ended() uint64 { return p.ended.Load() }

// given wakes one of those who wait for room.
func (p *Pool) given() {
	if p.waiting.Load() > 0 {
		select {
		case p.room <- struct{}{}:
		default: // somebody is woken already
		}
	}
}

// relieve ends the answer that nobody has read on for the longest, if that is long. Its
// memory comes back in a moment.
func (p *Pool) relieve() {
	if !p.relieving.TryLock() {
		return // somebody does
	}
	defer p.relieving.Unlock()
	var longest *answer
	since := p.now() - int64(p.cfg.Patience)
	p.answers.Range(func(k, _ any) bool {
		if a := k.(*answer); a.since.Load() <= since && !a.ended.Load() {
			longest, since = a, a.since.Load()
		}
		return true
	})
	if longest != nil {
		longest.ended.Store(true)
		p.ended.Add(1)
		go func() { _ = longest.Close() }() // it may wait for the connection
	}
}
