package http2

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Budgets of frames that cost this side more than the client, or carry nothing.
// nghttp2 ships the same numbers.
const (
	glitchBurst = 10000
	glitchRate  = 330 // per second
	resetBurst  = 1000
	resetRate   = 33
	// What useful work gives back, so that pings and window updates which go along
	// with real traffic never count.
	creditStream = 5
	creditWrite  = 3
)

// errFlood ends a connection whose client sends frames for their own sake; the
// library answers it with GOAWAY.
var errFlood error = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)

// meter is a TLS connection that counts the frames a client sends. The library bounds
// what it queues, not how often it is made to work.
type meter struct {
	*tls.Conn
	earned  atomic.Int64 // credits, by handlers
	handled atomic.Int64 // streams that were understood
	opened  atomic.Int64 // streams the client began
	flooded atomic.Bool

	// The reader's own, one goroutine at a time:
	err      error
	skip     int // bytes until the next frame header
	head     [frameHead]byte
	have     int
	last     uint32 // highest stream
	glitches bucket
	resets   bucket
}

const (
	frameHead   = 9
	prefaceSize = 24
)

func newMeter(conn *tls.Conn, now time.Time) *meter {
	return &meter{
		Conn: conn, skip: prefaceSize,
		glitches: bucket{tokens: glitchBurst, burst: glitchBurst, rate: glitchRate, since: now},
		resets:   bucket{tokens: resetBurst, burst: resetBurst, rate: resetRate, since: now},
	}
}

// Read implements net.Conn. The read that finds a flood, and every later one, fails.
func (m *meter) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.Conn.Read(p)
	if !m.count(p[:n]) {
		m.err = errFlood
		m.flooded.Store(true)
		return 0, m.err
	}
	return n, err
}

// count walks over the frames in b and reports whether they are affordable.
func (m *meter) count(b []byte) bool {
	for len(b) > 0 {
		if m.skip > 0 {
			n := min(m.skip, len(b))
			m.skip -= n
			b = b[n:]
			continue
		}
		n := copy(m.head[m.have:], b)
		m.have += n
		b = b[n:]
		if m.have < frameHead {
			return true
		}
		m.have = 0
		h := &m.head
		m.skip = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		if !m.charge(h[3], h[4], uint32(h[5]&0x7f)<<24|uint32(h[6])<<16|uint32(h[7])<<8|uint32(h[8])) {
			return false
		}
	}
	return true
}

// Frame types and flags of RFC 9113 section 6 that are told apart.
const (
	typeData      = 0x0
	typeHeaders   = 0x1
	typeReset     = 0x3
	flagEndStream = 0x1
	flagPadded    = 0x8
)

// charge takes a frame from its budget. A stream costs one and earns more once a
// handler has it: malformed ones only cost.
func (m *meter) charge(kind, flags byte, stream uint32) bool {
	switch kind {
	case typeData:
		if flags&flagPadded == 0 && (m.skip > 0 || flags&flagEndStream != 0) {
			return true
		}
	case typeReset:
		return m.resets.take(0)
	case typeHeaders:
		if stream > m.last {
			m.last = stream
			m.opened.Add(1)
		}
	}
	if m.glitches.tokens < 1 {
		return m.glitches.take(m.earned.Swap(0))
	}
	return m.glitches.take(0)
}

func (m *meter) credit(n int64) { m.earned.Add(n) }

// bucket is a token bucket that looks at the clock only when it seems empty.
type bucket struct {
	tokens, burst, rate float64
	since               time.Time
}

func (b *bucket) take(earned int64) bool {
	if b.tokens < 1 {
		now := time.Now()
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.since).Seconds()+float64(earned))
		b.since = now
	}
	b.tokens--
	return b.tokens >= 0
}
