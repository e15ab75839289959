package listen

import (
	"net"
	"testing"
	"testing/synctest"
)

func TestConnectionsNeverWaitForOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 3 * maxSpare
		leave, served := make(chan struct{}), make(chan struct{}, many)
		w := newWorkers(func(*net.TCPConn) { served <- struct{}{}; <-leave })
		for range 2 { // the second time on goroutines that wait, as far as they reach
			for range many {
				w.serve(nil)
			}
			synctest.Wait()
			if n := len(served); n != many {
				t.Fatalf("%d of %d connections are served", n, many)
			}
			for range many {
				<-served
				leave <- struct{}{}
			}
			synctest.Wait()
			if n := w.spare.Load(); n != maxSpare {
				t.Errorf("%d goroutines wait", n)
			}
		}
		w.end()
	})
}

func TestAGoroutineServesTheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkers(func(*net.TCPConn) {})
		for range 100 {
			w.serve(nil)
			synctest.Wait()
			if n := w.spare.Load(); n != 1 {
				t.Fatalf("%d goroutines wait", n)
			}
		}
		w.end()
	})
}

func TestTheEndAwaitsWhatIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leave, ended := make(chan struct{}), make(chan struct{})
		w := newWorkers(func(*net.TCPConn) { <-leave })
		w.serve(nil)
		go func() { w.end(); close(ended) }()
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("it ended before its connection")
		default:
		}
		close(leave)
		<-ended
	})
}
