package identity

import (
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxRecent bounds how many processes are tried before a pass.
const maxRecent = 16

// recent are the processes that connected last, newest first.
type recent struct {
	mu   sync.Mutex
	list []*connector // guarded by mu; replaced, never changed
}

func (l *recent) all() []*connector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

func (l *recent) add(pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) > 0 && l.list[0].pid == pid {
		return
	}
	next := make([]*connector, 1, maxRecent)
	for _, old := range l.list {
		switch {
		case old.pid == pid:
			next[0] = old
		case len(next) < maxRecent:
			next = append(next, old)
		}
	}
	if next[0] == nil {
		next[0] = &connector{pid: pid}
	}
	l.list = next
}

// connector is a process that connects, with what it held when that was listed last.
type connector struct {
	pid int

	looking sync.Mutex // held while its descriptors are read
	started time.Time  // guarded by looking; of the last list
	held    []uint64   // guarded by looking; the inodes of its sockets, sorted
}

const (
	// maxHeld bounds the descriptors of a process that is asked whether it holds a
	// socket. One that has more is left to a pass.
	maxHeld = 16 << 10
	// newestHeld is how many of them are read for one question alone.
	newestHeld = 64
)

// holds reports whether the process has a descriptor of the socket, at some moment after
// asked, and has at most limit descriptors. A connection that comes alone is among the
// newest. Those that come together share a list: else each of a crowd would be looked for
// among all the others.
func (c *connector) holds(fs procfs, inode uint64, asked time.Time, limit int) bool {
	alone := c.looking.TryLock()
	if !alone {
		c.looking.Lock()
	}
	defer c.looking.Unlock()
	if !c.started.After(asked) {
		started := time.Now()
		folder := strconv.Itoa(c.pid) + "/fd"
		fds, err := fs.numbers(folder, limit)
		if err != nil {
			return false
		}
		slices.SortFunc(fds, func(a, b int) int { return b - a })
		if alone {
			newest := fds[:min(len(fds), newestHeld)]
			if slices.ContainsFunc(newest, func(n int) bool { return fs.is(folder, n, inode) }) {
				return true
			}
			if len(newest) == len(fds) {
				return false
			}
		}
		c.held, c.started = fs.inodes(folder, fds), started
		slices.Sort(c.held)
	}
	_, found := slices.BinarySearch(c.held, inode)
	return found
}
