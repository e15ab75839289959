package seal

import (
	"slices"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
)

// maxEchoes bounds the values that are looked for in the messages of one WebSocket:
// the newest ones, where a key changes while it is open.
const maxEchoes = 64

// Echoes is the values that went into a WebSocket, with its handshake and its
// messages. Values are added by the one who judges messages; the other direction
// looks for them.
type Echoes struct {
	s      *Sealed
	values []credentials.Echo
	filter atomic.Pointer[hygiene.Filter]
}

// EchoesOf begins with what went into the handshake.
func EchoesOf(s *Sealed) *Echoes {
	e := &Echoes{s: s, values: slices.Clone(s.values)}
	e.filter.Store(s.filter)
	return e
}

// Add makes values known.
func (e *Echoes) Add(values []credentials.Echo) {
	before := len(e.values)
	for _, v := range values {
		if !slices.ContainsFunc(e.values, v.Same) {
			e.values = append(e.values, v)
		}
	}
	if len(e.values) == before {
		return
	}
	e.values = e.values[max(0, len(e.values)-maxEchoes):]
	e.filter.Store(hygiene.New(e.values))
}

// Cleaner is websocket.Session.Clean.
func (e *Echoes) Cleaner() func(piece []byte, text, last bool) []byte {
	m := hygiene.NewMessages(e.filter.Load)
	return func(piece []byte, text, last bool) []byte {
		out, n := m.Next(piece, text, last)
		e.s.echoes.Add(int64(n))
		return out
	}
}
