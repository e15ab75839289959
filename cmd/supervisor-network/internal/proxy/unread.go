package proxy

import (
	"errors"
	"net"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
)

// unreadFor is how long a client may leave its answer unread before its origin is let go,
// in every version of HTTP: half of what may be quiet, so that the record says whose
// silence it was. It is no shorter because a client that reads slowly looks the same for
// long: its kernel tells of room when a sixteenth of the buffer is free, and has given one
// that once read fast up to 32 MiB (tcp(7), tcp_rmem). An hour of idle time is for those
// that read a kilobyte a second.
func (p *Path) unreadFor() time.Duration { return p.Idle / 2 }

// errUnread ends a request whose answer nobody takes.
var errUnread = errors.New("the client did not read its answer for too long")

// lying is what a client leaves unread. It belongs to one goroutine.
type lying struct {
	taken uint64
	since time.Time // nothing was taken since, and something waited
}

// at looks, and returns for how long nothing was taken.
func (l *lying) at(now time.Time, c *net.TCPConn) time.Duration {
	taken, waits := relay.Unread(c)
	if !waits || taken != l.taken || l.since.IsZero() {
		l.taken, l.since = taken, now
	}
	return now.Sub(l.since)
}
