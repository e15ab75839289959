package relay

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// Pipe is a tunnel between two connections that are not plain TCP on both sides, as
// those inside TLS. Client reads through ClientReader, which may hold bytes already.
type Pipe struct {
	Client       net.Conn
	ClientReader *bufio.Reader
	Upstream     net.Conn
	Idle         time.Duration
	// First is as in Tunnel.
	First func(prefix []byte) (take, more bool)

	up, down atomic.Int64
	half     atomic.Bool
	pausing  atomic.Bool
}

// Moved returns the bytes from and to the client so far.
func (p *Pipe) Moved() (up, down int64) { return p.up.Load(), p.down.Load() }

// Run copies both ways until both directions have ended, and closes both
// connections. It ends as Tunnel.Run does; with ErrTaken, both stay open.
func (p *Pipe) Run(ctx context.Context) error {
	var cause atomic.Pointer[error]
	end := func(err error) {
		cause.CompareAndSwap(nil, &err)
		now := time.Unix(1, 0) // each time: a pause may just have taken one back
		_, _ = p.Client.SetDeadline(now), p.Upstream.SetDeadline(now)
	}
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	defer stop()
	watch := NewWatch(min(p.Idle, HalfClosedIdle)/4, func() { end(ErrIdle) })
	watch.Begin(p.Idle)
	defer watch.Stop()

	down := p.receive(watch, end)
	if p.First != nil && p.first() {
		if p.pause(down) && cause.Load() == nil {
			return ErrTaken
		}
		down = p.receive(watch, end)
	}
	if err := p.copy(p.Upstream, p.ClientReader, &p.up, watch); err != nil {
		end(err)
	}
	<-down
	_, _ = p.Client.Close(), p.Upstream.Close()
	if c := cause.Load(); c != nil {
		return *c
	}
	return nil
}

func (p *Pipe) receive(watch *Watch, end func(error)) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := p.copy(p.Client, p.Upstream, &p.down, watch)
		if err != nil && !(p.pausing.Load() && errors.Is(err, os.ErrDeadlineExceeded)) {
			end(err)
		}
	}()
	return done
}

func (p *Pipe) first() bool {
	for n := 1; ; n = p.ClientReader.Buffered() + 1 {
		if _, err := p.ClientReader.Peek(n); err != nil {
			return false
		}
		prefix, _ := p.ClientReader.Peek(p.ClientReader.Buffered())
		take, more := p.First(prefix)
		if !more || p.down.Load() > 0 || len(prefix) >= peekBytes {
			return take && p.down.Load() == 0
		}
	}
}

func (p *Pipe) pause(down <-chan struct{}) bool {
	p.pausing.Store(true)
	_ = p.Upstream.SetReadDeadline(time.Unix(1, 0))
	<-down
	_ = p.Upstream.SetReadDeadline(time.Time{})
	p.pausing.Store(false)
	return p.down.Load() == 0 && !p.half.Load()
}

// copy moves one direction and passes its end on.
func (p *Pipe) copy(dst net.Conn, src io.Reader, moved *atomic.Int64, watch *Watch) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			w, werr := dst.Write((*buf)[:n])
			moved.Add(int64(w))
			watch.Mark()
			if werr != nil {
				return werr
			}
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		p.half.Store(true)
		watch.Begin(min(p.Idle, HalfClosedIdle))
		if c, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite() // a peer that is gone shows at the next read
		}
		return nil
	}
}
