package http2

import (
	"crypto/tls"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Budgets of frames that cost this side more than the client, or carry nothing.
// nghttp2 ships the same numbers. A stream that its client still wanted when it had been
// judged pays for its reset: it made its client wait, and us do nothing that any other
// would not. One that is reset in the breath that opens it pays nothing.
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

// meter is a TLS connection that counts the frames a client sends, and knows how much it
// lets be sent. The library bounds what it queues, not how often it is made to work, and
// waits for ever for a window behind a handler that has returned.
type meter struct {
	*tls.Conn
	earned  atomic.Int64 // credits, by handlers
	wanted  atomic.Int64 // streams that pay for a reset
	handled atomic.Int64 // streams that were understood
	opened  atomic.Int64 // streams the client began
	refused atomic.Int64 // streams that the library refused
	flooded atomic.Bool
	broken  atomic.Bool  // the library ended it for what its client sent
	crowded atomic.Bool  // there was no room for a section
	window  atomic.Int64 // of the connection: what may be sent on it
	narrow  atomic.Bool  // the windows of streams have been smaller than the usual ones

	// The reader's own, one goroutine at a time:
	err      error
	skip     int // bytes until the next frame header
	head     [frameHead + maxSettings]byte
	have     int
	last     uint32 // highest stream
	glitches bucket
	resets   bucket
}

const (
	frameHead   = 9
	prefaceSize = 24
	settingSize = 6
	maxSettings = 16 * settingSize // that are looked at
)

func newMeter(conn *tls.Conn, now time.Time) *meter {
	m := &meter{
		Conn: conn, skip: prefaceSize,
		glitches: bucket{tokens: glitchBurst, burst: glitchBurst, rate: glitchRate, since: now},
		resets:   bucket{tokens: resetBurst, burst: resetBurst, rate: resetRate, since: now},
	}
	m.window.Store(narrowWindow)
	return m
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
		n := copy(m.head[m.have:m.size()], b)
		m.have += n
		b = b[n:]
		if m.have < m.size() {
			continue
		}
		payload := m.head[frameHead:m.have]
		m.skip, m.have = m.length()-len(payload), 0
		h := &m.head
		stream := binary.BigEndian.Uint32(h[5:]) & (1<<31 - 1)
		if !m.charge(h[3], h[4], stream) {
			return false
		}
		m.opens(h[3], stream, payload)
	}
	return true
}

func (m *meter) length() int { return int(m.head[0])<<16 | int(m.head[1])<<8 | int(m.head[2]) }

// size is how much is looked at of the frame that begins in head.
func (m *meter) size() int {
	if m.have >= frameHead && (m.head[3] == typeSettings || m.head[3] == typeWindowUpdate) {
		return frameHead + min(m.length(), maxSettings)
	}
	return frameHead
}

// opens follows the windows that a client opens. Of those of streams it only knows
// whether they always were as large as they are without a word.
func (m *meter) opens(kind byte, stream uint32, payload []byte) {
	switch {
	case kind == typeWindowUpdate && stream == 0 && len(payload) == 4:
		m.window.Add(int64(binary.BigEndian.Uint32(payload) & (1<<31 - 1)))
	case kind == typeSettings:
		if m.skip > 0 {
			m.narrow.Store(true)
		}
		for ; len(payload) >= settingSize; payload = payload[settingSize:] {
			if binary.BigEndian.Uint16(payload) == settingWindow && binary.BigEndian.Uint32(payload[2:]) < narrowWindow {
				m.narrow.Store(true)
			}
		}
	}
}

// sends is told of n bytes that follow on a stream, which will have sent that much in
// all. It reports whether the client's windows have room for them, without a word more.
func (m *meter) sends(n, all int) bool {
	return m.window.Add(-int64(n)) >= 0 && all <= narrowWindow && !m.narrow.Load()
}

// Frame types and flags of RFC 9113 section 6 that are told apart.
const (
	typeData      = 0x0
	typeHeaders   = 0x1
	typeReset     = 0x3
	flagEndStream = 0x1
	flagPadded    = 0x8

	typeSettings     = 0x4
	typeWindowUpdate = 0x8
	settingWindow    = 0x4 // SETTINGS_INITIAL_WINDOW_SIZE
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
		if m.resets.tokens < 1 {
			return m.resets.take(m.wanted.Swap(0))
		}
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

// fault is told by the library what it finds wrong. That a stream came to nobody does not
// say so: a client that hangs up takes those along that were about to.
func (m *meter) fault(name string) {
	switch name {
	case "stream_PROTOCOL_ERROR_over_max_streams", "stream_REFUSED_STREAM_over_max_streams_race", "stream_PROTOCOL_ERROR_priority":
		m.refused.Add(1)
	case "conn_ENHANCE_YOUR_CALM_too_many_early_resets":
		m.flooded.Store(true)
	default:
		if strings.HasPrefix(name, "conn_") {
			m.broken.Store(true)
		}
	}
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
