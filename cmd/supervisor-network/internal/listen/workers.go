package listen

import (
	"net"
	"sync"
	"sync/atomic"
)

// maxSpare is how many goroutines wait for a connection to serve.
const maxSpare = 64

// workers serve connections, each on a goroutine of its own. A goroutine whose
// connection ended waits for another one, because its stack has grown by then: dialling
// and the handshakes need several times what a new one has, and every growth copies it.
// What is left of a connection that only waits goes on on a new one, and a small stack.
type workers struct {
	handle func(*net.TCPConn) (rest func())
	next   chan *net.TCPConn
	spare  atomic.Int64
	all    sync.WaitGroup
}

func newWorkers(handle func(*net.TCPConn) (rest func())) *workers {
	return &workers{handle: handle, next: make(chan *net.TCPConn)}
}

// serve hands a connection to a goroutine that waits, or to a new one. It never waits.
func (w *workers) serve(c *net.TCPConn) {
	select {
	case w.next <- c:
	default:
		w.all.Go(func() { w.run(c) })
	}
}

// end waits until every connection is served. Nothing is served after it.
func (w *workers) end() {
	close(w.next)
	w.all.Wait()
}

func (w *workers) run(c *net.TCPConn) {
	for goesOn := true; goesOn; {
		if rest := w.handle(c); rest != nil {
			w.all.Go(rest)
		}
		if w.spare.Add(1) <= maxSpare {
			c, goesOn = <-w.next
		} else {
			goesOn = false
		}
		w.spare.Add(-1)
	}
}
