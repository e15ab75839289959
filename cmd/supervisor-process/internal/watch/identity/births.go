package identity

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// births tells whether a process may have begun between two looks: the kernel shows the pid
// that it gave out last, as it counts for this daemon. Safe for concurrent use.
type births struct {
	loadavg int // descriptor of the file of that name below proc(5)

	mu   sync.Mutex
	pid  int       // guarded by mu; the one seen last; 0 when it could not be said
	seen time.Time // guarded by mu; before it was looked for
	now  era       // guarded by mu
}

// era is a time in which no process began. None is 0.
type era uint64

// eraLasts is for how long a pid that is seen again means that none was given out: they come
// round. One thread can use up the usual 32,768 in 200 ms, by asking for processes that cannot
// be made. An era goes on for as long as somebody looks that often.
const eraLasts = 10 * time.Millisecond

// look returns the era it is.
func (b *births) look() era {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := time.Now()
	pid := b.lastPID()
	return b.at(pid, before, time.Now())
}

// at is look by a pid that was read between two moments.
func (b *births) at(pid int, before, after time.Time) era {
	if pid == 0 || pid != b.pid || after.Sub(b.seen) >= eraLasts {
		b.now++
	}
	b.pid, b.seen = pid, before
	return b.now
}

func (b *births) lastPID() int {
	var buf [128]byte
	size, err := unix.Pread(b.loadavg, buf[:], 0)
	if err != nil {
		return 0
	}
	text := bytes.TrimSpace(buf[:size])
	pid, _ := strconv.Atoi(string(text[bytes.LastIndexByte(text, ' ')+1:]))
	return pid
}
