package launch

import (
	"context"
	"errors"
	"net"
	"testing"
)

// TestWhatInitSaidLastCounts: a program's exit is not lost when init is gone, or nobody waits
// any more, by the time somebody reads it.
func TestWhatInitSaidLastCounts(t *testing.T) {
	for range 200 {
		own, theirs, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		init, err := net.FileConn(theirs)
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		s := &Sandbox{line: own, forked: make(chan struct{}), ended: make(chan struct{}), silent: make(chan struct{}), waiting: make(map[uint64]chan message)}
		close(s.forked)
		id, events := s.enter()
		p := &Session{sandbox: s, id: id, events: events}
		if err := send(init.(*net.UnixConn), message{Op: "exited", Session: id, Code: 7}); err != nil {
			t.Fatal(err)
		}
		init.Close()
		close(s.ended)
		go s.read()
		if exit, err := p.Wait(t.Context()); exit.Code != 7 || err != nil {
			t.Fatalf("exit %+v, %v", exit, err)
		}
		if _, err := p.Wait(t.Context()); !errors.Is(err, ErrEnded) {
			t.Fatalf("without an exit: %v", err)
		}
		events <- message{Op: "exited", Code: 8}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if exit, err := p.Wait(ctx); exit.Code != 8 || err != nil {
			t.Fatalf("exit %+v, %v, although it came before the end of the wait", exit, err)
		}
		own.Close()
	}
}
