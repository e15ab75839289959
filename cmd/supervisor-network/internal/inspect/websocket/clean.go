package websocket

import "time"

// cleaning is the state of a server's frames whose messages are cleaned.
type cleaning struct {
	order  order
	op     opcode // of the message under way
	opaque bool   // it is compressed, and passes as it is
	begun  bool   // the client has a frame of it
}

// relayCleaned is relayDown with Clean between the server's messages and the client. A
// frame that fits the buffer is cleaned whole, a longer one as it comes: what is held
// does not grow with the message.
func (x *running) relayCleaned() error {
	c := &cleaning{order: order{deflate: x.Deflate}}
	for {
		h, err := x.upstream.header(false, time.Time{})
		if err == nil {
			err = c.order.check(&h)
		}
		if err == nil {
			err = x.cleanFrame(c, h)
		}
		if err != nil {
			return err
		}
	}
}

// cleanFrame takes the frame whose header stands in the window.
func (x *running) cleanFrame(c *cleaning, h header) error {
	if h.op == opClose {
		size := h.size + int(h.length)
		if err := x.upstream.fill(size, true, time.Time{}); err != nil {
			return err
		}
		code, err := readClose(x.upstream.window()[h.size:size])
		if err != nil {
			return err
		}
		return x.sendClose(size, code, nil)
	}
	if h.control() {
		return x.passFrame(h)
	}
	if h.op != opContinuation {
		c.op, c.opaque, c.begun = h.op, h.deflate, false
	}
	if c.opaque {
		err := x.passFrame(h)
		if h.fin && err == nil {
			x.down.messages.Add(1)
		}
		return err
	}
	x.upstream.take(h.size)
	for left := h.length; ; {
		if err := x.upstream.fill(int(min(left, bigBytes)), true, time.Time{}); err != nil {
			return err
		}
		b := x.upstream.window()
		p := b[:min(left, int64(len(b)))]
		left -= int64(len(p))
		out := x.Clean(p, c.op == opText, left == 0 && h.fin)
		x.upstream.take(len(p))
		if err := x.sendCleaned(c, out, left == 0 && h.fin); err != nil || left == 0 {
			return err
		}
	}
}

// passFrame hands on the frame whose header stands in the window, as it comes.
func (x *running) passFrame(h header) error {
	for left := int64(h.size) + h.length; ; {
		b := x.upstream.window()
		p := b[:min(left, int64(len(b)))]
		left -= int64(len(p))
		x.upstream.take(len(p))
		first := -1
		if left == 0 {
			first = len(p)
		}
		if err := x.sendDown(p, first, left == 0); err != nil || left == 0 {
			return err
		}
		if err := x.upstream.fill(1, true, time.Time{}); err != nil {
			return err
		}
	}
}

// sendCleaned sends a part of a message as a frame of its own.
func (x *running) sendCleaned(c *cleaning, p []byte, last bool) error {
	if len(p) == 0 && !last {
		return nil
	}
	first := byte(opContinuation)
	if !c.begun {
		first = byte(c.op)
	}
	if c.begun = true; last {
		first |= bitFin
		x.down.messages.Add(1)
	}
	b := buffer()
	defer recycle(b)
	*b = append(*b, p...)
	frame := (*b)[putHeader(*b, first, len(p), nil):]
	return x.sendDown(frame, len(frame), true)
}
