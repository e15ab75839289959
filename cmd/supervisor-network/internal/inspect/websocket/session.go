package websocket

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Session is one WebSocket after its handshake. What is not set refuses.
type Session struct {
	Client, Upstream           Stream
	ClientEarly, UpstreamEarly []byte // what came right behind the handshake; Run changes it
	// Deflate says that permessage-deflate is agreed with both sides, as Agreement has it.
	Deflate bool
	// Judge decides about one text message of the client, inflated and whole. It
	// returns what is sent instead, nil for the message itself, which it must neither
	// change nor keep. An error refuses: a *CloseError as it says, any other as 1008.
	// The context ends with the session.
	Judge func(ctx context.Context, text []byte) (replacement []byte, err error)
	// Binary lets the client's binary messages pass, unread.
	Binary bool
	// Clean, when set, is given the messages of the server piece by piece, as they come,
	// with whether they are text, and returns what the client gets in the place of the
	// piece; it may hold a part back until the next one, but for the last of a message. It
	// must not keep the piece. Messages that are compressed cannot be cleaned: it needs a
	// handshake WithoutExtensions.
	Clean func(piece []byte, text, last bool) []byte
	// Denied is told of each refused message once, before the client is. It may be nil.
	Denied func(*CloseError)
	// Goodbye is how both sides are told that the context of Run has ended, of which
	// cause is the cause; without one they are told 1001.
	Goodbye func(cause error) *CloseError
	// Assemblies is shared by all sessions of the process.
	Assemblies *Assemblies
	// Idle ends a session in which nothing moves in either direction; zero is never.
	Idle time.Duration
}

// Direction is what was relayed one way.
type Direction struct {
	Messages int64
	Bytes    int64 // on the wire, control frames included
}

// Stats is what a session came to.
type Stats struct {
	Up, Down Direction
	// Close is the code of the first close frame, whoever sent it: CodeNone for one
	// without a code, CodeAbnormal when there was none.
	Close Code
}

// counter counts one direction; the idle timer looks on.
type counter struct{ messages, bytes atomic.Int64 }

func (c *counter) stats() Direction { return Direction{c.messages.Load(), c.bytes.Load()} }

// running is a Session under way.
type running struct {
	*Session
	ctx        context.Context
	cancel     context.CancelFunc
	client     source
	upstream   source
	toClient   sink
	toUpstream sink
	up, down   counter

	order   order // of the client's frames
	message message
	masks   masks

	cause      atomic.Pointer[CloseError] // why this side ends the session
	code       atomic.Int32               // Stats.Close
	deaf, mute atomic.Bool                // the client is not parsed any more; the server has ended
}

// Run relays until both directions have ended, and closes both streams. It returns
// nil after an end that the two sides made themselves, a *CloseError when this side
// ended the session, and else the error of a stream.
func (s *Session) Run(ctx context.Context) (Stats, error) {
	x := &running{Session: s}
	x.ctx, x.cancel = context.WithCancel(ctx)
	defer x.cancel()
	x.client.init(s.Client, s.ClientEarly, readWait)
	x.upstream.init(s.Upstream, s.UpstreamEarly, 0)
	x.toClient.init(s.Client, true)
	x.toUpstream.init(s.Upstream, false)
	x.order = order{masked: true, deflate: s.Deflate}
	x.message.x = x
	s.ClientEarly, s.UpstreamEarly = nil, nil

	stop := x.onCancel(ctx)
	quiet := x.watch()
	var downErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		downErr = x.downward()
	}()
	upErr := x.upward()
	<-done
	quiet()
	stop()
	x.client.release()
	x.upstream.release()
	s.Client.Close()
	s.Upstream.Close()
	return x.result(upErr, downErr)
}

func (x *running) result(up, down error) (Stats, error) {
	stats := Stats{Up: x.up.stats(), Down: x.down.stats(), Close: Code(x.code.Load())}
	if stats.Close == 0 {
		stats.Close = CodeAbnormal
	}
	if e := x.cause.Load(); e != nil {
		return stats, e
	}
	return stats, errors.Join(up, down)
}

// onCancel ends the session with its context. The function it returns waits for that.
func (x *running) onCancel(ctx context.Context) func() {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		var e *CloseError
		if x.Goodbye != nil {
			e = x.Goodbye(context.Cause(ctx))
		}
		if e == nil {
			e = &CloseError{Code: CodeGoingAway, Reason: core.ReasonShutdown, Detail: "the session was ended", Err: context.Cause(ctx)}
		}
		x.end(e, CodeGoingAway, false)
	})
	return func() {
		if !stop() {
			<-ended
		}
	}
}

// watch ends an idle session. It compares counters now and then, so that a message
// costs no timer. The function it returns ends that.
func (x *running) watch() func() {
	if x.Idle <= 0 {
		return func() {}
	}
	var mu sync.Mutex
	over, last, quiet := false, int64(-1), time.Duration(0)
	step := max(x.Idle/4, time.Millisecond)
	var timer *time.Timer
	mu.Lock() // until timer is set, which the function reads
	timer = time.AfterFunc(step, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		quiet += step
		if moved := x.up.bytes.Load() + x.down.bytes.Load(); moved != last {
			last, quiet = moved, 0
		}
		if quiet >= x.Idle {
			x.end(&CloseError{Code: CodeGoingAway, Reason: core.ReasonIdle, Detail: "the session was idle for too long"}, CodeGoingAway, false)
			return
		}
		timer.Reset(step)
	})
	mu.Unlock()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// end is the end of the session by this side: close frames both ways, and a moment for
// the answers. Only the first one counts.
func (x *running) end(e *CloseError, origin Code, denied bool) {
	if !e.Code.sendable() {
		e = &CloseError{CodePolicy, e.Reason, e.Detail, e.Err}
	}
	if !x.cause.CompareAndSwap(nil, e) {
		return
	}
	x.cancel()
	if denied && x.Denied != nil {
		x.Denied(e)
	}
	x.closed(e.Code)
	x.toClient.clock.finish(lingerWait)
	x.toUpstream.clock.finish(lingerWait)
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // it does not fail
	up, down := closeFrame(origin, "", &mask), closeFrame(e.Code, e.Detail, nil)
	// A side that does not read holds the other one's close frame up only when there is
	// no other way.
	toClient, toUpstream := x.toClient.close(down, false), x.toUpstream.close(up, false)
	if !toClient {
		x.toClient.close(down, true)
	}
	if !toUpstream {
		x.toUpstream.close(up, true)
	}
	// After the close frames: a side whose reading ends must not end the other one first.
	x.client.clock.finish(lingerWait)
	x.upstream.clock.finish(lingerWait)
}

// hangUp passes the end of one side on to the other, unless this side ends the session
// and so writes its own end.
func (x *running) hangUp(k *sink) {
	if x.cause.Load() == nil {
		k.shut()
	}
}

// closed notes the code of the first close frame.
func (x *running) closed(code Code) { x.code.CompareAndSwap(0, int32(code)) }

// finished says that one of the two directions which could still close the client in
// an orderly way has ended; when both have, the client is told by the end of its
// stream.
func (x *running) finished(which *atomic.Bool) {
	which.Store(true)
	if x.deaf.Load() && x.mute.Load() {
		x.hangUp(&x.toClient)
	}
}

// orderly reports whether err is an end that needs no mention.
func orderly(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, errQuiet) || errors.Is(err, errOver)
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
