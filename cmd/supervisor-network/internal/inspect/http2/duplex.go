package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Duplex is the stream of an extended CONNECT that was accepted: what its DATA frames
// carry, as a net.Conn. It ends with its handler. The library cannot end the server's
// direction of a stream alone, so the end of writing is that of reading, too, after a
// moment in which the client may end in an orderly way.
//
// A WebSocket loses nothing by that. A client that ends its own direction first is read
// to its end, which the origin is told, and what the origin says behind it still arrives.
// The other way round a server ends its direction behind its close frame, and has to read
// nothing then but the answer to it (RFC 6455 sections 5.5.1 and 7.1.1), for which there is
// the moment; a server that ends without a close frame has failed the WebSocket.
//
// One goroutine reads and one writes; deadlines and Close are for any. Who uses it ends
// it, in words of its own, when nothing moves for Options.StreamIdle; the stream itself
// ends only after twice that.
type Duplex struct {
	s *Stream

	mu     sync.Mutex
	closed bool
	ending bool      // CloseWrite was called
	read   time.Time // deadline; zero: none
	write  time.Time // deadline; zero: none
	timer  *time.Timer
}

var _ net.Conn = (*Duplex)(nil)

// Accept answers an extended CONNECT with 200, which opens what it asked for, and with
// the fields of h that go to clients.
func (s *Stream) Accept(h http.Header) (*Duplex, error) {
	if s.Protocol == "" || s.answered {
		return nil, errors.New("BUG: nothing to accept")
	}
	s.answered = true
	out := s.w.Header()
	copyFields(out, h)
	delete(out, "Content-Length")
	bare(out)
	s.w.WriteHeader(http.StatusOK)
	if _, err := s.watch.write(s.ctx, s.w, nil); err != nil {
		s.reset = true
		return nil, err
	}
	s.watch.postpone()
	s.opened = &Duplex{s: s}
	return s.opened, nil
}

// Read implements io.Reader. Behind CloseWrite a client that does not end is at its
// end.
func (d *Duplex) Read(p []byte) (int, error) {
	if err := d.readable(); err != nil {
		return 0, err
	}
	n, err := d.s.r.Body.Read(p)
	if n > 0 {
		d.s.watch.moved()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.ending {
			err = io.EOF
		}
	}
	return n, err
}

func (d *Duplex) readable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return net.ErrClosed
	case !passed(d.read):
		return nil
	case d.ending:
		return io.EOF
	default:
		return os.ErrDeadlineExceeded // what the library holds still is not read any more
	}
}

// Write implements io.Writer; it returns when the client's window took all of p. A
// write that is not over at its deadline resets the stream. The end of the stream's
// context ends none: a WebSocket is still to be told of it.
func (d *Duplex) Write(p []byte) (int, error) {
	if err := d.writable(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := d.s.pass(context.WithoutCancel(d.s.ctx), p, false); err != nil {
		if d.late() {
			err = os.ErrDeadlineExceeded
		}
		return 0, err
	}
	return len(p), nil
}

func (d *Duplex) writable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed || d.ending:
		return net.ErrClosed
	case passed(d.write):
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// late reports whether the time to write is over.
func (d *Duplex) late() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return passed(d.write)
}

func passed(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// SetReadDeadline implements net.Conn. A deadline that has passed while a read waited
// is the last one.
func (d *Duplex) SetReadDeadline(at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ending {
		return nil // it has its last one
	}
	return d.setRead(at)
}

func (d *Duplex) setRead(at time.Time) error {
	if d.closed {
		return net.ErrClosed
	}
	d.read = at
	return d.s.watch.control.SetReadDeadline(at)
}

// SetWriteDeadline implements net.Conn. The library's own would reset a stream on which
// nobody writes, so this one is about a write that waits.
func (d *Duplex) SetWriteDeadline(at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	d.write = at
	wait := time.Until(at)
	switch {
	case at.IsZero() && d.timer != nil:
		d.timer.Stop()
	case at.IsZero():
	case d.timer == nil:
		d.timer = time.AfterFunc(wait, d.interrupt)
	default:
		d.timer.Reset(wait)
	}
	return nil
}

// interrupt ends a write that is late. One that has just begun by a later deadline
// is not.
func (d *Duplex) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed && passed(d.write) {
		d.s.watch.interrupt()
	}
}

// SetDeadline implements net.Conn.
func (d *Duplex) SetDeadline(at time.Time) error {
	return errors.Join(d.SetReadDeadline(at), d.SetWriteDeadline(at))
}

// CloseWrite says that nothing more is written.
func (d *Duplex) CloseWrite() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	if d.ending {
		return nil
	}
	d.ending = true
	if last := time.Now().Add(drainTime); d.read.IsZero() || last.Before(d.read) {
		return d.setRead(last)
	}
	return nil
}

// Close implements net.Conn. The stream ends when its handler returns.
func (d *Duplex) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed = true; d.timer != nil {
		d.timer.Stop()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (d *Duplex) LocalAddr() net.Addr { return d.s.server.meter.LocalAddr() }

// RemoteAddr implements net.Conn.
func (d *Duplex) RemoteAddr() net.Addr { return d.s.server.meter.RemoteAddr() }
