package h2

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// unreturned is what net/http returns to an origin with the next piece only.
const unreturned = 4 << 10

// How often room is made where none is given back, how long it is waited for, and how
// long a connection has to say farewell.
const (
	makeRoom    = 20 * time.Millisecond
	waitForRoom = 20 * time.Second
	farewell    = 250 * time.Millisecond
)

// errOverrun is an origin that sends what it has no leave to.
var errOverrun = errors.New("the origin sent more than the window of its connection")

// wire is a connection to an origin that knows what came on it and was not taken yet:
// what both sides count for flow control, DATA that came without the window updates
// that went (RFC 9113 section 5.2). It takes that of the pool's budget before anybody
// gets to see it; its reader waits where there is no room.
type wire struct {
	*tls.Conn
	pool    *Pool
	in, out walker // each for one goroutine at a time
	ended   chan struct{}
	look    func()      // called when there are new settings
	settled atomic.Bool // the origin's first settings are known
	left    func()      // called when the origin goes away
	leaving atomic.Bool // the origin takes no more requests on this connection
	unheard bool        // Read's: there are settings that net/http may not have seen yet

	mu       sync.Mutex
	closed   bool  // nothing is returned any more
	requests int   // that are under way, their answers included
	unread   int64 // in bytes
	taken    int64 // of the budget
}

func newWire(conn *tls.Conn, p *Pool) *wire {
	return &wire{Conn: conn, pool: p, out: walker{skip: len(preface)}, ended: make(chan struct{})}
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.unheard && (w.in.skip == 0 || w.in.kind() != typeSettings) { // who reads on has read what came
		w.unheard = false
		w.settled.Store(true)
		w.look()
	}
	n, err := w.Conn.Read(p)
	came := 0
	for b, seen := p[:n], false; len(b) > 0; {
		if b, seen = w.in.next(b); !seen {
			continue
		}
		switch w.in.kind() {
		case typeData:
			came += w.in.length()
		case typeSettings:
			w.unheard = w.unheard || w.in.flags()&ack == 0
		case typeGoAway:
			w.leaving.Store(true)
			w.left()
		}
	}
	if came > 0 {
		if full := w.receive(int64(came)); full != nil {
			return 0, full
		}
	}
	return n, err
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	for b, seen := p, false; len(b) > 0; {
		if b, seen = w.out.next(b); seen && w.out.kind() == typeWindowUpdate && w.out.stream() == 0 {
			w.returned(int64(w.out.increment()))
		}
	}
	return w.Conn.Write(p)
}

// receive returns when there is room for n bytes more.
func (w *wire) receive(n int64) error {
	w.mu.Lock()
	if w.closed && w.requests == 0 { // nobody would give it back
		w.mu.Unlock()
		return net.ErrClosed
	}
	w.unread += n
	overrun := w.unread > connectionWindow+1<<16
	room := w.settle()
	w.mu.Unlock()
	switch {
	case overrun:
		return errOverrun
	case room:
		return nil
	default:
		return w.awaitRoom()
	}
}

func (w *wire) awaitRoom() error {
	p := w.pool
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	tick := time.NewTicker(makeRoom)
	defer tick.Stop()
	for end := time.Now().Add(waitForRoom); time.Now().Before(end); {
		w.mu.Lock()
		room := w.settle()
		w.mu.Unlock()
		if room {
			p.given() // there may be more of it
			return nil
		}
		select {
		case <-p.room:
		case <-tick.C:
			p.relieve()
		case <-w.ended:
			return net.ErrClosed
		}
	}
	return ErrCrowded
}

// settle makes what is taken what is unread, if there is room for it. The caller holds
// mu.
func (w *wire) settle() bool {
	budget := w.pool.cfg.Unread
	if budget == nil {
		return true
	}
	n := max(w.unread-unreturned, 0)
	switch {
	case n > w.taken && !budget.Take(n-w.taken):
		return false
	case n < w.taken:
		budget.Give(w.taken - n)
		w.pool.given()
	}
	w.taken = n
	return true
}

// returned is told of every window update of the connection. The first one, which makes
// its window as wide as it is, goes before anything comes.
func (w *wire) returned(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.less(n)
	}
}

func (w *wire) less(n int64) {
	w.unread = max(w.unread-n, 0)
	w.settle()
}

// over reports whether the connection has ended.
func (w *wire) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// read is told what was read of an answer when the connection had ended: nothing is
// returned then.
func (w *wire) read(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.less(int64(n))
}

// enter begins a request.
func (w *wire) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
}

// leave ends a request, and what is left of its answer. Without any, nothing is unread,
// whatever came that belonged to none.
func (w *wire) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.requests--; w.requests == 0 {
		w.less(w.unread)
	}
}

// Close implements net.Conn. What came on it may be read still.
func (w *wire) Close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.ended)
	}
	if w.requests == 0 {
		w.less(w.unread)
	}
	w.mu.Unlock()
	late := time.AfterFunc(farewell, func() { _ = w.NetConn().Close() })
	defer late.Stop()
	return w.Conn.Close()
}

// preface is what a client begins with (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frames that are told apart (RFC 9113 section 6), and sizes (section 4.1).
const (
	typeData         = 0x0
	typeSettings     = 0x4
	typeGoAway       = 0x7
	typeWindowUpdate = 0x8
	ack              = 0x1
	frameHead        = 9
	incrementSize    = 4
)

// walker goes over the frames of one direction.
type walker struct {
	skip int // bytes until the next frame begins
	have int
	head [frameHead + incrementSize]byte
}

// next goes over one frame's head, and the increment behind it if it has one. seen says
// that it is whole and may be looked at until the next call.
func (f *walker) next(b []byte) (rest []byte, seen bool) {
	n := min(f.skip, len(b))
	f.skip -= n
	for b = b[n:]; len(b) > 0; {
		n := copy(f.head[f.have:f.size()], b)
		f.have += n
		b = b[n:]
		if f.have == f.size() {
			f.skip = max(f.length()-(f.have-frameHead), 0)
			f.have = 0
			return b, true
		}
	}
	return nil, false
}

// size is how much is looked at of the frame that begins in head.
func (f *walker) size() int {
	if f.have >= frameHead && f.kind() == typeWindowUpdate && f.length() == incrementSize {
		return frameHead + incrementSize
	}
	return frameHead
}

func (f *walker) length() int       { return int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2]) }
func (f *walker) kind() byte        { return f.head[3] }
func (f *walker) flags() byte       { return f.head[4] }
func (f *walker) stream() uint32    { return binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1) }
func (f *walker) increment() uint32 { return binary.BigEndian.Uint32(f.head[frameHead:]) & (1<<31 - 1) }
