package websocket

import (
	"errors"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// downward relays the server's frames until there are no more.
func (x *running) downward() error {
	defer x.finished(&x.mute)
	relay := x.relayDown
	if x.Clean != nil {
		relay = x.relayCleaned
	}
	err := relay()
	bad, ok := errors.AsType[*CloseError](err)
	failed, isWrite := errors.AsType[writeError](err)
	switch {
	case err == errClosed:
		x.client.clock.hurry()
		return nil
	case ok:
		x.end(&CloseError{Code: bad.Code, Reason: core.ReasonUpstreamInvalid, Detail: "the server: " + bad.Detail}, bad.Code, false)
		x.upstream.drain()
		return nil
	case err == errQuiet:
		return nil
	case isWrite && timedOut(failed):
		x.end(&CloseError{Code: CodeGoingAway, Reason: core.ReasonClientClosed, Detail: "the client does not read"}, CodeGoingAway, false)
		x.upstream.drain()
		return nil
	case isWrite: // the client is gone; what it said before still reaches the server
		x.client.clock.hurry()
		x.client.clock.finish(halfWait)
		x.upstream.drain()
	default: // the server went away without a word, and so do we
		x.hangUp(&x.toClient)
		x.client.clock.hurry()
	}
	if orderly(err) {
		return nil
	}
	return err
}

// walk is the state of the server's frames.
type walk struct {
	order order
	left  int64 // of the payload under way
	last  bool  // it ends a message
}

// relayDown sends on what it has read and checked, many frames at once and without a
// change. When the client gets nothing any more it goes on, to find the close frame.
func (x *running) relayDown() error {
	w := walk{order: order{deflate: x.Deflate}}
	for {
		s := x.scan(&w)
		if s.done > 0 || s.end {
			if err := x.deliver(&w, s); err != nil {
				return err
			}
		}
		if s.err != nil {
			return s.err
		}
		if err := x.upstream.fill(s.need, w.left > 0, time.Time{}); err != nil {
			return err
		}
	}
}

// scanned is what the window holds.
type scanned struct {
	done  int  // bytes that may be sent
	first int  // offset behind the first frame that ends in them, or -1
	need  int  // bytes behind done to go on
	end   bool // they end with a close frame
	code  Code // of it
	err   error
}

func (x *running) scan(w *walk) scanned {
	b := x.upstream.window()
	s := scanned{first: -1}
	for {
		if n := min(w.left, int64(len(b)-s.done)); w.left > 0 {
			s.done += int(n)
			if w.left -= n; w.left > 0 {
				s.need = 1
				return s
			}
			x.frameEnd(w, &s)
		}
		rest := b[s.done:]
		if s.need = 2; len(rest) < s.need {
			return s
		}
		if s.need = headerSize(rest[0], rest[1]); len(rest) < s.need {
			return s
		}
		h, err := parseHeader(rest)
		if err == nil {
			err = w.order.check(&h)
		}
		if err != nil {
			s.err = err
			return s
		}
		if h.op == opClose {
			if s.need += int(h.length); len(rest) >= s.need {
				s.code, s.err = readClose(rest[h.size:s.need])
				s.end = s.err == nil
			}
			return s
		}
		s.done += h.size
		w.left, w.last = h.length, h.fin && !h.control()
		if w.left == 0 {
			x.frameEnd(w, &s)
		}
	}
}

func (x *running) frameEnd(w *walk, s *scanned) {
	if s.first < 0 {
		s.first = s.done
	}
	if w.last {
		x.down.messages.Add(1)
	}
}

// deliver sends what was scanned. It fails with errClosed behind a close frame.
func (x *running) deliver(w *walk, s scanned) error {
	p := x.upstream.window()[:s.done]
	x.upstream.take(s.done)
	err := error(nil)
	if s.done > 0 {
		err = x.sendDown(p, s.first, w.left == 0)
	}
	if !s.end {
		return err
	}
	return x.sendClose(s.need, s.code, err)
}

// sendClose hands on the close frame that stands in the window, unless an error says
// that nothing can be. It fails with errClosed.
func (x *running) sendClose(size int, code Code, err error) error {
	p := x.upstream.window()[:size]
	x.upstream.take(size)
	x.closed(code)
	if err == nil && x.cause.Load() == nil { // else it answers our own, and the client gets the reason from us
		x.down.bytes.Add(int64(len(p)))
		err = x.toClient.writeLast(p)
	}
	if err != nil && err != errOver {
		return writeError{err}
	}
	return errClosed
}

func (x *running) sendDown(p []byte, first int, whole bool) error {
	err := x.toClient.write(p, first, whole)
	switch {
	case err == nil:
		x.down.bytes.Add(int64(len(p)))
		return nil
	case err == errOver:
		return nil
	default:
		return writeError{err}
	}
}
