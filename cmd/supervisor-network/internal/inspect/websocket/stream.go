package websocket

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// Stream is one side of a session: a net.Conn, or an HTTP/2 stream with deadlines. Its
// reads and writes fail with os.ErrDeadlineExceeded when a deadline passes; deadlines
// may be set while they wait. One that also has CloseWrite is half-closed where the
// other side has ended without a close frame.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

var (
	// errOver is a write to a side that gets nothing any more.
	errOver = errors.New("the side has been closed")
	// errQuiet is the end of waiting for a side that has nothing more to say.
	errQuiet = errors.New("the side did not finish in time")
)

// clock sets the deadlines of one half of a stream. Once it is finished nothing
// extends the last one.
type clock struct {
	set func(time.Time) error

	mu    sync.Mutex
	armed bool // a deadline is set
	half  bool // the other direction has ended
	final bool
}

// arm sets the deadline of the next read or write; zero is none.
func (c *clock) arm(wait time.Duration, until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.half && (wait == 0 || wait > halfWait) {
		wait = halfWait
	}
	switch {
	case c.final, wait == 0 && !c.armed:
		return nil
	case wait == 0:
		c.armed = false
		return c.set(time.Time{})
	}
	at := time.Now().Add(wait)
	if !until.IsZero() && until.Before(at) {
		at = until
	}
	c.armed = true
	return c.set(at)
}

// hurry bounds how long the half may be quiet from now on.
func (c *clock) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.half = true; !c.final {
		c.armed = true
		_ = c.set(time.Now().Add(halfWait)) // a stream that is gone needs none
	}
}

// finish sets the last deadline.
func (c *clock) finish(wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.final {
		c.final = true
		_ = c.set(time.Now().Add(wait))
	}
}

// ending reports whether a passed deadline is the expected end.
func (c *clock) ending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.final || c.half
}

// Buffers of a source.
const (
	smallBytes = 512      // always there; a message that fits needs nothing else
	bigBytes   = 32 << 10 // from a pool, while there is more to read
)

var bigBuffers = sync.Pool{New: func() any { b := make([]byte, bigBytes); return &b }}

// source reads one side. While it waits for a frame it holds only its small buffer.
type source struct {
	stream Stream
	clock  clock
	wait   time.Duration // between two reads inside a frame; zero is no limit

	buf   []byte // one of small, big and what came with the handshake
	r, w  int    // what is read and not taken is buf[r:w]
	full  bool   // the last read filled buf
	big   *[]byte
	small [smallBytes]byte
}

func (s *source) init(stream Stream, early []byte, wait time.Duration) {
	s.stream, s.wait = stream, wait
	s.clock.set = stream.SetReadDeadline
	s.buf, s.w = early, len(early)
}

// window is what is read and not taken. It is valid until the next fill.
func (s *source) window() []byte { return s.buf[s.r:s.w] }

func (s *source) take(n int) { s.r += n }

// fill reads until the window has need bytes, at most bigBytes. Within says that a
// frame or message has begun; until is when it has to be complete. It fails with
// io.EOF only when nothing has begun, and with a *CloseError when it takes too long.
func (s *source) fill(need int, within bool, until time.Time) error {
	for s.w-s.r < need {
		begun := within || s.w > s.r
		s.room(need, begun)
		wait := s.wait
		if !begun {
			wait = 0
		}
		if err := s.clock.arm(wait, until); err != nil {
			return err
		}
		n, err := s.stream.Read(s.buf[s.w:])
		s.w += n
		s.full = s.w == len(s.buf)
		if err != nil && s.w-s.r < need {
			return s.failed(err, within || s.w > s.r)
		}
	}
	return nil
}

func (s *source) failed(err error, begun bool) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && s.clock.ending():
		return errQuiet
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlow
	case errors.Is(err, io.EOF) && begun:
		return io.ErrUnexpectedEOF
	default:
		return err
	}
}

// room makes place for need bytes behind buf[:r].
func (s *source) room(need int, begun bool) {
	if s.r == s.w {
		s.r, s.w = 0, 0
		if !begun {
			s.release()
		}
	}
	switch {
	case s.big == nil && (s.full || need > len(s.buf)):
		s.full = false
		s.big = bigBuffers.Get().(*[]byte)
		s.w = copy(*s.big, s.buf[s.r:s.w])
		s.buf, s.r = *s.big, 0
	case s.w == len(s.buf) || need > len(s.buf)-s.r:
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
}

// release gives the big buffer back.
func (s *source) release() {
	if s.big != nil {
		bigBuffers.Put(s.big)
	}
	s.big, s.buf, s.r, s.w = nil, s.small[:], 0, 0
}

// header reads the next header and leaves it in the window.
func (s *source) header(within bool, until time.Time) (header, error) {
	if err := s.fill(2, within, until); err != nil {
		return header{}, err
	}
	b := s.window()
	if err := s.fill(headerSize(b[0], b[1]), true, until); err != nil {
		return header{}, err
	}
	return parseHeader(s.window())
}

// drain reads on for a moment and drops it, so that what was written to the side is
// not lost to a reset.
func (s *source) drain() {
	s.clock.finish(lingerWait)
	s.release()
	b := bigBuffers.Get().(*[]byte)
	defer bigBuffers.Put(b)
	for {
		if _, err := s.stream.Read(*b); err != nil {
			return
		}
	}
}
