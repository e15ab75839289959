package app

import (
	"errors"
	"net"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
)

// unreadTime is how long a client may leave its answer unread before its origin is let
// go, in every version of HTTP. The kernel tells the other side of room in steps of 64
// KiB at most, so that who takes 220 bytes a second is still seen to read.
const unreadTime = 5 * time.Minute

// unreadFor is unreadTime, or less where nothing may be quiet for that long: so that the
// record says whose silence it was.
func (p *path) unreadFor() time.Duration { return min(unreadTime, p.idle/2) }

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
