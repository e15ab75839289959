// Package pool keeps connections to origins between requests, so that the next
// request to the same destination spares the handshakes.
//
// It answers the threats of a connection that is used for another destination than
// it was checked for (the key is everything that was checked), of one that died or
// speaks unasked while it waited (it is looked at before it is used), and of
// connections that pile up (both numbers and time are bounded). It does not decide:
// a Permit is needed to get a connection, kept or new.
//
// Invariant: a connection is in the pool or with exactly one exchange.
package pool

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
)

// Limits of what is kept.
const (
	maxIdlePerDestination = 64
	maxIdle               = 512
	idleTime              = 60 * time.Second
	sweepEvery            = 15 * time.Second
	readerBytes           = 4096
)

// fresh is how long a connection need not be looked at: what its origin does to it in
// that time could as well happen right behind the look.
const fresh = 5 * time.Millisecond

// Config is what a Pool opens connections with.
type Config struct {
	Dial      func(context.Context, decide.Permit) (*net.TCPConn, error)
	Handshake func(ctx context.Context, c net.Conn, host string, protos []string) (*tls.Conn, error)
}

// Pool keeps connections. Make it with New and keep Run going. Safe for concurrent
// use.
type Pool struct {
	cfg  Config
	idle atomic.Int64

	mu           sync.Mutex
	destinations map[key]*Destination // guarded by mu
}

// key is everything a connection was checked for.
type key struct {
	host   string
	port   uint16
	tls    bool
	mode   decide.AddressMode
	listed string
}

func keyOf(p decide.Permit, tls bool) key {
	return key{p.Host(), p.Port(), tls, p.AddressMode(), p.Listed()}
}

// New makes a Pool.
func New(cfg Config) *Pool {
	return &Pool{cfg: cfg, destinations: make(map[key]*Destination)}
}

// Run closes what has waited for too long, until ctx ends; then everything.
func (p *Pool) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.sweep(time.Now().Add(time.Hour))
			return nil
		case now := <-tick.C:
			p.sweep(now.Add(-idleTime))
		}
	}
}

// Idle is the number of connections that wait.
func (p *Pool) Idle() int64 { return p.idle.Load() }

func (p *Pool) sweep(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, d := range p.destinations {
		if d.sweep(before) && d.users == 0 {
			delete(p.destinations, k)
		}
	}
}

// Destination is one origin under the terms of a Permit. Leave it with Close.
type Destination struct {
	pool  *Pool
	key   key
	users int // guarded by pool.mu

	// HTTP2 is set when the origin refused to speak HTTP/1.1, until it refuses to speak
	// HTTP/2; Newer when it spoke HTTP/2, and Older when it does not.
	HTTP2, Newer, Older atomic.Bool

	spoke atomic.Bool // TLS, once

	mu   sync.Mutex
	idle []*Conn // guarded by mu; the newest last
}

// Destination finds the destination of a Permit.
func (p *Pool) Destination(permit decide.Permit, tls bool) *Destination {
	k := keyOf(permit, tls)
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.destinations[k]
	if d == nil {
		d = &Destination{pool: p, key: k}
		p.destinations[k] = d
	}
	d.users++
	return d
}

// Close says that the caller asks this destination for nothing more.
func (d *Destination) Close() {
	d.pool.mu.Lock()
	d.users--
	d.pool.mu.Unlock()
}

// Serves reports whether d is the destination of a Permit, on the same terms.
func (d *Destination) Serves(permit decide.Permit) bool {
	return permit.Valid() && d.key == keyOf(permit, d.key.tls)
}

// TLS reports whether its connections are TLS.
func (d *Destination) TLS() bool { return d.key.tls }

// Waits reports whether a connection is kept.
func (d *Destination) Waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.idle) > 0
}

// kept takes the connection that was used last, nil when none waits; careful looks at it
// however shortly it waited.
func (d *Destination) kept(careful bool) *Conn {
	for {
		d.mu.Lock()
		n := len(d.idle)
		if n == 0 {
			d.mu.Unlock()
			return nil
		}
		c := d.idle[n-1]
		d.idle[n-1] = nil
		d.idle = d.idle[:n-1]
		d.mu.Unlock()
		d.pool.idle.Add(-1)
		if c.usable(careful) {
			c.Reused = true
			return c
		}
		c.raw.Close()
	}
}

// usable reports whether a connection that waited can carry another request. One that its
// origin is about to close would lose it.
func (c *Conn) usable(careful bool) bool {
	waited := time.Since(c.since)
	if most := c.KeptFor; most > 0 && waited >= max(most-closing, most/2) {
		return false
	}
	return !careful && waited < fresh || c.quiet()
}

// Get takes a kept connection or opens one. careful is for a request that cannot be
// repeated: an origin that hangs up right behind its response is noticed more often.
func (d *Destination) Get(ctx context.Context, permit decide.Permit, careful bool) (*Conn, error) {
	if !d.Serves(permit) {
		return nil, errors.New("BUG: a connection for another destination")
	}
	if c := d.kept(careful); c != nil {
		return c, nil
	}
	return d.Open(ctx, permit)
}

// Open opens a connection.
func (d *Destination) Open(ctx context.Context, permit decide.Permit) (*Conn, error) {
	c, err := d.open(ctx, permit)
	if d.Again(err) && ctx.Err() == nil {
		return d.open(ctx, permit)
	}
	return c, err
}

// Again reports whether err is the end of a handshake with an origin that spoke TLS before.
// A server that stops ends those it has not begun, and the next one is there already, or
// will be: nothing was asked of either.
func (d *Destination) Again(err error) bool {
	e, ok := errors.AsType[*origin.Error](err)
	return ok && e.Kind == origin.Closed && d.spoke.Load()
}

func (d *Destination) open(ctx context.Context, permit decide.Permit) (*Conn, error) {
	tcp, err := d.pool.cfg.Dial(ctx, permit)
	if err != nil {
		return nil, err
	}
	return d.Wrap(ctx, tcp)
}

var http1Only = []string{"http/1.1"}

// Wrap makes a connection of one that was just dialled for this destination, with a
// TLS handshake where the destination has one. It owns tcp.
func (d *Destination) Wrap(ctx context.Context, tcp *net.TCPConn) (*Conn, error) {
	control, err := tcp.SyscallConn()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	c := &Conn{raw: tcp, tcp: tcp, control: control, destination: d}
	c.Address = tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
	if d.key.tls {
		c.under = &underneath{TCPConn: tcp}
		t, err := d.pool.cfg.Handshake(ctx, c.under, d.key.host, http1Only)
		if err != nil {
			tcp.Close()
			return nil, err
		}
		c.raw = t
		d.spoke.Store(true)
	}
	c.R = bufio.NewReaderSize(c, readerBytes)
	return c, nil
}

// sweep closes what waits since before; it reports whether nothing is left.
func (d *Destination) sweep(before time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := 0
	for old < len(d.idle) && d.idle[old].since.Before(before) {
		go d.idle[old].raw.Close() // TLS writes its farewell
		old++
	}
	d.pool.idle.Add(int64(-old))
	d.idle = append([]*Conn(nil), d.idle[old:]...)
	return len(d.idle) == 0
}

// Conn is one connection to an origin. It belongs to one exchange, which ends with
// Release or Close.
type Conn struct {
	R       *bufio.Reader
	Address string // that was dialled
	Reused  bool   // it carried an exchange before
	// Personal is set when the origin may take whoever uses the connection for the client
	// that did (see Personal). Release does not keep it.
	Personal bool
	// KeptFor is how long the origin says that it keeps the connection between two
	// requests; 0: it does not say.
	KeptFor time.Duration

	raw         net.Conn
	tcp         *net.TCPConn
	under       *underneath // nil without TLS
	control     syscall.RawConn
	destination *Destination
	watch       *relay.Watch
	since       time.Time
}

// closing is how long before its end, by the origin's word, a connection is not used any
// more: as much as its last request takes to get there. Node's clients have the same.
const closing = time.Second

// Ended reports whether the origin ended the connection.
func (c *Conn) Ended() bool { return relay.EndOf(c.tcp) != relay.Open }

// Watch makes every byte that moves count for w.
func (c *Conn) Watch(w *relay.Watch) { c.watch = w }

// Read implements io.Reader, without the buffer of R.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.raw.Read(p)
	if n > 0 && c.watch != nil {
		c.watch.Mark()
	}
	return n, err
}

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.raw.Write(p)
	if n > 0 && c.watch != nil {
		c.watch.Mark()
	}
	return n, err
}

// SetDeadline bounds reading and writing.
func (c *Conn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// Stream is the connection for what is not a request: with the bytes that were read
// ahead, and without a watch.
func (c *Conn) Stream() net.Conn {
	c.watch = nil
	if c.R.Buffered() == 0 {
		return c.raw
	}
	return &ahead{c.raw, c.R}
}

// ahead is a connection whose reader holds bytes.
type ahead struct {
	net.Conn
	r *bufio.Reader
}

func (a *ahead) Read(p []byte) (int, error) {
	if a.r.Buffered() > 0 {
		return a.r.Read(p)
	}
	return a.Conn.Read(p)
}

// CloseWrite passes a half-close on.
func (a *ahead) CloseWrite() error {
	if w, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.raw.Close() }

// Abort ends the connection with a reset, so that the origin does not take what it
// got for complete.
func (c *Conn) Abort() {
	_ = c.tcp.SetLinger(0)
	c.tcp.Close()
}

// Release keeps the connection for the next request. The caller has read exactly
// one response to each request.
func (c *Conn) Release() {
	c.watch, c.since = nil, time.Now()
	d := c.destination
	if c.Personal || !c.idle() {
		c.raw.Close()
		return
	}
	if d.pool.idle.Add(1) > maxIdle {
		d.pool.idle.Add(-1)
		c.raw.Close()
		return
	}
	d.mu.Lock()
	if len(d.idle) >= maxIdlePerDestination {
		d.mu.Unlock()
		d.pool.idle.Add(-1)
		c.raw.Close()
		return
	}
	d.idle = append(d.idle, c)
	d.mu.Unlock()
}

// idle reports whether nothing was read ahead.
func (c *Conn) idle() bool { return c.R.Buffered() == 0 && !c.holdsMore() }

// Fit reports whether a connection that its client kept for itself can carry another
// exchange.
func (c *Conn) Fit() bool { return c.idle() && c.quiet() }

// holdsMore reports whether TLS has read more than was asked of it, or has ended: what
// it holds is not in the socket any more, where quiet looks.
func (c *Conn) holdsMore() bool {
	if c.under == nil {
		return false
	}
	c.under.dry = true // nothing is read of the socket
	var one [1]byte
	n, err := c.raw.Read(one[:])
	c.under.dry = false
	return n > 0 || err != errDry
}

// underneath is the connection below TLS. It belongs to whoever the Conn belongs to.
type underneath struct {
	*net.TCPConn
	dry bool
}

// Read implements io.Reader.
func (u *underneath) Read(p []byte) (int, error) {
	if u.dry {
		return 0, errDry
	}
	return u.TCPConn.Read(p)
}

// errDry is what TLS meets when it may not read. It is of the kind that TLS takes for
// the end of a deadline, behind which it reads on.
var errDry net.Error = dryError{}

type dryError struct{}

func (dryError) Error() string   { return "nothing is read" }
func (dryError) Timeout() bool   { return true }
func (dryError) Temporary() bool { return true }

// quiet reports whether nothing has come while the connection waited: neither its
// end nor bytes that answer no request.
func (c *Conn) quiet() bool {
	var one [1]byte
	var err error
	ctlErr := c.control.Control(func(fd uintptr) {
		_, _, err = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return ctlErr == nil && errors.Is(err, syscall.EAGAIN)
}
