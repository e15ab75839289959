package console

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Viewer is somebody who attaches. A nil In is read-only.
type Viewer struct {
	In      io.Reader
	Out     io.Writer
	Errors  io.Writer
	Resizes <-chan Size // nil: no terminal
	Detach  bool        // Control-P Control-Q leaves
}

// Size is a window, in characters.
type Size struct{ Columns, Rows int }

// Lease is the right to type, size and signal. Only one exists at a time.
type Lease struct {
	c *Console

	mu   sync.Mutex // held while the right is used
	over bool       // guarded by mu
}

// Lease takes the right, or returns nil when somebody has it.
func (c *Console) Lease() *Lease {
	select {
	case c.lease <- struct{}{}:
		return &Lease{c: c}
	default:
		return nil
	}
}

// Attach shows the kept output and then what follows, and with a lease passes input
// on. It returns how the program ended, or ErrDetached, ErrBehind, or why the viewer
// could not be served. The lease is given back in any case.
func (c *Console) Attach(ctx context.Context, v Viewer, l *Lease) (core.Exit, error) {
	defer c.enter()()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if l != nil {
		defer l.release()
		go func() {
			if l.typeIn(v) {
				cancel(ErrDetached)
			}
		}()
		go l.follow(ctx, v.Resizes)
	}
	err := c.show(ctx, v.Out, v.Errors)
	if exit, ok := c.exited(); ok && err == nil {
		return exit, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return core.Exit{}, err
}

// use does what only the one who types may, unless the lease was given back.
func (l *Lease) use(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return os.ErrClosed
	}
	return f()
}

// release gives the lease back. A write that the program does not take is given up; the
// viewer's own reader may sleep on, and types nothing any more.
func (l *Lease) release() {
	_ = l.c.input.SetWriteDeadline(time.Now())
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	_ = l.c.input.SetWriteDeadline(time.Time{})
	<-l.c.lease
}

// follow sets the window of the one who types. The first size makes a full-screen
// program draw anew, which no kept output could replace.
func (l *Lease) follow(ctx context.Context, sizes <-chan Size) {
	if l.c.terminal == nil || sizes == nil {
		return
	}
	first := true
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			_ = l.use(func() error {
				if first && s.Rows > 0 {
					_ = l.c.terminal.Resize(s.Columns, s.Rows+1)
				}
				return l.c.terminal.Resize(s.Columns, s.Rows)
			})
			first = first && s.Rows <= 0
		}
	}
}

// Control-P and Control-Q.
const (
	keyEscape = 0x10
	keyLeave  = 0x11
)

// typeIn passes input on until its end, which reaches a program on pipes, or until the
// program takes none any more: its output and its exit are the viewer's all the same. It
// reports whether the viewer left.
func (l *Lease) typeIn(v Viewer) (left bool) {
	buf := make([]byte, 4096)
	keys := detachKeys{on: v.Detach && l.c.terminal != nil}
	for {
		n, err := v.In.Read(buf)
		text, leave := keys.filter(buf[:n])
		end := errors.Is(err, io.EOF)
		if end {
			text = append(text, keys.rest()...)
		}
		if werr := l.use(func() error { return l.c.put(text, end) }); werr != nil || err != nil || leave {
			return leave
		}
	}
}

// put writes input, and passes its end on.
func (c *Console) put(text []byte, end bool) error {
	_, err := c.input.Write(text)
	if end && c.terminal == nil {
		return c.input.Close()
	}
	return err
}

// detachKeys finds Control-P Control-Q, also when they come in two reads.
type detachKeys struct {
	on   bool
	held bool // a Control-P waits for what follows
	buf  []byte
}

// filter returns what the program gets. What follows the keys is discarded.
func (k *detachKeys) filter(in []byte) (out []byte, leave bool) {
	if !k.on {
		return in, false
	}
	k.buf = k.buf[:0]
	for _, b := range in {
		switch {
		case k.held && b == keyLeave:
			return k.buf, true
		case k.held && b == keyEscape:
			k.buf = append(k.buf, keyEscape) // the newer one waits
		case b == keyEscape:
			k.held = true
		case k.held:
			k.held = false
			k.buf = append(k.buf, keyEscape, b)
		default:
			k.buf = append(k.buf, b)
		}
	}
	return k.buf, false
}

// rest is what was held back when the input ended.
func (k *detachKeys) rest() []byte {
	if !k.held {
		return nil
	}
	k.held = false
	return []byte{keyEscape}
}
