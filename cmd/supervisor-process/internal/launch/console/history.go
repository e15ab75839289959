package console

import (
	"bytes"
	"context"
	"sync"
)

// Stream is where a program wrote.
type Stream uint8

// The streams. A terminal has the first only.
const (
	Output Stream = iota
	Errors
)

type piece struct {
	stream Stream
	data   []byte // grows up to maxPiece; what is there never changes
}

// history is the newest output. The zero value is ready to use.
type history struct {
	mu      sync.Mutex
	pieces  []piece       // guarded by mu
	first   uint64        // guarded by mu; the number of pieces[0]
	size    int           // guarded by mu
	changed chan struct{} // guarded by mu; closed at the next change, nil when nobody waits
}

// add appends output.
func (h *history) add(s Stream, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(data) > 0 {
		if n := len(h.pieces); n == 0 || h.pieces[n-1].stream != s || len(h.pieces[n-1].data) == maxPiece {
			h.pieces = append(h.pieces, piece{stream: s})
		}
		last := &h.pieces[len(h.pieces)-1]
		n := min(len(data), maxPiece-len(last.data))
		last.data = append(last.data, data[:n]...)
		data = data[n:]
		h.size += n
		for h.size > maxKept || len(h.pieces) > maxPieces {
			h.size -= len(h.pieces[0].data)
			h.pieces[0].data = nil
			h.pieces = h.pieces[1:]
			h.first++
		}
	}
	h.wake()
}

func (h *history) wake() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// cursor is how far one viewer has seen.
type cursor struct {
	piece  uint64
	offset int
}

// start is where a new viewer begins: with the oldest output, from the start of a
// line when there was more before.
func (h *history) start() cursor {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := cursor{piece: h.first}
	if h.first > 0 && len(h.pieces) > 0 {
		c.offset = bytes.IndexByte(h.pieces[0].data, '\n') + 1
	}
	return c
}

// next waits for output behind the cursor. Data stays valid. lost is true when it
// has gone already; ended, when end is closed, which is after the last output, and
// there is no more, or the context has ended.
func (h *history) next(ctx context.Context, c *cursor, end <-chan struct{}) (s Stream, data []byte, lost, ended bool) {
	for {
		h.mu.Lock()
		if c.piece < h.first {
			h.mu.Unlock()
			return 0, nil, true, false
		}
		if i := int(c.piece - h.first); i < len(h.pieces) {
			p := h.pieces[i]
			if c.offset < len(p.data) {
				data = p.data[c.offset:]
				c.offset = len(p.data)
				h.mu.Unlock()
				return p.stream, data, false, false
			}
			if i+1 < len(h.pieces) {
				*c = cursor{piece: c.piece + 1}
				h.mu.Unlock()
				continue
			}
		}
		select {
		case <-end:
			h.mu.Unlock()
			return 0, nil, false, true
		default:
		}
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return 0, nil, false, true
		case <-changed:
		case <-end: // what was written before is shown first
		}
	}
}
