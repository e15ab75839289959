// Package h2 keeps HTTP/2 connections to origins and sends permitted requests on
// them.
//
// It answers the threats of a connection that is used for another destination, or on
// other terms, than it was opened for; of an origin that makes answers large, and clients
// that do not read them; and of a request that is sent twice. What an origin sends is
// bounded by windows, by one budget for what is unread of all of them, and by the size of
// its fields, not inspected.
//
// Invariant: a connection serves requests of one host, port and
// set of terms only, and a request goes out only under a Permit for its host.
// Nothing is added to a request or its answer: no redirect is followed, nothing is
// unpacked, no cookie is kept.
//
// Framing is net/http's, which takes a connection that is no *tls.Conn, here a wire, for
// one behind its handshake (Transport.DialTLSContext) when unencrypted HTTP/2 is the only
// other protocol it knows.
//
// Sources: RFC 9113 sections 5.1.2, 5.2, 6.8, 8.7; net/http.ClientConn.
package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// Limits of one connection to an origin.
const (
	maxResponseHead  = 16 << 10
	maxFrame         = 16 << 10
	streamWindow     = 256 << 10
	perConn          = 100                          // requests at a time
	connectionWindow = (perConn + 1) * streamWindow // unread answers do not stop the others
)

// maxKept is from how many connections on, to all destinations, one that carries no
// request is closed.
const maxKept = 512

// continueWait is how long an origin is given to say whether it wants a body that was
// announced with Expect: many never say it.
const continueWait = time.Second

// ErrNoHTTP2 is an origin that did not negotiate h2.
var ErrNoHTTP2 = errors.New("the origin does not speak HTTP/2")

// ErrWrongPermit is a request for another destination than its Permit's.
var ErrWrongPermit = errors.New("BUG: the request is for another destination than its permit")

// ErrClosed is a request after Close.
var ErrClosed = errors.New("the pool is closed")

// Dial opens a connection to the Permit's destination, its TLS handshake done and
// its certificate verified. Its error reaches all who wait for the connection, or nobody:
// it carries nothing that has to be closed.
type Dial func(ctx context.Context, p decide.Permit) (*tls.Conn, error)

// Config configures a Pool. Dial is required.
type Config struct {
	Dial     Dial
	Idle     time.Duration // an unused connection, default 90 s
	MaxConns int           // per destination, default 8

	// Unread bounds what is unread of all answers; nil: nothing does. Where it has no room
	// nothing more is taken from origins, and of the answers of which nothing was read for
	// Patience, default 5 s, one after the other ends.
	Unread   Budget
	Patience time.Duration
}

// Pool sends requests. Make it with New. Safe for concurrent use.
type Pool struct {
	cfg       Config
	transport *http.Transport
	start     time.Time
	conns     atomic.Int64 // to all destinations
	answers   sync.Map     // of *answer
	relieving sync.Mutex
	waiting   atomic.Int32  // connections on which something came for which there is no room
	room      chan struct{} // wakes one of them
	ended     atomic.Uint64 // answers, for want of it
	begins    atomic.Int64  // of bodies, in bytes

	mu      sync.RWMutex
	closed  bool
	origins map[key]*origin
}

// key is all that a permitted connection may depend on.
type key struct {
	host   string
	port   uint16
	mode   decide.AddressMode
	listed string
}

func keyOf(p decide.Permit) key {
	return key{p.Host(), p.Port(), p.AddressMode(), p.Listed()}
}

// New makes a Pool.
func New(cfg Config) *Pool {
	if cfg.Idle <= 0 {
		cfg.Idle = 90 * time.Second
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 8
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 5 * time.Second
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &Pool{
		cfg:     cfg,
		start:   time.Now(),
		room:    make(chan struct{}, 1),
		origins: make(map[key]*origin),
		transport: &http.Transport{
			DialTLSContext:         handedOver,
			Protocols:              protocols,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxResponseHead,
			ExpectContinueTimeout:  continueWait,
			HTTP2: &http.HTTP2Config{
				MaxReadFrameSize:              maxFrame,
				MaxReceiveBufferPerConnection: connectionWindow,
				MaxReceiveBufferPerStream:     streamWindow,
				SendPingTimeout:               ping,
				PingTimeout:                   answerPing,
				WriteByteTimeout:              takeBytes,
			},
		},
	}
}

// dialled is the context key of the connection that a transport shall use.
type dialled struct{}

// handedOver is the transport's dialer: it has none of its own.
func handedOver(ctx context.Context, _, _ string) (net.Conn, error) {
	if conn, ok := ctx.Value(dialled{}).(*wire); ok {
		attended(conn.NetConn())
		return conn, nil
	}
	return nil, errors.New("BUG: a connection that was not dialled by the pool's owner")
}

// RoundTrip sends the request and returns the head of its answer; the body streams.
// The request ends with ctx, which has to end at the latest when the answer is done
// with. It is sent again only if the origin has said that it did nothing, and of its body
// no more was read than is kept; or if it is safe to repeat, has no body, and its
// connection was an old one that broke.
func (p *Pool) RoundTrip(ctx context.Context, permit decide.Permit, r *http.Request) (*http.Response, error) {
	return p.RoundTripWhile(ctx, permit, r, nil, nil)
}

// RoundTripWhile is RoundTrip for a request that may not be sent any more when it has
// waited for its place: fit is asked directly before each attempt, and an error of it is
// what is returned. The body is not closed by that. interim, unless it is nil, is told
// what comes before the answer, and not called any more when RoundTripWhile has returned.
func (p *Pool) RoundTripWhile(ctx context.Context, permit decide.Permit, r *http.Request, fit func() error, interim Interim) (*http.Response, error) {
	if !permit.Valid() || r.URL == nil || r.URL.Scheme != "https" || !names(permit, r.URL.Host) || r.Host != "" && !names(permit, r.Host) {
		return nil, ErrWrongPermit
	}
	if interim != nil {
		told := &interims{tell: interim}
		defer told.settle()
		ctx = httptrace.WithClientTrace(ctx, told.trace())
	}
	r = prepared(ctx, r)
	b := p.keepBody(r)
	defer b.settle()
	for attempt := 0; ; attempt++ {
		o, err := p.origin(keyOf(permit))
		if err != nil {
			return nil, err
		}
		c, fresh, err := o.acquire(ctx, permit)
		if err == errGone {
			attempt-- // nothing was tried
			continue
		}
		if err == nil && fit != nil {
			if err = fit(); err != nil {
				o.leave(c)
			}
		}
		if err != nil {
			return nil, err
		}
		resp, err := c.exchange(r)
		switch {
		case err == nil:
			closeWith(ctx, r.Body)
			return resp, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !repeatable(r, b, err, fresh, attempt):
			return nil, fmt.Errorf("send an HTTP/2 request to the origin: %w", err)
		}
	}
}

// closeWith closes a request body that is still sent when ctx ends. net/http waits for
// its next byte before it looks at the context.
func closeWith(ctx context.Context, body io.ReadCloser) {
	if body != nil && body != http.NoBody {
		context.AfterFunc(ctx, func() { _ = body.Close() })
	}
}

func names(p decide.Permit, authority string) bool {
	return http1.SameAuthority(authority, p.Host(), p.Port(), 443)
}

// prepared binds the request to ctx and keeps net/http from naming itself.
func prepared(ctx context.Context, r *http.Request) *http.Request {
	out := r.WithContext(ctx)
	if _, ok := r.Header["User-Agent"]; !ok {
		out.Header = r.Header.Clone()
		if out.Header == nil {
			out.Header = make(http.Header)
		}
		out.Header["User-Agent"] = []string{""} // nothing is sent
	}
	return out
}

// maxAttempts is how often a request is sent at most: what is given back once, by a limit
// of streams that fell or a connection that went away, may be so again.
const maxAttempts = 4

// repeatable reports whether a request that failed may be sent again.
func repeatable(r *http.Request, b *body, err error, fresh bool, attempt int) bool {
	if attempt == maxAttempts-1 {
		return false
	}
	if undone(err) {
		return b.again()
	}
	if _, ok := errors.AsType[streamError](err); ok || b != nil {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return !fresh
	default:
		return false
	}
}

// streamError has the shape that net/http's error converts itself to.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error implements error.
func (e streamError) Error() string { return fmt.Sprintf("stream reset with code %d", e.Code) }

// Close closes every connection, and ends what runs on them.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	all := p.origins
	p.origins = nil
	p.mu.Unlock()
	for _, o := range all {
		o.close()
	}
}

// origin returns the destination's connections.
func (p *Pool) origin(k key) (*origin, error) {
	p.mu.RLock()
	o, closed := p.origins[k], p.closed
	p.mu.RUnlock()
	if o != nil {
		return o, nil
	}
	if closed {
		return nil, ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if o = p.origins[k]; o == nil {
		o = &origin{pool: p, key: k}
		p.origins[k] = o
	}
	return o, nil
}

// forget drops a destination that has no connection left.
func (p *Pool) forget(o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.conns) == 0 && !o.dialling && len(o.waiting) == 0 && p.origins[o.key] == o {
		delete(p.origins, o.key)
		o.gone = true
	}
}
