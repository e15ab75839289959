package console

import (
	"context"
	"errors"
	"io"
	"os"
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
type Lease struct{ c *Console }

// Lease takes the right, or returns nil when somebody has it.
func (c *Console) Lease() *Lease {
	select {
	case c.lease <- struct{}{}:
		return &Lease{c}
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
		typed := make(chan struct{})
		go func() {
			defer close(typed)
			if err := c.typeIn(ctx, v); err != nil {
				cancel(err)
			}
		}()
		go c.follow(ctx, v.Resizes)
		defer l.release(typed)
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

// release gives the lease back. A write that the program does not take is given up.
func (l *Lease) release(typed <-chan struct{}) {
	_ = l.c.input.SetWriteDeadline(time.Now())
	go func() {
		// The viewer's own reader may sleep on; it cannot write any more.
		select {
		case <-typed:
		case <-time.After(time.Second):
		}
		_ = l.c.input.SetWriteDeadline(time.Time{})
		<-l.c.lease
	}()
}

// follow sets the window of the one who types. The first size makes a full-screen
// program draw anew, which no kept output could replace.
func (c *Console) follow(ctx context.Context, sizes <-chan Size) {
	if c.terminal == nil || sizes == nil {
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
			if first && s.Rows > 0 {
				_ = c.terminal.Resize(s.Columns, s.Rows+1)
				first = false
			}
			_ = c.terminal.Resize(s.Columns, s.Rows)
		}
	}
}

// Control-P and Control-Q.
const (
	keyEscape = 0x10
	keyLeave  = 0x11
)

// typeIn passes input on. The end of input reaches a program on pipes.
func (c *Console) typeIn(ctx context.Context, v Viewer) error {
	buf := make([]byte, 4096)
	keys := detachKeys{on: v.Detach && c.terminal != nil}
	for {
		n, err := v.In.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		text, leave := keys.filter(buf[:n])
		if _, werr := c.input.Write(text); werr != nil && !errors.Is(werr, os.ErrClosed) {
			return errors.New("the program does not take input any more")
		}
		if leave {
			return ErrDetached
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_, _ = c.input.Write(keys.rest())
			if c.terminal == nil {
				c.input.Close()
			}
			return nil
		default:
			return nil
		}
	}
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
