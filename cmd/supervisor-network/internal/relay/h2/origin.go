package h2

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// origin is one destination under one set of terms.
type origin struct {
	pool *Pool
	key  key

	mu    sync.Mutex
	gone  bool // forgotten by the pool, or closed
	conns []*conn
	dial  *flight // nil when nobody dials
}

// conn is a connection, and what lies below it.
type conn struct {
	*http.ClientConn
	wire *wire
}

// exchange sends a request; what comes back of it is counted until its body is closed.
func (c *conn) exchange(r *http.Request) (*http.Response, error) {
	c.wire.enter()
	resp, err := c.RoundTrip(r)
	if err != nil || resp.Body == http.NoBody {
		c.wire.leave()
		return resp, err
	}
	resp.Body = c.wire.pool.watch(resp.Body, c.wire)
	return resp, nil
}

// errGone is an origin that was forgotten between being found and being used.
var errGone = errors.New("the destination was forgotten")

// flight is one attempt to connect, which others wait for.
type flight struct {
	done chan struct{}
	err  error // set before done is closed
	ctx  context.Context
}

// acquire returns a connection with a place for one request, reserved unless every
// connection is full, and whether it was opened for this one. At most one connection
// is opened at a time: streams that come together share it.
func (o *origin) acquire(ctx context.Context, permit decide.Permit) (c *conn, fresh bool, err error) {
	for {
		o.mu.Lock()
		gone := o.gone
		c, f, mine := o.look(ctx)
		o.mu.Unlock()
		switch {
		case gone:
			return nil, false, errGone
		case c != nil:
			return c, false, nil
		case mine:
			c, err := o.connect(ctx, permit, f)
			return c, true, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
		// Another request's end is no reason for this one's.
		if f.err != nil && f.ctx.Err() == nil {
			return nil, false, f.err
		}
	}
}

// look finds a connection, or the flight to wait for, or starts one.
func (o *origin) look(ctx context.Context) (c *conn, f *flight, mine bool) {
	if o.gone {
		return nil, nil, false
	}
	var least *conn
	for _, c := range o.conns {
		n := c.InFlight()
		if n < perConn && c.Reserve() == nil {
			return c, nil, false
		}
		if c.Err() == nil && (least == nil || n < least.InFlight()) {
			least = c
		}
	}
	if o.dial != nil {
		return nil, o.dial, false
	}
	if len(o.conns) >= o.pool.cfg.MaxConns && least != nil {
		return least, nil, false // its RoundTrip waits for a place
	}
	o.dial = &flight{done: make(chan struct{}), ctx: ctx}
	return nil, o.dial, true
}

// connect opens a connection and reserves its first place.
func (o *origin) connect(ctx context.Context, permit decide.Permit, f *flight) (c *conn, err error) {
	if c, err = o.open(ctx, permit); err == nil {
		awaitSettings(ctx, c.ClientConn)
	}
	o.mu.Lock()
	o.dial = nil
	f.err = err
	switch {
	case err != nil:
	case o.gone:
		_ = c.Close()
		c, err, f.err = nil, ErrClosed, ErrClosed
	default:
		_ = c.Reserve() // a new connection has places; if not, RoundTrip waits
		o.conns = append(o.conns, c)
		o.pool.conns.Add(1)
	}
	o.mu.Unlock()
	close(f.done)
	if err != nil {
		o.pool.forget(o)
		return nil, err
	}
	c.SetStateHook(func(*http.ClientConn) { o.changed(c) })
	return c, nil
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
	c := &conn{wire: newWire(tc, o.pool)}
	address := net.JoinHostPort(o.key.host, strconv.Itoa(int(o.key.port)))
	c.ClientConn, err = o.pool.transport.NewClientConn(context.WithValue(ctx, dialled{}, c.wire), "https", address)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Limits of awaitSettings.
const (
	assumedStreams = 100 // what net/http takes for the limit until the origin has said it
	settingsWait   = 20 * time.Millisecond
)

// awaitSettings waits a moment for the origin's SETTINGS, which come with the end of
// its handshake: many streams that begin together would otherwise go beyond a limit
// that is lower than the assumed one, and be refused.
func awaitSettings(ctx context.Context, c *http.ClientConn) {
	tick := time.NewTicker(settingsWait / 40)
	defer tick.Stop()
	for range 40 {
		if c.Available() != assumedStreams {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// changed is called by net/http when a connection's state has, also in the middle of
// look, which holds the lock.
func (o *origin) changed(c *conn) {
	switch {
	case c.Err() != nil:
		go o.remove(c)
	case c.InFlight() == 0 && o.pool.conns.Load() > maxKept:
		go o.retire(c)
	}
}

func (o *origin) remove(c *conn) {
	o.mu.Lock()
	o.without(c)
	empty := len(o.conns) == 0
	o.mu.Unlock()
	if empty {
		o.pool.forget(o)
	}
}

// without takes a connection out. The caller holds the lock.
func (o *origin) without(c *conn) {
	if i := slices.Index(o.conns, c); i >= 0 {
		o.conns = slices.Delete(o.conns, i, i+1)
		o.pool.conns.Add(-1)
	}
}

// retire closes a connection that carries nothing, of which there are many.
func (o *origin) retire(c *conn) {
	o.mu.Lock()
	unused := c.InFlight() == 0 && o.pool.conns.Load() > maxKept
	if unused {
		o.without(c) // nobody finds it any more
	}
	o.mu.Unlock()
	if unused {
		_ = c.Close() // which is a change
	}
}

func (o *origin) close() {
	o.mu.Lock()
	o.gone = true
	conns := o.conns
	o.conns = nil
	o.pool.conns.Add(-int64(len(conns)))
	o.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}
