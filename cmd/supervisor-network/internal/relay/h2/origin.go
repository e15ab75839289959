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
	conns []*http.ClientConn
	dial  *flight // nil when nobody dials
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
func (o *origin) acquire(ctx context.Context, permit decide.Permit) (c *http.ClientConn, fresh bool, err error) {
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
func (o *origin) look(ctx context.Context) (c *http.ClientConn, f *flight, mine bool) {
	if o.gone {
		return nil, nil, false
	}
	var least *http.ClientConn
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
func (o *origin) connect(ctx context.Context, permit decide.Permit, f *flight) (c *http.ClientConn, err error) {
	if c, err = o.open(ctx, permit); err == nil {
		awaitSettings(ctx, c)
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
	}
	o.mu.Unlock()
	close(f.done)
	if err != nil {
		o.pool.forget(o)
		return nil, err
	}
	c.SetStateHook(o.changed)
	return c, nil
}

func (o *origin) open(ctx context.Context, permit decide.Permit) (*http.ClientConn, error) {
	conn, err := o.pool.cfg.Dial(ctx, permit)
	if err != nil {
		return nil, err
	}
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		_ = conn.Close()
		return nil, ErrNoHTTP2
	}
	address := net.JoinHostPort(o.key.host, strconv.Itoa(int(o.key.port)))
	return o.pool.transport.NewClientConn(context.WithValue(ctx, dialled{}, conn), "https", address)
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
func (o *origin) changed(c *http.ClientConn) {
	if c.Err() != nil {
		go o.remove(c)
	}
}

func (o *origin) remove(c *http.ClientConn) {
	o.mu.Lock()
	o.conns = slices.DeleteFunc(o.conns, func(other *http.ClientConn) bool { return other == c })
	empty := len(o.conns) == 0
	o.mu.Unlock()
	if empty {
		o.pool.forget(o)
	}
}

func (o *origin) close() {
	o.mu.Lock()
	o.gone = true
	conns := o.conns
	o.conns = nil
	o.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}
