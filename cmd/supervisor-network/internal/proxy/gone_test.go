package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
)

// TestAnOriginIsLetGoWithItsClient: an origin that is silent keeps its place no longer
// than there is somebody to answer.
func TestAnOriginIsLetGoWithItsClient(t *testing.T) {
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() }
	for name, tc := range map[string]struct {
		protocol string
		begun    bool // the response
		leave    func(w *world, request string)
	}{
		"TLS": {"http/1.1", false, func(w *world, request string) {
			c := w.secure("a.example.com", "http/1.1")
			_, _ = io.WriteString(c, request)
			w.until("the origin has it", w.reached)
			c.Close()
		}},
		"TLS, in the middle of the response": {"http/1.1", true, func(w *world, request string) {
			c := w.secure("a.example.com", "http/1.1")
			_, _ = io.WriteString(c, request)
			w.until("the origin has it", w.reached)
			c.Close()
		}},
		"TLS, to an origin of HTTP/2": {"h2", false, func(w *world, request string) {
			c := w.secure("a.example.com", "http/1.1")
			_, _ = io.WriteString(c, request)
			w.until("the origin has it", w.reached)
			c.Close()
		}},
		"plain, reset": {"", false, func(w *world, request string) {
			c := w.tunnel("a.example.com", 80)
			_, _ = io.WriteString(c, request)
			w.until("the origin has it", w.reached)
			reset(c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, time.Second, endpoint("a.example.com", 443, ""), endpoint("a.example.com", 80, ""))
			w.Idle = time.Minute
			has, over := make(chan bool, 1), make(chan bool, 1)
			w.reached = func() bool { return len(has) > 0 }
			port := 443
			if tc.protocol == "" {
				port = 80
			}
			w.origin("a.example.com", port, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if tc.begun {
					_ = http.NewResponseController(rw).Flush()
				}
				has <- true
				<-r.Context().Done()
				over <- true
			}), strings.Fields(tc.protocol)...)
			tc.leave(w, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
			w.until("the origin is let go", func() bool { return len(over) > 0 })
			w.until("the record says why", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), errClientGone.Error()) })
		})
	}
}

// TestWhenAClientIsGone: half a plain connection is closed by clients that wait for
// their answer.
func TestWhenAClientIsGone(t *testing.T) {
	finish := func(c *net.TCPConn) { _ = c.CloseWrite() }
	for name, tc := range map[string]struct {
		do      func(*net.TCPConn)
		arrives relay.End
		secure  bool
		idle    time.Duration
		want    bool
	}{
		"open":                       {func(*net.TCPConn) {}, relay.Open, true, time.Nanosecond, false},
		"plain, half closed":         {finish, relay.Finished, false, time.Hour, false},
		"plain, half closed, silent": {finish, relay.Finished, false, time.Nanosecond, true},
		"TLS, half closed":           {finish, relay.Finished, true, time.Hour, true},
		"reset":                      {func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, relay.Gone, false, time.Hour, true},
	} {
		client, server := pair(t)
		s := &session{p: &Path{Idle: tc.idle}, conn: &listen.Conn{TCP: server}, watch: relay.NewWatch(time.Hour, func() {})}
		s.secured.Store(tc.secure)
		tc.do(client)
		for relay.EndOf(server) != tc.arrives { // a busy kernel delivers late
			time.Sleep(time.Millisecond)
		}
		if s.look() {
			t.Errorf("%s: looked after with nothing under way", name)
		}
		present := &turn{Context: t.Context(), session: s}
		s.present.Store(present)
		if !s.look() {
			t.Errorf("%s: not looked after", name)
		}
		if got := errors.Is(context.Cause(present), errClientGone); got != tc.want {
			t.Errorf("%s: given up %v", name, got)
		}
		s.watch.Stop()
	}
}

// TestARequestIsLookedAfterAtOnce, also if its connection had nothing to look at for long.
func TestARequestIsLookedAfterAtOnce(t *testing.T) {
	client, server := pair(t)
	looks := make(chan struct{}, 2)
	s := &session{p: &Path{Idle: time.Hour}, conn: &listen.Conn{TCP: server}, grant: &grant{}, tunnel: true, watch: relay.NewWatch(time.Millisecond, func() {})}
	defer s.watch.Stop()
	s.watch.Each(func() bool {
		select {
		case looks <- struct{}{}:
		default:
		}
		return s.look()
	})
	for range 2 { // behind the second one it rests
		<-looks
	}
	_ = client.SetLinger(0)
	client.Close()
	<-s.underWay(t.Context(), &incoming{}).Done()
}

// TestAStreamThatGoesWithItsConnectionIsNoRefusal: its client hung up before anybody could
// look at it, which is no sign of too many streams.
func TestAStreamThatGoesWithItsConnectionIsNoRefusal(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, enforcement: enforce, access: full"))
	w.echo("a.example.com")
	const clients = 200
	for range clients {
		c := w.streams("a.example.com")
		c.send(true, ":method", "GET", ":scheme", "https", ":authority", "a.example.com", ":path", "/")
		c.conn.Close()
	}
	w.until("the records", func() bool { return len(w.records.list()) >= clients })
	if refused := strings.Count(fmt.Sprint(w.records.list()), `"reason":"bad_request"`); refused > 0 {
		t.Errorf("%d of %d", refused, clients)
	}
}

// TestAStreamThatBreaksTheProtocolIsARefusal, and not a client that hung up.
func TestAStreamThatBreaksTheProtocolIsARefusal(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, enforcement: enforce, access: full"))
	w.echo("a.example.com")
	c := w.streams("a.example.com")
	c.next = 2 // which is not a client's
	c.send(true, ":method", "GET", ":scheme", "https", ":authority", "a.example.com", ":path", "/")
	_, _ = io.Copy(io.Discard, c.conn) // until it has ended
	w.recorded(t, `"reason":"bad_request"`)
}
