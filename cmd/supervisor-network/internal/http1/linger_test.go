package http1

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnAnswerIsReadBehindAWholeUpload by a client that sends all of it first.
func TestAnAnswerIsReadBehindAWholeUpload(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "refused")
		_ = c.(*net.TCPConn).CloseWrite()
		Linger(c)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(c); string(text) != "refused" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestLingeringEnds after a silence, and after a while.
func TestLingeringEnds(t *testing.T) {
	for name, c := range map[string]struct{ every, lasts time.Duration }{
		"a slow client":          {lingerQuiet - 1, lingerLimit},
		"one that is slower":     {lingerQuiet + 1, lingerQuiet},
		"one that goes":          {0, lingerQuiet / 2},
		"one that stays, silent": {time.Hour, lingerQuiet},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				start, done := time.Now(), make(chan struct{})
				go func() {
					defer close(done)
					if c.every == 0 {
						<-time.After(lingerQuiet / 2)
						theirs.Close()
					}
					for err := error(nil); err == nil; _, err = theirs.Write([]byte("x")) {
						<-time.After(c.every)
					}
				}()
				Linger(ours)
				if lasted := time.Since(start); lasted != c.lasts {
					t.Errorf("it lasts %s, want %s", lasted, c.lasts)
				}
				ours.Close()
				<-done
			})
		})
	}
}

// endless is a client that has something to send whenever it is read.
type endless struct{ pieces, longest int }

func (e *endless) Read(p []byte) (int, error) {
	e.pieces, e.longest = e.pieces+1, max(e.longest, len(p))
	if e.pieces == 100 {
		return 0, io.EOF
	}
	return len(p), nil
}

func (*endless) SetReadDeadline(time.Time) error { return nil }

// TestLingeringHoldsAPiece, however much comes: that is what docs/operations.md counts for
// a connection.
func TestLingeringHoldsAPiece(t *testing.T) {
	var e endless
	Linger(&e)
	if e.pieces != 100 || e.longest != 32<<10 {
		t.Errorf("%d pieces, the longest of %d bytes", e.pieces, e.longest)
	}
}
