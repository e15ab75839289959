package websocket

import (
	"compress/flate"
	"io"
	"sync"
	"time"
)

// message reads the payloads of the client's text message that is under way, across
// its fragments, unmasked. Control frames in between are handled on the way.
type message struct {
	x      *running
	h      header // of the frame under way
	left   int    // of its payload
	offset int    // in its payload
	frames int
	size   int // of all payloads so far, the frame's own included
	taking taking
	until  time.Time // when the message has to be complete
	chunk  []byte    // unmasked and not read; valid until the next one
	tail   int       // how much of deflateTail is read
	err    error     // of next, once it failed
}

// start begins with the frame whose header stands in the window.
func (m *message) start(h header, until time.Time) error {
	*m = message{x: m.x, until: until, taking: taking{of: m.x.Assemblies.budget}}
	return m.begin(h)
}

func (m *message) begin(h header) error {
	if m.frames++; m.frames > MaxFragments {
		return errFrames
	}
	if h.length > int64(MaxText-m.size) {
		return errTooBig
	}
	m.h, m.left, m.offset = h, int(h.length), 0
	m.size += m.left
	m.x.client.take(h.size)
	return nil
}

// next reads the next piece of payload. It fails with io.EOF behind the message.
func (m *message) next() ([]byte, error) {
	if m.err == nil && m.left == 0 {
		m.err = m.advance()
	}
	src := &m.x.client
	if m.err == nil {
		m.err = src.fill(1, true, m.until)
	}
	if m.err != nil {
		return nil, m.err
	}
	b := src.window()
	p := b[:min(m.left, len(b))]
	cipher(p, m.h.mask, m.offset)
	m.left, m.offset = m.left-len(p), m.offset+len(p)
	src.take(len(p))
	return p, nil
}

// advance goes to the next frame of the message that has a payload.
func (m *message) advance() error {
	for m.left == 0 {
		if m.h.fin {
			return io.EOF
		}
		h, err := m.x.client.header(true, m.until)
		if err == nil {
			err = m.x.order.check(&h)
		}
		if err == nil && h.control() {
			err = m.x.control(h, m.until)
		} else if err == nil {
			err = m.begin(h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// collect appends the payload to buf.
func (m *message) collect(buf []byte) ([]byte, error) {
	for {
		p, err := m.next()
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if buf, err = m.taking.room(buf, len(p)); err != nil {
			return buf, err
		}
		buf = append(buf, p...)
	}
}

// deflateTail ends a compressed message: what RFC 7692 section 7.2.1 leaves out, and an
// empty last block, so that the inflater sees an end.
const deflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflate appends the inflated payload to buf.
func (m *message) inflate(buf []byte) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	_ = r.(flate.Resetter).Reset(m, nil) // it does not fail
	limit := len(buf) + MaxText + 1
	for {
		var err error
		if buf, err = m.taking.room(buf, 1); err != nil {
			return buf, err
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), limit)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) == limit:
			return buf, errTooBig
		case err == io.EOF:
			return buf, m.complete()
		case m.err != nil && m.err != io.EOF:
			return buf, m.err
		case err != nil:
			return buf, errDeflate
		}
	}
}

// complete checks that the last block ended with the message. A sender may also set
// BFINAL and put an empty block behind it (RFC 7692 section 7.2.3.5).
func (m *message) complete() error {
	if m.tail >= 4 {
		return nil
	}
	if m.tail == 0 {
		b, err := m.ReadByte()
		end := m.tail == 0
		_, _ = m.ReadByte()
		if err == nil && end && b == 0 && m.tail == 1 {
			return nil
		}
	}
	if m.err != nil && m.err != io.EOF {
		return m.err
	}
	return errDeflate
}

// ReadByte implements io.ByteReader, so that the inflater takes nothing in advance.
func (m *message) ReadByte() (byte, error) {
	for len(m.chunk) == 0 {
		p, err := m.next()
		if err == io.EOF && m.tail < len(deflateTail) {
			m.tail++
			return deflateTail[m.tail-1], nil
		}
		if err != nil {
			return 0, err
		}
		m.chunk = p
	}
	b := m.chunk[0]
	m.chunk = m.chunk[1:]
	return b, nil
}

// Read implements io.Reader.
func (m *message) Read(p []byte) (int, error) {
	if len(m.chunk) == 0 && len(p) > 0 {
		b, err := m.ReadByte()
		if err != nil {
			return 0, err
		}
		p[0] = b
		return 1 + copy(p[1:], m.rest(len(p)-1)), nil
	}
	return copy(p, m.rest(len(p))), nil
}

// rest takes up to n bytes of the chunk.
func (m *message) rest(n int) []byte {
	p := m.chunk[:min(n, len(m.chunk))]
	m.chunk = m.chunk[len(p):]
	return p
}
