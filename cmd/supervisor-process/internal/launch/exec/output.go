package exec

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// connectTerminal connects this process's own terminal, in raw mode, to the master of
// another, until restore is called, which first shows what is left, and closes it.
func connectTerminal(master *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(0)
	if err != nil {
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when the program's side is closed
	}()
	return func() {
		select {
		case <-shown:
		case <-time.After(time.Second): // something in the background holds the terminal
		}
		_ = term.Restore(0, old)
		master.Close()
	}, nil
}

// passable is where a program may write that runs with somebody else's rights.
type passable struct {
	fds    []int
	theirs []*os.File // the program's ends of pipes
	shown  chan struct{}
}

// passableOutput is these files, with a pipe in the place of a terminal: a program that has
// that could stay behind, and read what is typed there long after.
func passableOutput(files ...*os.File) (*passable, error) {
	p := &passable{shown: make(chan struct{})}
	var copying sync.WaitGroup
	for _, f := range files {
		to := f
		if term.IsTerminal(int(f.Fd())) {
			r, w, err := os.Pipe()
			if err != nil {
				p.sent()
				return nil, fmt.Errorf("make pipes: %w", err)
			}
			copying.Go(func() {
				defer r.Close()
				_, _ = io.Copy(f, r)
			})
			p.theirs, to = append(p.theirs, w), w
		}
		p.fds = append(p.fds, int(to.Fd())) // blocking, as programs expect
	}
	go func() {
		copying.Wait()
		close(p.shown)
	}()
	return p, nil
}

// sent closes this side's copies of what was passed on.
func (p *passable) sent() {
	for _, w := range p.theirs {
		w.Close()
	}
}

// show waits until what the program wrote is shown.
func (p *passable) show() {
	select {
	case <-p.shown:
	case <-time.After(time.Second): // something in the background holds a pipe
	}
}
