package relay

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

const (
	// restartTime is how long a destination that was reached before, and refuses now, is
	// tried again: a server that starts anew listens again in that time, or it is down.
	restartTime = 500 * time.Millisecond
	// firstPause is before the second attempt; each further one is twice as long.
	firstPause = 20 * time.Millisecond
	// maxRestarts bounds the destinations that are remembered; with one more all are
	// forgotten, and refusals are what they are until the next success.
	maxRestarts = 1024
)

// restarts knows which destinations were reached, and since when those refuse. A client
// that waits for its server by itself would see no refusal of it here, but an answer of
// ours, which it takes for the server's. The time is one for all who ask: a destination
// that stays down costs each of them nothing more, and gets nothing more, until it was
// reached again.
type restarts struct {
	time time.Duration // restartTime; tests change it

	mu    sync.Mutex
	known map[place]time.Time // guarded by mu; zero: it does not refuse
}

// place is where a destination is, whatever its terms are.
type place struct {
	host string
	port uint16
}

func newRestarts() *restarts {
	return &restarts{time: restartTime, known: make(map[place]time.Time)}
}

// reached notes that a destination is there.
func (r *restarts) reached(at place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[at]; !ok && len(r.known) >= maxRestarts {
		clear(r.known)
	}
	r.known[at] = time.Time{}
}

// refused notes that a destination refuses, and returns how much longer it may be tried.
func (r *restarts) refused(at place) time.Duration {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	since, ok := r.known[at]
	switch {
	case !ok:
		return 0
	case since.IsZero():
		r.known[at] = now
		return r.time
	default:
		return r.time - now.Sub(since)
	}
}

// again waits until a destination that refused may be tried once more. It reports false
// when it may not: err is no refusal, it was never reached, it has refused for too long,
// or the wait would not end before end.
func (r *restarts) again(ctx context.Context, at place, err error, attempt int, end time.Time) bool {
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
		return false
	}
	left := min(r.refused(at), time.Until(end))
	if left <= 0 {
		return false
	}
	pause := time.NewTimer(min(firstPause<<min(attempt, 8), left))
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-ctx.Done():
		return false
	}
}
