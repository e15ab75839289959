package identity

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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
	if last := l.put(pid); last != nil {
		last.drop()
	}
}

// put puts a process before the others and returns the one that had to leave, if any.
func (l *recent) put(pid int) (last *connector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) > 0 && l.list[0].pid == pid {
		return nil
	}
	next := make([]*connector, 1, maxRecent)
	for _, old := range l.list {
		switch {
		case old.pid == pid:
			next[0] = old
		case len(next) < maxRecent:
			next = append(next, old)
		default:
			last = old
		}
	}
	if next[0] == nil {
		next[0] = &connector{pid: pid}
	}
	l.list = next
	return last
}

// connector is a process that connects, with what was found out about it before.
type connector struct {
	pid int

	looking sync.Mutex // held while its descriptors are read
	folder  string     // guarded by looking; of its descriptors
	places  []place    // guarded by looking; those that were sockets asked for, newest first
	several bool       // guarded by looking; the last one found was not the newest
	keeps   bool       // guarded by looking; the last one found was near the one before it
	started time.Time  // guarded by looking; of the last list
	held    []socketNo // guarded by looking; its sockets, sorted by inode

	using   sync.RWMutex // behind looking; held for reading while line's descriptors are used
	line    *line        // guarded by using; nil: not held
	dropped bool         // guarded by using; no line may be held any more

	childless atomic.Pointer[childless]
}

const (
	// maxHeld bounds the descriptors of a process that is asked whether it holds a
	// socket. One that has more is left to a pass.
	maxHeld = 16 << 10
	// newestHeld is how many of them are read for one question alone.
	newestHeld = 64
	// maxPlaces bounds the descriptors that are tried before a list is made. A process
	// gets the lowest number that is free, so that it uses few of them again and again.
	maxPlaces = 128
	// maxEmpty is how often in a row one of them may be no socket.
	maxEmpty = 3
	// maxNear is how far from the number used last others are tried. A process opens other
	// files as well, and those that come together are not asked for in their order.
	maxNear = 64
)

// holds reports whether the process has a descriptor of the socket, at some moment after
// asked. It is looked for where others were, and near the last; else the descriptors are
// listed, if they are at most limit. A connection that comes alone is then among the newest.
// Those that come together share a list: else each of a crowd would be looked for among all
// the others.
func (c *connector) holds(fs procfs, inode uint64, asked time.Time, limit int) bool {
	alone := c.looking.TryLock()
	if !alone {
		c.looking.Lock()
	}
	defer c.looking.Unlock()
	if c.started.After(asked) {
		return c.listed(inode)
	}
	if c.folder == "" {
		c.folder = strconv.Itoa(c.pid) + "/fd"
	}
	if c.again(fs, inode) {
		return true
	}
	started := time.Now()
	fds, err := fs.numbers(c.folder, limit)
	if err != nil {
		return false
	}
	slices.SortFunc(fds, func(a, b int) int { return b - a })
	if alone {
		newest := fds[:min(len(fds), newestHeld)]
		for _, n := range newest {
			if of, ok := socketAt(fs.fd, c.folder+"/"+strconv.Itoa(n)); ok && of == inode {
				c.use(n)
				return true
			}
		}
		if len(newest) == len(fds) {
			return false
		}
	}
	c.held, c.started = fs.inodes(c.folder, fds), started
	slices.SortFunc(c.held, func(a, b socketNo) int { return cmp.Compare(a.inode, b.inode) })
	return c.listed(inode)
}

func (c *connector) listed(inode uint64) bool {
	i, found := slices.BinarySearchFunc(c.held, inode, func(s socketNo, inode uint64) int { return cmp.Compare(s.inode, inode) })
	if found {
		c.use(c.held[i].n)
	}
	return found
}

// place is a descriptor of a process.
type place struct {
	n     int
	name  string // n, as a name below the folder of descriptors
	empty int    // how often in a row it was no socket
}

func newPlace(n int) place { return place{n: n, name: strconv.Itoa(n)} }

// at looks at a place.
func (c *connector) at(fs procfs, p *place) (inode uint64, ok bool) {
	if c.line != nil {
		return socketAt(c.line.table, p.name)
	}
	return socketAt(fs.fd, c.folder+"/"+p.name)
}

// again looks for the socket where others were, or near the last one, in the order in which it
// was found last: a client that keeps its connections takes new numbers.
func (c *connector) again(fs procfs, inode uint64) bool {
	c.using.RLock()
	defer c.using.RUnlock()
	if c.keeps && c.near(fs, inode) {
		return true
	}
	if c.among(fs, inode) {
		c.keeps = false
		return true
	}
	c.keeps = !c.keeps && c.near(fs, inode)
	return c.keeps
}

// near looks at the numbers around the one used last.
func (c *connector) near(fs procfs, inode uint64) bool {
	if len(c.places) == 0 {
		return false
	}
	last := c.places[0].n
	for i := range maxNear {
		for _, n := range [...]int{last + 1 + i, last - 1 - i} {
			p := newPlace(n)
			if of, ok := c.at(fs, &p); ok && of == inode {
				c.use(n)
				return true
			}
		}
	}
	return false
}

// among looks where others were: at the number used last, which a client of
// one connection at a time uses again, then at those not used for longest, which a client
// of several has closed since; there the one used last comes last. Where there is none again
// and again nobody looks any more.
func (c *connector) among(fs procfs, inode uint64) bool {
	defer c.forget()
	first := len(c.places)
	if c.several {
		first--
	}
	for i := range c.places {
		at := (first - i) % len(c.places)
		p := &c.places[at]
		of, ok := c.at(fs, p)
		if ok && of == inode {
			c.several = at != 0
			c.use(p.n)
			return true
		}
		if p.empty++; ok {
			p.empty = 0
		}
	}
	return false
}

// forget drops the places at which there is nothing any more.
func (c *connector) forget() {
	c.places = slices.DeleteFunc(c.places, func(p place) bool { return p.empty == maxEmpty })
}

// use puts a descriptor's number before the others.
func (c *connector) use(n int) {
	i := slices.IndexFunc(c.places, func(p place) bool { return p.n == n })
	if i < 0 && len(c.places) < maxPlaces {
		c.places = append(c.places, place{})
	}
	if i < 0 {
		i = len(c.places) - 1
	}
	copy(c.places[1:i+1], c.places[:i])
	c.places[0] = newPlace(n)
}

// childless is a look that saw no child but those of a pass.
type childless struct {
	era  era       // before the look
	pass time.Time // the start of the pass, which would be kept in memory itself
	at   time.Time // before the look
}

// unseenLasts is for how long a look that saw no child counts: one that had its pid before may
// have been on its way, and no process that begins tells of it.
const unseenLasts = 100 * time.Millisecond

// hasNoNewChild reports whether the process has no child that the pass does not have. It
// looks only where a process has begun, whosever it is, or where there is another pass: whoever
// has waited asks with an older one, to which a child that a later one knows is new.
func (c *connector) hasNoNewChild(fs procfs, p *pass, now era) bool {
	look := childless{now, p.started, time.Now()}
	if p.era == now && look.at.Sub(p.started) < unseenLasts {
		return true
	}
	if before := c.childless.Load(); before != nil && before.counts(look) {
		return true
	}
	if fs.childIsUnknown(c.pid, p.known) {
		return false
	}
	c.childless.Store(&look)
	return true
}

// counts reports whether nothing more would be seen by another look.
func (c *childless) counts(other childless) bool {
	return c.era == other.era && c.pass.Equal(other.pass) && other.at.Sub(c.at) < unseenLasts
}

// unchanged returns the line that is held, if it is what it was. Its descriptors are not the
// caller's.
func (c *connector) unchanged() *line {
	l, same := c.look()
	if same {
		if l != nil {
			l.asked.Store(true)
		}
		return l
	}
	c.release(l)
	return nil
}

func (c *connector) look() (l *line, same bool) {
	c.using.RLock()
	defer c.using.RUnlock()
	return c.line, c.line == nil || c.line.unchanged()
}

// keep holds the line of the process from now on, while it is asked for.
func (c *connector) keep(l *line) {
	c.using.Lock()
	defer c.using.Unlock()
	if c.dropped || c.line != nil {
		l.close()
		return
	}
	c.line = l
	time.AfterFunc(lineLasts, func() { c.tidy(l) })
}

// tidy gives back a line that nobody has asked for since it looked last.
func (c *connector) tidy(l *line) {
	if l.asked.Swap(false) {
		time.AfterFunc(lineLasts, func() { c.tidy(l) })
		return
	}
	c.release(l)
}

// release gives back a line, if it is still held.
func (c *connector) release(l *line) {
	c.using.Lock()
	defer c.using.Unlock()
	if l != nil && c.line == l {
		c.line = nil
		l.close()
	}
}

// drop gives back what is held, for good. Whoever still looks does without.
func (c *connector) drop() {
	c.using.Lock()
	c.dropped = true
	l := c.line
	c.using.Unlock()
	c.release(l)
}
