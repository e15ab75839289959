package h2

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// conn is a connection, and what lies below it.
type conn struct {
	*http.ClientConn
	origin *origin
	wire   *wire

	// Guarded by the origin's lock.
	used int         // requests that have a place
	gone bool        // nobody finds it any more
	idle *time.Timer // retires the connection; nil: it was in use ever since
}

// hasPlace reports whether a request may begin. Before the origin has said its limit of
// streams, one may: those beyond it would be refused (RFC 9113 section 5.1.2). Afterwards
// it is what net/http counts, streams included whose end the origin has not confirmed. It
// counts one of a connection that ended before its first stream, too, so that it can fail.
func (c *conn) hasPlace() bool {
	available := c.Available()
	switch {
	case available == 0 || c.used >= perConn || c.Err() != nil:
		return false
	case c.used == 0:
		return true
	case !c.wire.settled.Load():
		return false
	}
	for streams := c.InFlight(); ; {
		available = c.Available()
		again := c.InFlight()
		if again == streams { // none began or ended meanwhile
			return available > 0 && c.used < available+streams
		}
		streams = again
	}
}

// isNew reports whether the limit of streams is still to come.
func (c *conn) isNew() bool { return !c.wire.settled.Load() && !c.wire.leaving.Load() }

func (c *conn) take() {
	if c.used++; c.used == 1 && c.idle != nil {
		c.idle.Stop()
	}
}

func (c *conn) leave() {
	if c.used--; c.used > 0 || c.gone {
		return
	}
	after := c.origin.pool.cfg.Idle
	if c.idle == nil {
		c.idle = time.AfterFunc(after, func() { c.origin.retire(c) })
	} else {
		c.idle.Reset(after)
	}
}

func (c *conn) drop() {
	c.gone = true
	if c.idle != nil {
		c.idle.Stop()
	}
}

// exchange sends a request, which has a place; the place is given back, and what comes
// back of it is counted, until its body is closed.
func (c *conn) exchange(r *http.Request) (*http.Response, error) {
	c.wire.enter()
	resp, err := c.RoundTrip(r)
	if err != nil {
		c.done()
		return nil, err
	}
	resp.Body = c.wire.pool.watch(resp.Body, c)
	return resp, nil
}

// done ends a request, and its answer.
func (c *conn) done() {
	c.wire.leave()
	c.origin.leave(c)
}

// wake has requests that wait in net/http look at the limit: the first one of a connection
// may, if it is zero, and those for which it fell a moment too late. When it rises nobody
// tells them, but when a request ends.
func (c *conn) wake() {
	if c.Available() > 0 {
		_, _ = c.RoundTrip(over)
	}
}

// over is a request that has ended before it began. Nothing of it is sent.
var over = func() *http.Request {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: "over.invalid"}, Header: make(http.Header)}
	return r.WithContext(ctx)
}()

// changed is called by net/http when more requests may be sent, or none any more.
func (c *conn) changed(*http.ClientConn) {
	if c.Err() != nil {
		c.origin.remove(c)
	} else {
		c.origin.look(false)
	}
}
