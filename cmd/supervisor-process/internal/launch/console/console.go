package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/pkg/core"
)

// Console is the input and output of one program. Make it with Open. Safe for
// concurrent use.
type Console struct {
	Files    [3]*os.File // for the program; Launched closes them
	terminal *launch.Terminal

	history history
	input   *os.File
	lease   chan struct{} // holds one token while somebody types
	copying sync.WaitGroup
	outputs []*os.File

	endOnce sync.Once
	exit    core.Exit
	ending  sync.Mutex     // held to close ended and to count a viewer
	ended   chan struct{}  // closed when exit is known and all output is kept
	viewers sync.WaitGroup // those who came before the end
}

// Open makes pipes, or a terminal of the user's, for a program.
func Open(terminal bool, uid uint32) (*Console, error) {
	c := &Console{lease: make(chan struct{}, 1), ended: make(chan struct{})}
	if terminal {
		t, err := launch.OpenTerminal(uid)
		if err != nil {
			return nil, err
		}
		c.terminal, c.input, c.outputs = t, t.Master, []*os.File{t.Master}
		c.Files = [3]*os.File{t.Slave, t.Slave, t.Slave}
		return c, nil
	}
	for i := range c.Files {
		r, w, err := os.Pipe()
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("make pipes: %w", err)
		}
		ours, theirs := r, w
		if i == 0 {
			ours, theirs = w, r
			c.input = w
		} else {
			c.outputs = append(c.outputs, ours)
		}
		_ = theirs.Fd() // blocking, as programs expect
		c.Files[i] = theirs
	}
	return c, nil
}

// Terminal reports whether the program has one.
func (c *Console) Terminal() bool { return c.terminal != nil }

// Launched closes this side's copies of the program's ends and starts copying: output to
// out and errors, input from in until its end, which a program on pipes sees. While a
// viewer types, the container's input waits.
func (c *Console) Launched(in io.Reader, out, errs io.Writer) {
	c.closeFiles()
	for i, from := range c.outputs {
		to := []io.Writer{out, errs}[i]
		c.copying.Go(func() { c.copyOut(Stream(i), from, to) })
	}
	go c.copyIn(in)
}

func (c *Console) closeFiles() {
	for _, f := range c.Files {
		if f != nil {
			f.Close()
		}
	}
}

func (c *Console) copyOut(s Stream, from *os.File, to io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				from.Close() // the program learns of it as it would without us
				return
			}
			c.history.add(s, buf[:n])
		}
		if err != nil {
			return // io.EOF, or EIO of a terminal
		}
	}
}

func (c *Console) copyIn(in io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			select {
			case c.lease <- struct{}{}:
			case <-c.ended:
				return
			}
			_, werr := c.input.Write(buf[:n])
			<-c.lease
			if werr != nil {
				return
			}
		}
		if err == nil {
			continue
		}
		if c.terminal == nil && errors.Is(err, io.EOF) {
			c.input.Close()
		}
		return
	}
}

// Resize sets the size of the terminal, unless a viewer who types has set it.
func (c *Console) Resize(columns, rows int) {
	if c.terminal == nil {
		return
	}
	select {
	case c.lease <- struct{}{}:
		_ = c.terminal.Resize(columns, rows)
		<-c.lease
	default:
	}
}

// Finish tells every viewer how the program ended, after its last output, and waits
// for them up to the time given. The program's other processes must be gone.
func (c *Console) Finish(exit core.Exit, patience time.Duration) {
	c.endOnce.Do(func() {
		within(patience, c.copying.Wait)
		c.exit = exit
		c.ending.Lock()
		close(c.ended)
		c.ending.Unlock()
		within(patience, c.viewers.Wait)
		c.Close()
	})
}

// within runs f, but does not wait longer for it.
func within(d time.Duration, f func()) {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(d):
	}
}

// Close releases everything. A program that still runs loses its terminal or pipes.
func (c *Console) Close() {
	c.closeFiles()
	if c.input != nil {
		c.input.Close()
	}
	for _, f := range c.outputs {
		f.Close()
	}
}

// enter counts a viewer, whom Finish waits for. One who comes after the end still sees
// everything, but is not waited for: a WaitGroup must not grow from zero beside its Wait.
func (c *Console) enter() (leave func()) {
	c.ending.Lock()
	defer c.ending.Unlock()
	if _, over := c.exited(); over {
		return func() {}
	}
	c.viewers.Add(1)
	return c.viewers.Done
}

// exited returns how the program ended, if it has.
func (c *Console) exited() (core.Exit, bool) {
	select {
	case <-c.ended:
		return c.exit, true
	default:
		return core.Exit{}, false
	}
}

// ErrBehind is a viewer that was too slow for the output.
var ErrBehind = errors.New("this viewer fell behind the output; attach again")

// ErrDetached is a viewer that left by the detach keys.
var ErrDetached = errors.New("detached")

// show writes output to a viewer until it ends.
func (c *Console) show(ctx context.Context, out, errs io.Writer) error {
	at := c.history.start()
	for {
		stream, data, lost, ended := c.history.next(ctx, &at, c.ended)
		switch {
		case lost:
			return ErrBehind
		case ended:
			return ctx.Err()
		}
		to := out
		if stream == Errors {
			to = errs
		}
		if _, err := to.Write(data); err != nil {
			return fmt.Errorf("show output: %w", err)
		}
	}
}
