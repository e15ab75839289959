package h2

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// Limits of what is kept of bodies, so that they can be sent again: that of one request,
// and that of all together.
const (
	maxBegun  = 16 << 10
	maxBegins = 4 << 20
)

// body is a request's, whose beginning is kept until the request is answered. Reads of it
// follow each other, also those of one attempt and the next.
type body struct {
	io.ReadCloser
	pool *Pool
	keep int // at most

	mu       sync.Mutex
	begun    []byte // what was read of it
	end      error  // what it ended with
	at       int    // how much of begun this attempt has read
	lost     bool   // more was read, or nothing more can be
	reading  bool
	closed   bool // by this attempt
	answered bool // or given up: there is no other attempt
}

// keepBody makes the body of a request one that can be sent again; nil: it has none.
func (p *Pool) keepBody(r *http.Request) *body {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	b := &body{ReadCloser: r.Body, pool: p, keep: maxBegun}
	if r.ContentLength > maxBegun {
		b.keep = 0 // but nothing may have been read of it
	}
	r.Body = b
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if n, done, err := b.kept(p); done {
		return n, err
	}
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading, b.end = false, err
	b.note(p[:n])
	return n, err
}

// kept reads what an attempt before this one has read.
func (b *body) kept(p []byte) (n int, done bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, true, http.ErrBodyReadAfterClose
	case b.at < len(b.begun):
		n = copy(p, b.begun[b.at:])
		b.at += n
		return n, true, nil
	case b.end != nil:
		return 0, true, b.end
	default:
		b.reading = true
		return 0, false, nil
	}
}

// note keeps what was read, while there is room for it. The caller holds mu.
func (b *body) note(p []byte) {
	switch {
	case b.answered || b.lost:
	case len(b.begun)+len(p) > b.keep || !b.pool.keepMore(len(p)):
		b.pool.begins.Add(-int64(len(b.begun)))
		b.begun, b.at, b.lost = nil, 0, true
	default:
		b.begun = append(b.begun, p...)
		b.at = len(b.begun)
	}
}

// keepMore takes n bytes of what is kept of all bodies.
func (p *Pool) keepMore(n int) bool {
	if p.begins.Add(int64(n)) > maxBegins {
		p.begins.Add(-int64(n))
		return false
	}
	return true
}

// Close ends an attempt. A read that waits has to end with it, so it ends the body.
func (b *body) Close() error {
	b.mu.Lock()
	b.closed = true
	over := b.reading || b.answered
	b.lost = b.lost || over
	b.mu.Unlock()
	if over {
		return b.ReadCloser.Close()
	}
	return nil
}

// again makes the body ready for another attempt, if it can be.
func (b *body) again() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost {
		return false
	}
	b.at, b.closed = 0, false
	return true
}

// settle is called when there will be no other attempt.
func (b *body) settle() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.answered = true
	b.pool.begins.Add(-int64(len(b.begun)))
	if b.at == len(b.begun) {
		b.begun, b.at = nil, 0
	} // else the answer came before the origin had all of it
	over := b.closed
	b.mu.Unlock()
	if over {
		_ = b.ReadCloser.Close()
	}
}

// undone reports whether an error says that the origin did nothing: the stream was refused,
// is above the last one of a connection that goes away, or was never begun (RFC 9113
// sections 6.8 and 8.7).
func undone(err error) bool {
	if refused, ok := errors.AsType[streamError](err); ok {
		return refused.Code == refusedStream
	}
	switch err.Error() { // net/http has no better names for them
	case "http2: Transport received Server's graceful shutdown GOAWAY", "http2: client conn not usable":
		return true
	default:
		return false
	}
}

// refusedStream says that nothing was done (RFC 9113 section 8.7).
const refusedStream = 7
