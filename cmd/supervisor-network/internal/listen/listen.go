// Package listen accepts the workload's connections and makes a request of each:
// a CONNECT tunnel or an absolute-form request.
//
// It answers the threats of a client that sends nothing, sends slowly, sends too
// much, or opens too many connections: head size, head time and connections are
// bounded, and running out of descriptors pauses the loop instead of ending it. It
// does not judge what is asked for.
//
// Invariant: the handler is called exactly once for every accepted connection,
// with Conn.Err set when no request could be made of it, so that every connection
// can leave one record.
package listen

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Gauge counts the connections of all listeners against one limit. Make it with
// NewGauge. Safe for concurrent use.
type Gauge struct {
	limit    int64
	open     atomic.Int64
	refused  atomic.Uint64
	refusing atomic.Int64 // refused, and not closed yet
}

// NewGauge makes a Gauge that admits limit connections at a time.
func NewGauge(limit int) *Gauge { return &Gauge{limit: int64(limit)} }

// Open is the number of admitted connections now.
func (g *Gauge) Open() int64 { return g.open.Load() }

// Refused is the number of connections that were above the limit.
func (g *Gauge) Refused() uint64 { return g.refused.Load() }

// maxLingering is how many refused connections may wait for their clients to read
// the answer.
const maxLingering = 64

// enter takes a place. A refused connection takes none, so that a flood of them
// cannot keep the places of connections that ended.
func (g *Gauge) enter() (admitted, linger bool, leave func()) {
	if g.open.Add(1) <= g.limit {
		return true, true, func() { g.open.Add(-1) }
	}
	g.open.Add(-1)
	g.refused.Add(1)
	return false, g.refusing.Add(1) <= maxLingering, func() { g.refusing.Add(-1) }
}

// Options configures Serve.
type Options struct {
	HeadTimeout  time.Duration // from accept to a complete head
	DrainTimeout time.Duration // for handlers, after the context ended
	Gauge        *Gauge
	Log          *slog.Logger
}

// Kind says what a request asks for.
type Kind uint8

// The kinds of request.
const (
	Tunnel  Kind = iota + 1 // CONNECT
	Forward                 // absolute-form
)

// Conn is one accepted connection. It belongs to the handler until it returns;
// then it is closed.
type Conn struct {
	TCP      *net.TCPConn
	ID       core.RequestID
	Tuple    core.Tuple
	Accepted time.Time

	Err     *http1.SyntaxError // set: there is no request, and this is what to answer
	Kind    Kind
	Request *http1.Request
	target  http1.Target
	reader  *bufio.Reader // of TCP; holds what came behind the head
	linger  bool          // Answer may wait for the client to read
	later   func()        // of Later
}

// Target is where the request wants to go; zero when Err is set.
func (c *Conn) Target() http1.Target { return c.target }

// Reader reads what comes behind the request's head.
func (c *Conn) Reader() *bufio.Reader { return c.reader }

// Early returns the bytes that already arrived behind the head. They are no longer
// in Reader.
func (c *Conn) Early() []byte {
	early := make([]byte, c.reader.Buffered())
	_, _ = c.reader.Read(early) // what is buffered needs no I/O
	return early
}

// Replay makes Reader begin with bytes that were taken from it, after Done.
func (c *Conn) Replay(early []byte) {
	c.reader = readers.Get().(*bufio.Reader)
	c.reader.Reset(&replay{early, c.TCP})
	_, _ = c.reader.Peek(len(early)) // so that they are what is buffered
}

// replay reads early bytes and then the connection.
type replay struct {
	early []byte
	tcp   *net.TCPConn
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.early) == 0 {
		return r.tcp.Read(p)
	}
	n := copy(p, r.early)
	r.early = r.early[n:]
	return n, nil
}

// answerTimeout bounds the writing of a refusal.
const answerTimeout = 5 * time.Second

// Answer refuses the connection with a readable error.
func (c *Conn) Answer(status int, body any) {
	_ = c.TCP.SetDeadline(time.Now().Add(answerTimeout))
	method := ""
	if c.Request != nil {
		method = c.Request.Method
	}
	if http1.Answer(c.TCP, method, status, c.ID, body) != nil || c.TCP.CloseWrite() != nil || !c.linger {
		return
	}
	http1.Linger(c.TCP)
}

// Serve accepts on l and calls handle, each in its own goroutine, until ctx ends;
// it closes l, gives handlers DrainTimeout and then ends their context. It returns
// an error only when accepting cannot go on.
func Serve(ctx context.Context, l net.Listener, opt Options, handle func(context.Context, *Conn)) error {
	handlers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	uncongested(l)
	w := newWorkers(func(tcp *net.TCPConn) func() { return serveOne(handlers, tcp, opt, handle) })
	var back backoff
	for {
		c, err := l.Accept()
		if err == nil {
			back = backoff{}
			w.serve(c.(*net.TCPConn))
			continue
		}
		if ctx.Err() != nil {
			break
		}
		wait, fatal := back.after(err)
		if fatal {
			drain(w, cancel, 0)
			return err
		}
		opt.Log.Warn("accept failed; trying again", slog.Any("error", err), slog.Duration("pause", wait))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	drain(w, cancel, opt.DrainTimeout)
	return nil
}

// uncongested lets connections that l accepts send as fast as their clients read: they
// never leave the pod, and the host's choice may pace them by timers (BBR). Reno is in
// every kernel and may be chosen by everybody; accepted connections inherit it (tcp(7),
// TCP_CONGESTION). Without it they work as well, slower.
func uncongested(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, "reno")
	})
}

func drain(w *workers, cancel context.CancelFunc, limit time.Duration) {
	timer := time.AfterFunc(limit, cancel)
	defer timer.Stop()
	w.end()
}

// backoff turns accept errors into pauses.
type backoff struct {
	scarce  int // consecutive errors for want of a resource
	unknown int // consecutive errors of unknown meaning
}

func (b *backoff) after(err error) (wait time.Duration, fatal bool) {
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			wait = min(shortest<<min(b.scarce, 10), longest)
			b.scarce++
			return wait, false
		}
	}
	// What accept(2) passes on from the connection, and what a firewall makes of it.
	for _, e := range []error{syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EPROTO, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENONET, syscall.ENOPROTOOPT, syscall.EPERM, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return shortest, false
		}
	}
	for _, e := range []error{net.ErrClosed, os.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK} {
		if errors.Is(err, e) {
			return 0, true
		}
	}
	b.unknown++
	return shortest, b.unknown >= 5
}

// serveOne serves a connection, or as much of it as the handler does not leave for later.
func serveOne(ctx context.Context, tcp *net.TCPConn, opt Options, handle func(context.Context, *Conn)) (rest func()) {
	c := &Conn{TCP: tcp, ID: core.NewRequestID(), Accepted: time.Now(), Tuple: tupleOf(tcp)}
	admitted, linger, leave := opt.Gauge.enter()
	end := func() {
		c.Done()
		leave()
		tcp.Close()
	}
	c.linger = linger
	if admitted {
		c.read(ctx, opt.HeadTimeout)
	} else {
		c.Err = &http1.SyntaxError{Status: 503, Reason: core.ReasonTooManyConnections, Detail: "too many connections are open; close some and try again"}
	}
	handle(ctx, c)
	if c.later == nil {
		end()
		return nil
	}
	return func() {
		defer end()
		c.later()
	}
}

// Later leaves what is left of the connection to a goroutine of its own, once the handler has
// returned: what waits for long and needs little of a stack. It ends with that.
func (c *Conn) Later(rest func()) { c.later = rest }

// read takes the head and finds the target. It is not inlined: what it needs would lie on
// the stack of every connection that waits.
//
//go:noinline
func (c *Conn) read(ctx context.Context, limit time.Duration) {
	_ = c.TCP.SetReadDeadline(c.Accepted.Add(limit))
	// A client that is silent does not hold up the end of the daemon.
	stop := context.AfterFunc(ctx, func() { _ = c.TCP.SetReadDeadline(time.Unix(1, 0)) })
	c.reader = readers.Get().(*bufio.Reader)
	c.reader.Reset(c.TCP)
	c.Err = syntaxError(c.readRequest())
	if c.Err != nil && ctx.Err() != nil {
		c.Err = &http1.SyntaxError{Status: 503, Reason: core.ReasonShutdown, Detail: "the daemon is stopping"}
	}
	if stop() {
		_ = c.TCP.SetReadDeadline(time.Time{})
	}
}

func (c *Conn) readRequest() error {
	if first, err := c.reader.Peek(1); err == nil && first[0] == tlsHandshake {
		return &http1.SyntaxError{Status: 400, Reason: core.ReasonBadRequest,
			Detail: "the proxy itself speaks plain HTTP; its address starts with http://, also for https destinations"}
	}
	head, err := http1.ReadHead(c.reader, http1.MaxRequestHead)
	if err != nil {
		return err
	}
	if c.Request, err = http1.ParseRequest(head); err != nil {
		return err
	}
	return c.understand()
}

// tlsHandshake is the first byte of a TLS client (RFC 8446 section 5.1). It would
// wait for an answer instead of sending the end of a line.
const tlsHandshake = 22

// Done gives the connection's read buffer back. The handler calls it when it has
// taken Early and reads no more through Reader, so that an idle tunnel holds no
// buffer.
func (c *Conn) Done() {
	if c.reader == nil {
		return
	}
	c.reader.Reset(nil)
	readers.Put(c.reader)
	c.reader = nil
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, http1.MaxRequestHead) }}

func (c *Conn) understand() (err error) {
	if c.Request.Method == "CONNECT" {
		c.Kind = Tunnel
		c.target, err = c.Request.Authority()
		return err
	}
	c.Kind = Forward
	c.target, err = c.Request.Absolute()
	return err
}

func syntaxError(err error) *http1.SyntaxError {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		return e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &http1.SyntaxError{Status: 408, Reason: core.ReasonRequestTimeout, Detail: "the request head did not arrive in time"}
	}
	return &http1.SyntaxError{Status: 400, Reason: core.ReasonClientClosed, Detail: "the connection ended before a complete request head"}
}

func tupleOf(c *net.TCPConn) core.Tuple {
	return core.Tuple{Client: addrPort(c.RemoteAddr()), Server: addrPort(c.LocalAddr())}
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
