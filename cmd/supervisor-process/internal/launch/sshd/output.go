package sshd

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gliderlabs/ssh"
	"golang.org/x/sys/unix"
)

// output is what a program writes on its way to the client.
type output struct {
	from    []*os.File
	done    chan struct{} // closed when the program's side is closed, or the client gone
	writing atomic.Int32  // copies that wait for the client to take something
	moved   atomic.Int64  // bytes it took
}

// mostHeld is more than a program's pipes or terminal, and we, hold of its output.
const mostHeld = 2<<20 + 64<<10

// copyOut copies until the program's side is closed.
func (f *files) copyOut(c ssh.Session) *output {
	o := &output{from: []*os.File{f.out}, done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() { o.copy(c, f.out) })
	if f.err != nil {
		o.from = append(o.from, f.err)
		wg.Go(func() { o.copy(c.Stderr(), f.err) })
	}
	go func() { wg.Wait(); close(o.done) }()
	return o
}

func (o *output) copy(to io.Writer, from *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			o.writing.Add(1)
			_, lost := to.Write(buf[:n])
			o.moved.Add(int64(n))
			o.writing.Add(-1)
			if lost != nil {
				return
			}
		}
		if err != nil {
			return // io.EOF, or EIO of a terminal
		}
	}
}

// rest waits until the client has what the program wrote before it ended, however slow
// the client is. When nothing came for a time, or more than can be of then, something in
// the background holds the output. What came and is not read yet is none of its silence,
// but that of a machine too busy to let us read.
func (o *output) rest(quiet time.Duration) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	start := o.moved.Load()
	for last := start; ; {
		select {
		case <-o.done:
			return
		case <-tick.C:
		}
		idle := o.writing.Load() == 0 && !o.waits()
		now := o.moved.Load()
		if idle && now == last || now-start > mostHeld {
			return
		}
		last = now
	}
}

// waits reports whether the program has written what is not read yet.
func (o *output) waits() bool {
	for _, f := range o.from {
		raw, err := f.SyscallConn()
		if err != nil {
			continue // closed
		}
		poll := []unix.PollFd{{Events: unix.POLLIN}}
		_ = raw.Control(func(fd uintptr) {
			poll[0].Fd = int32(fd)
			_, _ = unix.Poll(poll, 0)
		})
		if poll[0].Revents&unix.POLLIN != 0 {
			return true
		}
	}
	return false
}
