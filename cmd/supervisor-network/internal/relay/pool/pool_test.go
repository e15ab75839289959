package pool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// world is one origin, a pool that reaches it whatever the permit says, and the
// origin's ends of the connections.
type world struct {
	*Pool
	accepted chan *net.TCPConn
	snapshot *decide.Snapshot
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &world{accepted: make(chan *net.TCPConn, 1024)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.accepted <- c.(*net.TCPConn)
		}
	}()
	w.Pool = New(Config{
		Dial: func(context.Context, decide.Permit) (*net.TCPConn, error) {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		},
		Handshake: func(context.Context, net.Conn, string, []string) (*tls.Conn, error) {
			return nil, errors.New("no handshake")
		},
	})
	doc, _, err := policy.Parse("p.yaml", []byte(`version: 1
network_policies:
  a: {endpoints: [{host: a.test, port: 80}, {host: b.test, ports: [80, 81]}, {host: listed.test, port: 80, allowed_ips: [10.0.0.0/8]}], binaries: [{path: /a}]}
  b: {endpoints: [{host: "*.wild.test", port: 80}], binaries: [{path: /a}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	if w.snapshot, err = decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) permit(t *testing.T, host string, port uint16) decide.Permit {
	t.Helper()
	p, denial := w.snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: host, Port: port})
	if denial != nil {
		t.Fatal(denial.Detail)
	}
	return p
}

func (w *world) get(t *testing.T, d *Destination, p decide.Permit) *Conn {
	t.Helper()
	c, err := d.Get(t.Context(), p, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAReleasedConnectionServesTheNextRequest(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	d := w.Destination(p, false)
	first := w.get(t, d, p)
	if first.Reused || d.Waits() {
		t.Error("a new connection was used before")
	}
	first.Release()
	if w.Idle() != 1 || !d.Waits() {
		t.Errorf("%d wait", w.Idle())
	}
	if second := w.get(t, d, p); second != first || !second.Reused || w.Idle() != 0 {
		t.Errorf("another connection, reused %v, %d wait", second.Reused, w.Idle())
	}
}

// TestWhatWasCheckedIsTheKey: nothing that a connection was checked for may differ.
func TestWhatWasCheckedIsTheKey(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	w.get(t, w.Destination(p, false), p).Release()
	for name, d := range map[string]*Destination{
		"another host":  w.Destination(w.permit(t, "b.test", 80), false),
		"another port":  w.Destination(w.permit(t, "b.test", 81), false),
		"TLS":           w.Destination(p, true),
		"other terms":   w.Destination(w.permit(t, "listed.test", 80), false),
		"a wider match": w.Destination(w.permit(t, "x.wild.test", 80), false),
	} {
		if d.Waits() || d.kept(false) != nil {
			t.Errorf("%s is served by a connection that was checked for something else", name)
		}
		if d.Serves(p) != (name == "TLS") {
			t.Errorf("%s: Serves is %v", name, d.Serves(p))
		}
	}
	if _, err := w.Destination(w.permit(t, "b.test", 80), false).Get(t.Context(), p, false); err == nil {
		t.Error("a permit for another destination got a connection")
	}
	if _, err := w.Destination(p, false).Get(t.Context(), decide.Permit{}, false); err == nil {
		t.Error("the zero permit got a connection")
	}
}

// TestAConnectionThatIsNotQuietIsNotUsed: one that ended, or said something that
// answers no request, while it waited.
func TestAConnectionThatIsNotQuietIsNotUsed(t *testing.T) {
	for name, do := range map[string]func(origin *net.TCPConn){
		"it ended":                 func(c *net.TCPConn) { c.Close() },
		"it was reset":             func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
		"it half-closed":           func(c *net.TCPConn) { _ = c.CloseWrite() },
		"it answered the next one": func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") },
		"it sent a single byte":    func(c *net.TCPConn) { _, _ = io.WriteString(c, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.permit(t, "a.test", 80)
			d := w.Destination(p, false)
			c := w.get(t, d, p)
			c.Release()
			c.since = time.Now().Add(-fresh) // as if it had waited
			do(<-w.accepted)
			for end := time.Now().Add(time.Minute); c.quiet(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it stays quiet")
				}
			}
			if got := w.get(t, d, p); got == c || got.Reused {
				t.Error("it was used")
			}
			if w.Idle() != 0 {
				t.Errorf("%d wait", w.Idle())
			}
		})
	}
}

// TestAConnectionIsNotUsedNearTheEndThatItsOriginTold: what is sent on it then is lost.
func TestAConnectionIsNotUsedNearTheEndThatItsOriginTold(t *testing.T) {
	for _, c := range []struct {
		keptFor, waited time.Duration
		used            bool
	}{
		{0, time.Hour, true},
		{time.Hour, time.Minute, true},
		{time.Hour, time.Hour - closing, false},
		{time.Second, 0, true},
		{time.Second, time.Second / 2, false},
	} {
		w := newWorld(t)
		p := w.permit(t, "a.test", 80)
		d := w.Destination(p, false)
		kept := w.get(t, d, p)
		kept.KeptFor = c.keptFor
		kept.Release()
		kept.since = time.Now().Add(-c.waited)
		if got := d.kept(false); (got == kept) != c.used {
			t.Errorf("kept for %s, after %s: used %v", c.keptFor, c.waited, got == kept)
		}
	}
}

func TestBytesThatWereReadAheadEndAConnection(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	d := w.Destination(p, false)
	c := w.get(t, d, p)
	if _, err := io.WriteString(<-w.accepted, "more than the response"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.R.ReadByte(); err != nil {
		t.Fatal(err)
	}
	c.Release()
	if d.Waits() || w.Idle() != 0 {
		t.Error("a connection that is out of step was kept")
	}
}

// TestBytesThatTLSReadAheadEndAConnection: the socket is empty, and the next response
// is there already.
func TestBytesThatTLSReadAheadEndAConnection(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	config := server.TLS.Clone()
	config.DynamicRecordSizingDisabled = true // so that one record holds it all
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for name, c := range map[string]struct {
		ahead string
		kept  int64
	}{"one response": {"", 1}, "and the next one": {"HTTP/1.1 200 OK\r\n\r\n", 0}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.Handshake = func(ctx context.Context, c net.Conn, _ string, _ []string) (*tls.Conn, error) {
				tc := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "example.com"})
				return tc, tc.HandshakeContext(ctx)
			}
			go func() {
				tc := tls.Server(<-w.accepted, config)
				_, _ = tc.Write([]byte(strings.Repeat("x", readerBytes) + c.ahead))
			}()
			p := w.permit(t, "a.test", 80)
			d := w.Destination(p, true)
			conn := w.get(t, d, p)
			if _, err := io.CopyN(io.Discard, conn.R, readerBytes); err != nil || conn.R.Buffered() > 0 {
				t.Fatal(err, conn.R.Buffered())
			}
			if conn.Release(); w.Idle() != c.kept {
				t.Errorf("%d wait", w.Idle())
			}
		})
	}
}

func TestKeptConnectionsAreBounded(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	d := w.Destination(p, false)
	var all []*Conn
	for range maxIdlePerDestination + 3 {
		c, err := d.Open(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.Release()
	}
	if w.Idle() != maxIdlePerDestination {
		t.Errorf("%d wait, at most %d may", w.Idle(), maxIdlePerDestination)
	}
	for i, c := range all {
		_, err := c.raw.Write([]byte("x"))
		if open := err == nil; open != (i < maxIdlePerDestination) {
			t.Errorf("connection %d is open: %v", i, open)
		}
	}
}

func TestWhatWaitsTooLongIsClosedAndUnusedDestinationsAreForgotten(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	d := w.Destination(p, false)
	w.get(t, d, p).Release()
	w.sweep(time.Now().Add(-time.Hour))
	if w.Idle() != 1 {
		t.Fatalf("%d wait", w.Idle())
	}
	w.sweep(time.Now().Add(time.Hour))
	if w.Idle() != 0 || len(w.destinations) != 1 {
		t.Errorf("%d wait, %d destinations: one is in use", w.Idle(), len(w.destinations))
	}
	d.Close()
	w.sweep(time.Now())
	if len(w.destinations) != 0 {
		t.Errorf("%d destinations", len(w.destinations))
	}
}

func TestAFailedHandshakeClosesTheConnection(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	if _, err := w.Destination(p, true).Get(t.Context(), p, false); err == nil || err.Error() != "no handshake" {
		t.Fatal(err)
	}
	origin := <-w.accepted
	_ = origin.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := origin.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the origin read %v", err)
	}
}

// TestBytesCountForTheWatch: what an origin sends and takes is movement.
func TestBytesCountForTheWatch(t *testing.T) {
	w := newWorld(t)
	p := w.permit(t, "a.test", 80)
	c := w.get(t, w.Destination(p, false), p)
	expired := make(chan struct{})
	watch := relay.NewWatch(time.Millisecond, func() { close(expired) })
	defer watch.Stop()
	watch.Begin(time.Hour)
	c.Watch(watch)
	origin := <-w.accepted
	for what, move := range map[string]func() error{
		"sends": func() error { fmt.Fprint(origin, "x"); _, err := c.R.ReadByte(); return err },
		"takes": func() error { _, err := c.Write([]byte("x")); return err },
	} {
		for watch.Quiet() < time.Millisecond { // more than the two looks below are apart
		}
		before := time.Now()
		if err := move(); err != nil {
			t.Fatal(err)
		}
		if quiet, most := watch.Quiet(), time.Since(before); quiet > most {
			t.Errorf("quiet for %v although it %s a byte within %v", quiet, what, most)
		}
	}
	watch.Begin(time.Millisecond)
	<-expired
}
