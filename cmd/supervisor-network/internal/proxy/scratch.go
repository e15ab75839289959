package proxy

import "github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"

// maxScratchFields is how many fields scratch keeps the memory of.
const maxScratchFields = 64

// scratch is the memory of one request of HTTP/1.1, which the next one of its session
// takes again: fresh memory is cold, and costs more than all that is done with it. So
// nothing of a request may be known to anybody when its session waits for the next one.
// What others get of it, they get as texts, which do not change, or apart from it: its
// turn, what credentials did, a body. Those who judge it beside its session, by a new
// policy, let go of it in liveEntry.carries. Behind a WebSocket no request follows.
type scratch struct {
	request http1.Request
	in      incoming
}

// forget leaves nothing but memory.
func (m *scratch) forget() {
	var fields http1.Fields
	if kept := m.request.Fields[:cap(m.request.Fields)]; len(kept) <= maxScratchFields {
		clear(kept)
		fields = kept[:0]
	}
	*m = scratch{request: http1.Request{Fields: fields}}
}
