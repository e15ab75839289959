package relay

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// classify is a First for the tests: it takes what begins with GET and wants more
// while that is open.
func classify(prefix []byte) (take, more bool) {
	const word = "GET "
	s := string(prefix)
	if len(s) >= len(word) {
		return strings.HasPrefix(s, word), false
	}
	return false, strings.HasPrefix(word, s)
}

// looked is a tunnel or pipe that begins with a look, and its far ends.
type looked struct {
	client, origin *net.TCPConn
	near, far      net.Conn // the tunnel's own ends
	done           chan error
}

// both runs a test with a Tunnel and with a Pipe.
func both(t *testing.T, early string, test func(t *testing.T, l *looked)) {
	for name, start := range map[string]func(ctx context.Context, near, far *net.TCPConn) error{
		"Tunnel": func(ctx context.Context, near, far *net.TCPConn) error {
			tunnel := Tunnel{Client: near, Upstream: far, Early: []byte(early), Idle: time.Hour, First: classify}
			return tunnel.Run(ctx)
		},
		"Pipe": func(ctx context.Context, near, far *net.TCPConn) error {
			r := bufio.NewReader(io.MultiReader(strings.NewReader(early), near))
			pipe := Pipe{Client: near, ClientReader: r, Upstream: far, Idle: time.Hour, First: classify}
			return pipe.Run(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, near := pair(t)
			origin, far := pair(t)
			l := &looked{client, origin, near, far, make(chan error, 1)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { l.done <- start(ctx, near, far) }()
			test(t, l)
		})
	}
}

func (l *looked) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-l.done:
		return err
	case <-time.After(patience):
		t.Fatal("it did not end")
		return nil
	}
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// TestATakenTunnelHasMovedNothing: whoever takes it over finds both ends as they were.
func TestATakenTunnelHasMovedNothing(t *testing.T) {
	both(t, "", func(t *testing.T, l *looked) {
		for _, part := range []string{"G", "E", "T", " ", "/x"} {
			say(t, l.client, part)
		}
		if err := l.wait(t); !errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
		say(t, l.near, "answer")
		hear(t, l.client, "answer")
		say(t, l.far, "question")
		hear(t, l.origin, "question")
		say(t, l.origin, "reply")
		hear(t, l.far, "reply")
	})
}

// TestEarlyBytesAreLookedAtToo: they are in the hands of the caller already.
func TestEarlyBytesAreLookedAtToo(t *testing.T) {
	both(t, "GE", func(t *testing.T, l *looked) {
		say(t, l.client, "T /")
		if err := l.wait(t); !errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
	})
	both(t, "GET /", func(t *testing.T, l *looked) {
		if err := l.wait(t); !errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
	})
}

// TestAServerThatSpeaksFirstIsNotHeldUp: no time-out stands before its first word,
// and what the client says then is not looked at.
func TestAServerThatSpeaksFirstIsNotHeldUp(t *testing.T) {
	both(t, "", func(t *testing.T, l *looked) {
		say(t, l.origin, "220 ready\r\n")
		hear(t, l.client, "220 ready\r\n")
		say(t, l.client, "GET is no word of this protocol\r\n")
		hear(t, l.origin, "GET is no word of this protocol\r\n")
		say(t, l.origin, "ok")
		hear(t, l.client, "ok")
		l.client.Close()
		l.origin.Close()
		if err := l.wait(t); errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
	})
}

func TestOtherBytesAreCarriedRaw(t *testing.T) {
	for _, first := range []string{"\x00\x01", "GEX", "SSH-2.0-x\r\n"} {
		both(t, "", func(t *testing.T, l *looked) {
			say(t, l.client, first)
			hear(t, l.origin, first)
			say(t, l.origin, "reply")
			hear(t, l.client, "reply")
			_ = l.client.CloseWrite()
			if _, err := l.origin.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the origin read %v", err)
			}
			say(t, l.origin, "last words")
			hear(t, l.client, "last words")
			l.origin.Close()
			if err := l.wait(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAClientThatEndsInsideItsFirstWordIsCarriedRaw: its bytes are not lost, and
// nothing waits for the rest.
func TestAClientThatEndsInsideItsFirstWordIsCarriedRaw(t *testing.T) {
	both(t, "", func(t *testing.T, l *looked) {
		say(t, l.client, "GE")
		_ = l.client.CloseWrite()
		hear(t, l.origin, "GE")
		if _, err := l.origin.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the origin read %v", err)
		}
		l.origin.Close()
		if err := l.wait(t); err != nil {
			t.Error(err)
		}
	})
}

// TestAnOriginThatEndsAtOnceIsNotTakenOver: there is nothing to speak to.
func TestAnOriginThatEndsAtOnceIsNotTakenOver(t *testing.T) {
	both(t, "", func(t *testing.T, l *looked) {
		_ = l.origin.CloseWrite()
		if _, err := l.client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the client read %v", err)
		}
		say(t, l.client, "GET / HTTP/1.1\r\n")
		hear(t, l.origin, "GET / HTTP/1.1\r\n")
		l.client.Close()
		if err := l.wait(t); errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
	})
}

func TestAPipeEndsWithItsContextAndWhenItIsIdle(t *testing.T) {
	for name, idle := range map[string]time.Duration{"context": time.Hour, "idle": 2 * time.Second} { // more than what comes before takes
		t.Run(name, func(t *testing.T) {
			client, near := pair(t)
			origin, far := pair(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			done := make(chan error, 1)
			go func() {
				p := Pipe{Client: near, ClientReader: bufio.NewReader(near), Upstream: far, Idle: idle}
				done <- p.Run(ctx)
			}()
			say(t, client, "x")
			hear(t, origin, "x")
			why := errors.New("why")
			want := ErrIdle
			if name == "context" {
				cancel(why)
				want = why
			}
			select {
			case err := <-done:
				if !errors.Is(err, want) {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("it did not end")
			}
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Error("the client's end is open")
			}
		})
	}
}

// unruly is an upstream on which something happens whenever its reads are stopped, and
// before they go on. It tells when it has been ended.
type unruly struct {
	net.Conn
	stops, goesOn func()
	once          sync.Once
	ended         chan struct{}
}

func (u *unruly) SetReadDeadline(at time.Time) error {
	if at.IsZero() {
		u.goesOn()
	} else {
		u.stops()
	}
	return u.Conn.SetReadDeadline(at)
}

func (u *unruly) SetDeadline(at time.Time) error {
	defer u.once.Do(func() { close(u.ended) })
	return u.Conn.SetDeadline(at)
}

// TestAPipeEndsWithItsContextAlsoWhileItIsPaused, though an upstream that was first after
// all is listened to again.
func TestAPipeEndsWithItsContextAlsoWhileItIsPaused(t *testing.T) {
	client, near := pair(t)
	origin, far := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	u := &unruly{Conn: far, ended: make(chan struct{})}
	pipe := &Pipe{Client: near, ClientReader: bufio.NewReader(near), Upstream: u, Idle: time.Hour, First: classify}
	u.stops = func() {
		say(t, origin, "hello")
		until(t, "the upstream was first", func() bool { return pipe.down.Load() > 0 })
	}
	u.goesOn = func() {
		cancel()
		<-u.ended
	}
	say(t, client, "GET / HTTP/1.1\r\n\r\n")
	done := make(chan error, 1)
	go func() { done <- pipe.Run(ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it did not end")
	}
}
