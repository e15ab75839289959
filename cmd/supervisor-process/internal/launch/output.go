package launch

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Output is what a program writes on its way to whoever asked for the program. The zero value
// is ready to use.
type Output struct {
	// Alone says that only the program's own output counts, and nobody waits for what still
	// comes from what it left in the background.
	Alone bool

	copying sync.WaitGroup
	from    []*os.File
	moved   atomic.Int64 // bytes that were taken

	mu   sync.Mutex // held while something is read
	held int        // guarded by mu; copies that have read what is not taken yet
}

// mostHeld is more than a program's pipes or terminal, an SSH channel, and we, hold of its output.
const mostHeld = 2<<20 + 64<<10

// Copy starts to copy from, which does not block, until the program's side of it is closed, or
// nobody takes it. Every Copy comes before Rest.
func (o *Output) Copy(to io.Writer, from *os.File) {
	o.from = append(o.from, from)
	o.copying.Go(func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := o.read(from, buf)
			if n <= 0 || err != nil {
				return // the end, or EIO of a terminal
			}
			_, err = to.Write(buf[:n])
			o.moved.Add(int64(n))
			o.mu.Lock()
			o.held--
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

// read reads, and says in the same moment that something is held.
func (o *Output) read(from *os.File, buf []byte) (n int, err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		for readErr = unix.EINTR; readErr == unix.EINTR; {
			n, readErr = unix.Read(int(fd), buf)
		}
		if n > 0 {
			o.held++
		}
		return readErr != unix.EAGAIN
	})
	if err == nil {
		err = readErr
	}
	return n, err
}

// Rest waits until what the program wrote before it ended was taken, however slowly. When
// nothing came for a time, or more than can be of then, something in the background holds the
// output. What came and is not read yet is none of its silence, but that of a machine too busy
// to let us read.
func (o *Output) Rest(quiet time.Duration) {
	done := make(chan struct{})
	go func() { o.copying.Wait(); close(done) }()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	start := o.moved.Load()
	for last := start; ; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		idle := o.idle()
		now := o.moved.Load()
		if idle && (o.Alone || now == last) || now-start > mostHeld {
			return
		}
		last = now
	}
}

// idle reports whether nothing is held, and the program has written nothing that is not read.
func (o *Output) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held == 0 && !o.waits()
}

// waits reports whether the program has written what is not read yet.
func (o *Output) waits() bool {
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
