// Package hold bounds what all requests together hold of bodies, which rules, credentials
// and signatures need whole.
//
// It answers the threat of a workload that has this daemon hold more than there is memory
// for, by many bodies, by lengths that are only stated, or by what a short body says: what
// is held grows with what has come, and for one too many there is an answer and no room. It
// does not answer one request that may be as large as the policy lets it.
//
// Invariant: whoever takes room gives it back; nobody waits for any.
package hold

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/pkg/core"
)

// Max bounds the bodies, in bytes of all requests together, that are read whole because
// rules are about them, credentials go into them or a signature covers them, and the
// messages of WebSockets, which always are. Where there is little memory it
// is a quarter of that.
const Max = 256 << 20

// firstPiece is the memory for a body of which nothing has come: who only says that
// much will follow gets no more.
const firstPiece = 4 << 10

// unhurried is the length from which a body waits for its turn to be taken apart, for
// which some need two hundred times their length for a moment.
const unhurried = 4 << 10

// Bodies is what all requests together hold of bodies. Nobody waits for room in it: a
// request that finds none is refused and gives back what it had. A second one is for what
// is unread of answers, where it is the origin that waits. Safe for concurrent use.
type Bodies struct {
	limit   int64
	held    atomic.Int64
	refused atomic.Uint64 // requests and messages that found no room
	turns   chan struct{} // a place for each body that is taken apart
}

// New makes Bodies with room for limit bytes.
func New(limit int64) *Bodies {
	return &Bodies{limit: limit, turns: make(chan struct{}, 2*min(runtime.NumCPU(), runtime.GOMAXPROCS(0)))}
}

// Take adds n to what is held, if there is room.
func (b *Bodies) Take(n int64) bool {
	if b.take(n, b.limit) {
		return true
	}
	b.refused.Add(1)
	return false
}

// Held is how many bytes are held.
func (b *Bodies) Held() int64 { return b.held.Load() }

// Limit is how many bytes may be.
func (b *Bodies) Limit() int64 { return b.limit }

// Refused is how many requests and messages found no room.
func (b *Bodies) Refused() uint64 { return b.refused.Load() }

// Give takes n off what is held.
func (b *Bodies) Give(n int64) { b.held.Add(-n) }

// take adds n to what is held, unless that would be more than most.
func (b *Bodies) take(n, most int64) bool {
	if b == nil {
		return false
	}
	if b.held.Add(n) > most {
		b.held.Add(-n)
		return false
	}
	return true
}

// Turn waits for a place to take a body apart; the work behind it is short.
func (b *Bodies) Turn(length int) (leave func()) {
	if b == nil || length <= unhurried {
		return func() {}
	}
	b.turns <- struct{}{}
	return func() { <-b.turns }
}

// ErrCrowded is a body for which there is no room now.
var ErrCrowded = &http1.SyntaxError{Status: 503, Reason: core.ReasonTooManyBodies,
	Detail: "too many request bodies are held at this moment to be read as a whole; try again"}

// Holding is one request's part of bodies. It belongs to the request, which releases it
// when it is over.
type Holding struct {
	Of *Bodies // nil: there is no room
	n  int64
}

// Body is the body of one request, as far as it was read.
type Body struct {
	Held    Holding
	Content []byte // all of it, once it was read
	Read    bool
	// Original is Content before credentials went in, in case that they have to go in anew;
	// nil: none did.
	Original []byte
	// Unhurried says that it is read ahead of its turn only: its client has as long as for
	// one that streams.
	Unhurried bool
}

// UpTo makes the part n bytes large, if it is smaller. For a request that finds no room
// it is called no more.
func (h *Holding) UpTo(n int64) bool {
	if n <= h.n {
		return true
	}
	if h.Of == nil {
		return false
	}
	if !h.Of.Take(n - h.n) {
		return false
	}
	h.n = n
	return true
}

// Spare makes the part n bytes large for a body that need not be held: only as long as
// there is much room.
func (h *Holding) Spare(n int64) bool {
	if h.Of == nil || n > h.n && !h.Of.take(n-h.n, h.Of.limit/2) {
		return false
	}
	h.n = max(h.n, n)
	return true
}

// Release gives the part back.
func (h *Holding) Release() {
	if h.n > 0 {
		h.Of.Give(h.n)
		h.n = 0
	}
}

// Forget gives the content back, once nobody has any use for it.
func (b *Body) Forget() {
	if n := int64(cap(b.Content)); n > 0 {
		b.Held.n -= n
		b.Held.Of.Give(n)
	}
	b.Content = nil
}

// Read reads a body to its end, which comes after at most limit bytes. What is held for
// it grows with what has come, not with what it says of itself; length is that, -1 when
// it says nothing.
func (h *Holding) Read(r io.Reader, length int64, limit int) ([]byte, error) {
	if length > int64(limit) {
		return nil, inspect.TooLarge(limit)
	}
	most := int64(limit)
	if length >= 0 {
		most = length
	}
	var data []byte
	for {
		if len(data) == cap(data) {
			size := min(max(2*int64(cap(data)), firstPiece), most+1) // one more, to meet the end in
			if !h.UpTo(size) {
				return nil, ErrCrowded
			}
			data = append(make([]byte, 0, size), data...)
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > most:
			return nil, inspect.TooLarge(limit)
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

// Weigh counts what a request says, beside its body: rules ask for it again until the
// request is over.
func (h *Holding) Weigh(content []byte, r *decide.Request) bool {
	const text, entry = 16, 64 // what a text, and one in a map, takes beside its bytes
	n := int64(cap(content))
	if r.Operations != nil || r.Calls != nil {
		n += int64(len(content)) // the copy that they are parts of
	}
	for _, o := range r.Operations {
		n += entry + text*int64(len(o.Fields))
	}
	for _, c := range r.Calls {
		n += 2*entry + text*int64(len(c.Names)) + 2*entry*int64(len(c.Params))
	}
	return h.UpTo(n)
}
