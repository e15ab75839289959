package proxy

import (
	"slices"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
)

// maxEchoes bounds the values that are looked for in the messages of one WebSocket:
// the newest ones, where a key changes while it is open.
const maxEchoes = 64

// echoSet is the values that went into a WebSocket, with its handshake and its
// messages. Values are added by the one who judges messages; the other direction
// looks for them.
type echoSet struct {
	s      *sealed
	values []credentials.Echo
	filter atomic.Pointer[hygiene.Filter]
}

func echoesOf(s *sealed) *echoSet {
	e := &echoSet{s: s, values: slices.Clone(s.values)}
	e.filter.Store(s.filter)
	return e
}

// add makes values known.
func (e *echoSet) add(values []credentials.Echo) {
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

// cleaner is websocket.Session.Clean.
func (e *echoSet) cleaner() func(piece []byte, text, last bool) []byte {
	m := hygiene.NewMessages(e.filter.Load)
	return func(piece []byte, text, last bool) []byte {
		out, n := m.Next(piece, text, last)
		e.s.echoes.Add(int64(n))
		return out
	}
}
