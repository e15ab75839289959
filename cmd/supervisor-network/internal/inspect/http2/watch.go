package http2

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The causes with which a watch ends a stream's context.
var (
	ErrStalled = errors.New("http2: the client does not take what is sent to it")
	ErrIdle    = errors.New("http2: nothing moved on the stream for too long")
)

// watch ends a stream on which nothing moves. A client that keeps its window shut,
// answers pings and reads on is alive to the library for ever.
type watch struct {
	control     *http.ResponseController
	cancel      context.CancelCauseFunc
	stall, idle time.Duration
	start       time.Time
	last        atomic.Int64 // time of the last movement, since start

	mu      sync.Mutex
	timer   *time.Timer
	writing time.Duration // when the write that runs began, since start; 0: none
	ended   bool
}

func newWatch(control *http.ResponseController, cancel context.CancelCauseFunc, stall, idle time.Duration) *watch {
	w := &watch{control: control, cancel: cancel, stall: stall, idle: idle, start: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(min(stall, idle), w.tick)
	return w
}

func (w *watch) moved() { w.last.Store(int64(time.Since(w.start))) }

// tick looks at the stream and sets the timer anew.
func (w *watch) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	now := time.Since(w.start)
	idle := now - time.Duration(w.last.Load())
	next := w.idle - idle
	if w.writing != 0 {
		next = min(next, w.stall-(now-w.writing))
	} else {
		next = min(next, w.stall)
	}
	if next > 0 {
		w.timer.Reset(next)
		return
	}
	if w.writing != 0 && now-w.writing >= w.stall {
		w.cancel(ErrStalled)
	} else {
		w.cancel(ErrIdle)
	}
	w.breakWrite()
}

// postpone leaves it to the user of the stream to find that nothing moves, first.
func (w *watch) postpone() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle *= 2
}

// interrupt ends a write that runs; the caller has ended the context.
func (w *watch) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breakWrite()
}

// lastMoment is what a write has that runs when a call of gRPC is revoked: where the client
// takes what is sent to it, the call can still be told why it ends.
const lastMoment = 250 * time.Millisecond

// hurry is interrupt for a write that is not over in a moment.
func (w *watch) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	running := w.writing
	if running == 0 || w.ended {
		return
	}
	time.AfterFunc(lastMoment, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.writing == running { // the same, as nothing else is written when the context has ended
			w.breakWrite()
		}
	})
}

// breakWrite resets the stream when the handler is blocked in a write. The handler
// cannot return meanwhile: it needs the lock to leave the write.
func (w *watch) breakWrite() {
	if w.writing != 0 && !w.ended {
		_ = w.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// write writes p, or flushes when p is nil, under the watch.
func (w *watch) write(ctx context.Context, to http.ResponseWriter, p []byte) (n int, err error) {
	if err := w.begin(ctx); err != nil {
		return 0, err
	}
	if p == nil {
		err = w.control.Flush()
	} else {
		n, err = to.Write(p)
	}
	w.wrote()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return n, err
}

// inform writes the head of an interim response under the watch. The library says nothing
// of how that went.
func (w *watch) inform(ctx context.Context, to http.ResponseWriter, status int) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	to.WriteHeader(status)
	w.wrote()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (w *watch) wrote() {
	w.mu.Lock()
	w.writing = 0
	w.mu.Unlock()
	w.moved()
}

func (w *watch) begin(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.writing = max(1, time.Since(w.start))
	return nil
}

func (w *watch) end() {
	w.mu.Lock()
	w.ended = true
	w.timer.Stop()
	w.mu.Unlock()
	w.cancel(context.Canceled)
}
