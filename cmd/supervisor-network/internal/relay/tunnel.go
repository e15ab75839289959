package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of the copying loop.
const (
	bufferBytes = 32 << 10 // read when readable, held only while copying
	fullReads   = 4        // full buffers in a row before a direction is spliced
	spliceBytes = 1 << 20  // spliced at a time
)

// spliceTime is how long a splice waits for more. Behind it the direction is read
// again, so that one that fell quiet gives its pipe back and is seen to be quiet.
const spliceTime = time.Second

// HalfClosedIdle ends a tunnel whose one side has finished when the other one is
// quiet for this long.
const HalfClosedIdle = 5 * time.Minute

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferBytes); return &b }}

// ErrIdle ends a tunnel in which nothing moved for the idle time.
var ErrIdle = errors.New("the tunnel was idle for too long")

// ErrTaken ends a tunnel whose first bytes First wants to look into.
var ErrTaken = errors.New("the tunnel is not raw")

// Tunnel is one raw tunnel. Early is what the client sent right behind its
// request; it goes to the upstream first. Idle bounds the time in which nothing
// moves in either direction.
type Tunnel struct {
	Client, Upstream *net.TCPConn
	Early            []byte
	Idle             time.Duration
	// First, when set, judges what the client sends first, Early included: it says
	// whether to take the tunnel over, or that it needs more bytes for that. It is not
	// asked once the upstream has spoken. A tunnel that is taken ends with ErrTaken;
	// no byte of it has moved.
	First func(prefix []byte) (take, more bool)

	up, down side
	pausing  atomic.Bool // the upstream's direction is to stop for First
}

// side is one direction: the bytes it moved, and whether it has ended.
type side struct {
	moved atomic.Int64
	over  atomic.Bool
}

// Moved returns the bytes from and to the client so far.
func (t *Tunnel) Moved() (up, down int64) { return t.up.moved.Load(), t.down.moved.Load() }

// half reports whether one direction has ended.
func (t *Tunnel) half() bool { return t.up.over.Load() || t.down.over.Load() }

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
	defer t.watch(end)()

	down := t.receive(end)
	if t.First != nil && t.first() {
		if t.pause(down) {
			return ErrTaken
		}
		down = t.receive(end) // the upstream was first after all
	}
	err := t.early()
	if err == nil {
		err = direction(t.Upstream, t.Client, &t.up, &t.down)
	}
	if err != nil {
		end(err)
	}
	<-down
	if p := cause.Load(); p != nil {
		return *p
	}
	t.Client.Close()
	t.Upstream.Close()
	return nil
}

// receive copies from the upstream until it has finished, or is paused.
func (t *Tunnel) receive(end func(error)) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := direction(t.Client, t.Upstream, &t.down, &t.up)
		if err != nil && !(t.pausing.Load() && errors.Is(err, os.ErrDeadlineExceeded)) {
			end(err)
		}
	}()
	return done
}

// first asks First about what the client sends, without taking it from the
// connection.
func (t *Tunnel) first() (take bool) {
	raw, err := t.Client.SyscallConn()
	if err != nil {
		return false
	}
	prefix := append(make([]byte, 0, len(t.Early)+peekBytes), t.Early...)
	for {
		take, more := t.First(prefix)
		if !more || t.down.moved.Load() > 0 || len(prefix) == cap(prefix) {
			return take && t.down.moved.Load() == 0
		}
		have := len(prefix)
		prefix = prefix[:have+peek(raw, prefix[len(t.Early):cap(prefix)], have-len(t.Early))]
		if len(prefix) == have {
			return false // it ended
		}
	}
}

// peekBytes is more than any protocol needs to be told apart.
const peekBytes = 64

// peek waits until there are more than had bytes, and returns how many more; 0 at the
// end of the connection.
func peek(raw syscall.RawConn, buf []byte, had int) (more int) {
	n, err := 0, error(nil)
	waitErr := raw.Read(func(fd uintptr) bool {
		n, _, err = syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			return false
		case err != nil, n == 0:
			return true
		default:
			return n > had || finished(fd) // else the next segment wakes us
		}
	})
	if waitErr != nil || err != nil || n <= had {
		return 0
	}
	return n - had
}

// finished reports whether the peer has sent all it will: the bytes that wait hide it
// from a peek.
func finished(fd uintptr) bool {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State != unix.BPF_TCP_ESTABLISHED
}

// pause stops the upstream's direction; it fails when the upstream has spoken or
// ended meanwhile.
func (t *Tunnel) pause(down <-chan struct{}) bool {
	t.pausing.Store(true)
	for again, stopped := time.NewTicker(10*time.Millisecond), false; !stopped; {
		_ = t.Upstream.SetReadDeadline(time.Unix(1, 0)) // a splice sets its own over it
		select {
		case <-down:
			again.Stop()
			stopped = true
		case <-again.C:
		}
	}
	_ = t.Upstream.SetReadDeadline(time.Time{})
	t.pausing.Store(false)
	return t.down.moved.Load() == 0 && !t.half()
}

func (t *Tunnel) early() error {
	if len(t.Early) == 0 {
		return nil // and not a system call for nothing
	}
	n, err := t.Upstream.Write(t.Early)
	t.up.moved.Add(int64(n))
	t.Early = nil
	return err
}

// watch compares the counters now and then, so that copying costs no timer. The
// function it returns ends that.
func (t *Tunnel) watch(end func(error)) func() {
	var last int64 = -1
	var timer *time.Timer
	var over atomic.Bool
	quiet := time.Duration(0)
	step := min(max(t.Idle/4, time.Millisecond), HalfClosedIdle/4)
	timer = time.AfterFunc(time.Hour, func() {
		if over.Load() { // stop came while this function set the timer anew
			return
		}
		moved := t.up.moved.Load() + t.down.moved.Load()
		quiet += step
		if moved != last {
			last, quiet = moved, 0
		}
		if quiet >= t.Idle || t.half() && quiet >= HalfClosedIdle {
			end(ErrIdle)
			return
		}
		timer.Reset(step)
	})
	timer.Reset(step) // not before timer is set, which the function reads
	return func() {
		over.Store(true)
		timer.Stop()
	}
}

// direction copies src to dst until src ends, then half-closes dst; behind the end of the
// other direction it closes both, which tells dst the same with a system call less.
func direction(dst, src *net.TCPConn, own, other *side) error {
	if err := pump(dst, src, &own.moved); err != nil {
		return err
	}
	if other.over.Load() {
		_, _ = dst.Close(), src.Close()
		return nil
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	own.over.Store(true) // from now on the other direction closes them
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
		if ended, err := splice(dst, src, moved); ended || err != nil {
			return err
		}
	}
}

// splice lets the kernel copy until src ends or pauses.
func splice(dst, src *net.TCPConn, moved *atomic.Int64) (ended bool, err error) {
	defer func() { _ = src.SetReadDeadline(time.Time{}) }()
	for {
		_ = src.SetReadDeadline(time.Now().Add(spliceTime))
		n, err := dst.ReadFrom(&io.LimitedReader{R: src, N: spliceBytes})
		moved.Add(n)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil // nothing was lost: what left src has reached dst
		case err != nil:
			return true, err
		case n < spliceBytes:
			return true, nil
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
