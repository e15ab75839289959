package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Sizes of the copying loop.
const (
	bufferBytes = 32 << 10 // read when readable, held only while copying
	fullReads   = 4        // full buffers in a row before a direction is spliced
	spliceBytes = 8 << 20  // spliced at a time
)

// halfClosedIdle ends a tunnel whose one side has finished when the other one is
// quiet for this long.
const halfClosedIdle = 5 * time.Minute

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferBytes); return &b }}

// ErrIdle ends a tunnel in which nothing moved for the idle time.
var ErrIdle = errors.New("the tunnel was idle for too long")

// Tunnel is one raw tunnel. Early is what the client sent right behind its
// request; it goes to the upstream first. Idle bounds the time in which nothing
// moves in either direction.
type Tunnel struct {
	Client, Upstream *net.TCPConn
	Early            []byte
	Idle             time.Duration

	up, down atomic.Int64
}

// Moved returns the bytes from and to the client so far.
func (t *Tunnel) Moved() (up, down int64) { return t.up.Load(), t.down.Load() }

// Run copies both ways until both directions have ended, and closes both
// connections. The end of one direction is passed on as a half-close. It fails with
// the context's cause, with ErrIdle, or with the first error of a direction.
func (t *Tunnel) Run(ctx context.Context) error {
	var cause atomic.Pointer[error]
	end := func(err error) {
		if cause.CompareAndSwap(nil, &err) {
			// A reset, so that nobody takes a cut tunnel for a complete one.
			_ = t.Client.SetLinger(0)
			_ = t.Upstream.SetLinger(0)
			t.Client.Close()
			t.Upstream.Close()
		}
	}
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	defer stop()
	var half atomic.Bool
	idle := t.watch(&half, end)
	defer idle.Stop()

	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := t.direction(t.Client, t.Upstream, &t.down, &half); err != nil {
			end(err)
		}
	}()
	err := t.early()
	if err == nil {
		err = t.direction(t.Upstream, t.Client, &t.up, &half)
	}
	if err != nil {
		end(err)
	}
	<-done
	if p := cause.Load(); p != nil {
		return *p
	}
	t.Client.Close()
	t.Upstream.Close()
	return nil
}

func (t *Tunnel) early() error {
	n, err := t.Upstream.Write(t.Early)
	t.up.Add(int64(n))
	t.Early = nil
	return err
}

// watch compares the counters now and then, so that copying costs no timer.
func (t *Tunnel) watch(half *atomic.Bool, end func(error)) *time.Timer {
	var last int64 = -1
	var timer atomic.Pointer[time.Timer]
	quiet := time.Duration(0)
	step := max(t.Idle/4, time.Millisecond)
	first := time.AfterFunc(time.Hour, func() {
		moved := t.up.Load() + t.down.Load()
		quiet += step
		if moved != last {
			last, quiet = moved, 0
		}
		if quiet >= t.Idle || half.Load() && quiet >= halfClosedIdle {
			end(ErrIdle)
			return
		}
		timer.Load().Reset(step)
	})
	timer.Store(first)
	first.Reset(step)
	return first
}

// direction copies src to dst until src ends, then half-closes dst.
func (t *Tunnel) direction(dst, src *net.TCPConn, moved *atomic.Int64, half *atomic.Bool) error {
	err := pump(dst, src, moved)
	if err != nil {
		return err
	}
	half.Store(true)
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	return nil
}

// pump reads when there is something to read, with a buffer that is held only for
// that long; a direction that streams is handed to the kernel (splice) in pieces.
// So an idle direction holds neither a buffer nor a pipe.
func pump(dst, src *net.TCPConn, moved *atomic.Int64) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	full := 0
	for {
		n, err := readAndWrite(raw, dst, moved)
		switch {
		case err != nil:
			return err
		case n == 0:
			return nil
		case n < bufferBytes:
			full = 0
			continue
		}
		if full++; full < fullReads {
			continue
		}
		full = 0
		spliced, err := dst.ReadFrom(&io.LimitedReader{R: src, N: spliceBytes})
		moved.Add(spliced)
		if err != nil {
			return err
		}
		if spliced < spliceBytes {
			return nil // src ended
		}
	}
}

// readAndWrite moves one buffer; n is what was read, 0 at the end of src.
func readAndWrite(raw syscall.RawConn, dst *net.TCPConn, moved *atomic.Int64) (n int, err error) {
	var buf *[]byte
	var readErr error
	waitErr := raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[]byte)
		for {
			n, readErr = syscall.Read(int(fd), *buf)
			if readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	if err := errors.Join(waitErr, readErr); err != nil || n <= 0 {
		return 0, err
	}
	w, err := dst.Write((*buf)[:n])
	moved.Add(int64(w))
	return n, err
}
