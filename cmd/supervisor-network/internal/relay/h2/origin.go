package h2

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// origin is one destination under one set of terms. It counts what each of its connections
// carries, and has those wait for which there is no place: a request that waits in net/http
// keeps all others from its connection, also those whose places were reserved, and these
// keep it waiting.
type origin struct {
	pool *Pool
	key  key

	mu       sync.Mutex
	gone     bool // forgotten by the pool, or closed
	dialling bool // at most one connection is opened at a time
	conns    []*conn
	waiting  []*waiter // the first came first
	again    *time.Timer
}

// lookAgain is how long those who wait do at most before they look by themselves. net/http
// tells of places that become free only if there are more of them than when it looked
// last, and it does not look when a request begins.
const lookAgain = 100 * time.Millisecond

// waiter is a request for which there is no place.
type waiter struct {
	turn chan turn // has room for one
}

// turn ends the wait for a place: it is here, or the one who waited has to open a
// connection, or neither is to be had.
type turn struct {
	conn *conn
	err  error
}

// errGone is an origin that was forgotten between being found and being used, errFull one
// that takes no more connections, but has some.
var (
	errGone = errors.New("the destination was forgotten")
	errFull = errors.New("there is no other connection")
)

// acquire returns a connection with a place for one request, which has to be given back
// with leave, and whether it was opened for this one. It waits while every connection is
// full: streams that come together share one.
func (o *origin) acquire(ctx context.Context, permit decide.Permit) (c *conn, fresh bool, err error) {
	o.mu.Lock()
	if o.gone {
		o.mu.Unlock()
		return nil, false, errGone
	}
	if len(o.waiting) == 0 {
		if c, _ = o.place(); c != nil {
			c.take()
			o.mu.Unlock()
			return c, false, nil
		}
	}
	w := &waiter{turn: make(chan turn, 1)}
	o.waiting = append(o.waiting, w)
	o.serve(true)
	o.mu.Unlock()
	for {
		var t turn
		select {
		case t = <-w.turn:
		case <-ctx.Done():
			o.giveUp(w)
			return nil, false, context.Cause(ctx)
		}
		if t.conn != nil || t.err != nil {
			return t.conn, false, t.err
		}
		if c, err = o.connect(ctx, permit, w); err != errFull {
			return c, true, err
		}
	}
}

// serve gives those who wait the places there are, and has the next one open a connection
// where there is none, or if there shall be more. The caller holds the lock.
func (o *origin) serve(more bool) {
	for len(o.waiting) > 0 {
		c, later := o.place()
		switch {
		case c != nil:
			c.take()
		case later > 0 && !more || later >= o.pool.cfg.MaxConns || o.opening():
			o.lookLater()
			return
		default:
			o.dialling = true
		}
		o.waiting[0].turn <- turn{conn: c}
		o.waiting = o.waiting[1:]
	}
}

// place finds a connection that can take a request. If there is none, later is how many
// will. The caller holds the lock.
func (o *origin) place() (c *conn, later int) {
	for _, c := range o.conns {
		switch {
		case c.wire.leaving.Load():
		case c.hasPlace():
			return c, 1
		default:
			later++
		}
	}
	return nil, later
}

// opening reports whether a connection is being opened. It is until the origin has said how
// many requests it takes.
func (o *origin) opening() bool {
	return o.dialling || slices.ContainsFunc(o.conns, (*conn).isNew)
}

// giveUp ends a wait. What came in the meantime is the next one's.
func (o *origin) giveUp(w *waiter) {
	o.mu.Lock()
	if i := slices.Index(o.waiting, w); i >= 0 {
		o.waiting = slices.Delete(o.waiting, i, i+1)
		o.mu.Unlock()
		return
	}
	t := <-w.turn
	if t.conn == nil && t.err == nil {
		o.dialling = false
		o.serve(true)
	}
	o.mu.Unlock()
	if t.conn != nil {
		o.leave(t.conn)
	} else {
		o.pool.forget(o)
	}
}

// connect opens a connection and takes its first place. With errFull w waits again.
func (o *origin) connect(ctx context.Context, permit decide.Permit, w *waiter) (*conn, error) {
	c, err := o.open(ctx, permit)
	o.mu.Lock()
	o.dialling = false
	_, later := o.place()
	switch {
	case err == nil && o.gone:
		err = ErrClosed
	case err == nil:
		c.take()
		o.conns = append(o.conns, c)
		o.pool.conns.Add(1)
		o.serve(true) // the limit may have been said already
	case ctx.Err() != nil:
		o.serve(true) // this one's end is no reason for the others'
	case later > 0:
		err = errFull
		o.waiting = slices.Insert(o.waiting, 0, w)
		o.serve(false)
	default:
		o.refuse(err)
	}
	o.mu.Unlock()
	if err != nil {
		if c != nil {
			_ = c.Close()
		}
		o.pool.forget(o)
		return nil, err
	}
	c.SetStateHook(c.changed)
	return c, nil
}

// refuse ends every wait. The caller holds the lock.
func (o *origin) refuse(err error) {
	for _, w := range o.waiting {
		w.turn <- turn{err: err}
	}
	o.waiting = nil
}

func (o *origin) open(ctx context.Context, permit decide.Permit) (*conn, error) {
	tc, err := o.pool.cfg.Dial(ctx, permit)
	if err != nil {
		return nil, err
	}
	if tc.ConnectionState().NegotiatedProtocol != "h2" {
		_ = tc.Close()
		return nil, ErrNoHTTP2
	}
	c := &conn{wire: newWire(tc, o.pool), origin: o}
	c.wire.look = func() { o.said(c) }
	c.wire.left = func() { o.retire(c) }
	address := net.JoinHostPort(o.key.host, strconv.Itoa(int(o.key.port)))
	c.ClientConn, err = o.pool.transport.NewClientConn(context.WithValue(ctx, dialled{}, c.wire), "https", address)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// lookLater has those who wait look again. The caller holds the lock.
func (o *origin) lookLater() {
	if o.again == nil {
		o.again = time.AfterFunc(lookAgain, func() { o.look(false) })
	} else {
		o.again.Reset(lookAgain)
	}
}

// look serves those who wait.
func (o *origin) look(more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serve(more)
}

// said is called when an origin has said how many requests it takes.
func (o *origin) said(c *conn) {
	o.mu.Lock()
	o.serve(true)
	known := slices.Contains(o.conns, c)
	o.mu.Unlock()
	if known {
		c.wake()
	}
}

// leave gives a place back. A connection that carries nothing is closed when it goes away
// or there are many, and after a while.
func (o *origin) leave(c *conn) {
	o.mu.Lock()
	c.leave()
	o.serve(false)
	unused := c.used == 0 && (c.wire.leaving.Load() || o.pool.conns.Load() > maxKept) && o.without(c)
	o.mu.Unlock()
	if unused {
		_ = c.Close() // which is a change
	}
}

// retire closes a connection if it carries nothing: it did not for long, or goes away.
func (o *origin) retire(c *conn) {
	o.mu.Lock()
	unused := c.used == 0 && o.without(c) // nobody finds it any more
	o.serve(true)
	o.mu.Unlock()
	if unused {
		_ = c.Close()
	}
}

// remove drops a connection that has ended.
func (o *origin) remove(c *conn) {
	o.mu.Lock()
	o.serve(o.without(c)) // there may be another one in its place
	o.mu.Unlock()
	o.pool.forget(o)
}

// without takes a connection out, and reports whether it was there. The caller holds the
// lock.
func (o *origin) without(c *conn) bool {
	i := slices.Index(o.conns, c)
	if i < 0 {
		return false
	}
	o.conns = slices.Delete(o.conns, i, i+1)
	o.pool.conns.Add(-1)
	c.drop()
	return true
}

func (o *origin) close() {
	o.mu.Lock()
	o.gone = true
	conns := o.conns
	o.conns = nil
	o.pool.conns.Add(-int64(len(conns)))
	for _, c := range conns {
		c.drop()
	}
	o.refuse(ErrClosed)
	o.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}
