package hygiene

import "bytes"

// Messages cleans the messages of one WebSocket, of each as much as of a body without a
// length: what is no text keeps its length. Values may be added while a message is under
// way.
type Messages struct {
	current func() *Filter
	out     bytes.Buffer
	w       *Writer // of the message under way; nil: none is
}

// NewMessages makes Messages that look for what current, which may return nil, has
// when a piece comes. They are for one goroutine.
func NewMessages(current func() *Filter) *Messages { return &Messages{current: current} }

// Next takes the next piece of a message, and returns what may go in its place and how
// many values it found. It is valid until the next call.
func (m *Messages) Next(piece []byte, text, last bool) ([]byte, int) {
	if m.w == nil {
		if m.current() == nil && last {
			return piece, 0
		}
		m.w = &Writer{w: &m.out, cover: !text, of: func() ([]pattern, int) { return m.current().unstated() }}
	}
	m.out.Reset()
	before := m.w.count
	_, _ = m.w.Write(piece) // a buffer takes everything
	if last {
		_ = m.w.Close()
	}
	n := m.w.count - before
	if last {
		m.w = nil
	}
	return m.out.Bytes(), n
}
