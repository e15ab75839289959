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
		w := newWorkers(func(*net.TCPConn) func() { served <- struct{}{}; <-leave; return nil })
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
		w := newWorkers(func(*net.TCPConn) func() { return nil })
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

// TestTheEndAwaitsWhatIsServed, and what is left for later, for which no goroutine of those
// that wait is needed.
func TestTheEndAwaitsWhatIsServed(t *testing.T) {
	for name, later := range map[string]bool{"served": false, "left for later": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				leave, ended := make(chan struct{}), make(chan struct{})
				wait := func() { <-leave }
				w := newWorkers(func(*net.TCPConn) func() {
					if later {
						return wait
					}
					wait()
					return nil
				})
				w.serve(nil)
				synctest.Wait()
				if free := w.spare.Load() == 1; free != later {
					t.Errorf("a goroutine waits for the next connection: %t", free)
				}
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
		})
	}
}
