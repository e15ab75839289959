package exec

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
)

// quiet is after how long something in the background is taken to hold the output.
const quiet = time.Second

// connectTerminal connects this process's own terminal, in raw mode, to the master of
// another, until restore is called, which first shows what is left, and closes it.
func connectTerminal(master *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(0)
	if err != nil {
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	out := launch.Output{Alone: true}
	out.Copy(os.Stdout, master)
	return func() {
		out.Rest(quiet)
		_ = term.Restore(0, old)
		master.Close()
	}, nil
}

// passable is where a program may write that runs with somebody else's rights.
type passable struct {
	fds    []int
	theirs []*os.File // the program's ends of pipes
	ours   []*os.File
	out    launch.Output
}

// passableOutput is these files, with a pipe in the place of a terminal: a program that has
// that could stay behind, and read what is typed there long after.
func passableOutput(files ...*os.File) (*passable, error) {
	p := &passable{out: launch.Output{Alone: true}}
	for _, f := range files {
		to := f
		if term.IsTerminal(int(f.Fd())) {
			r, w, err := os.Pipe()
			if err != nil {
				p.close()
				return nil, fmt.Errorf("make pipes: %w", err)
			}
			p.out.Copy(f, r)
			p.theirs, p.ours, to = append(p.theirs, w), append(p.ours, r), w
		}
		p.fds = append(p.fds, int(to.Fd())) // blocking, as programs expect
	}
	return p, nil
}

// sent closes this side's copies of what was passed on.
func (p *passable) sent() {
	for _, w := range p.theirs {
		w.Close()
	}
}

// close gives up both sides.
func (p *passable) close() {
	p.sent()
	for _, r := range p.ours {
		r.Close()
	}
}

// show waits until what the program wrote is shown.
func (p *passable) show() {
	p.out.Rest(quiet)
	p.close()
}
