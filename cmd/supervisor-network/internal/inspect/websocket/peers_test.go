package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// outcome is what Run came to.
type outcome struct {
	stats Stats
	err   error
}

// proxy relays one WebSocket between real peers: the handshake is read, offered,
// checked and answered with this package alone. It returns the address of the proxy
// and what Run came to.
func proxy(t *testing.T, origin string, change func(*Session)) (address string, ended chan outcome) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ended = make(chan outcome, 1)
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		s := &Session{Client: client, Judge: allow, Binary: true, Assemblies: NewAssemblies(nil)}
		if err := open(s, origin); err != nil {
			t.Error(err)
			return
		}
		if change != nil {
			change(s)
		}
		stats, err := s.Run(t.Context())
		ended <- outcome{stats, err}
	}()
	return l.Addr().String(), ended
}

// open makes the handshake with both sides.
func open(s *Session, origin string) error {
	in := bufio.NewReader(s.Client)
	head, err := http1.ReadHead(in, http1.MaxRequestHead)
	if err != nil {
		return err
	}
	request, err := http1.ParseRequest(head)
	if err != nil {
		return err
	}
	h, err := Read(request)
	if err != nil {
		return err
	}
	upstream, err := net.Dial("tcp", origin)
	if err != nil {
		return err
	}
	s.Upstream = upstream
	offer := h.Offer(true)
	write := func(w io.Writer, line string, fields http1.Fields) {
		for _, f := range fields {
			line += f.Name + ": " + f.Value + "\r\n"
		}
		_, _ = io.WriteString(w, line+"\r\n")
	}
	ask := http1.AppendRequest(nil, request, http1.Target{Host: "ok.test", Port: 80, Path: request.Target}, 80, http1.Outgoing{Omit: Fields(), Add: offer.Fields()})
	_, _ = upstream.Write(ask)
	out := bufio.NewReader(upstream)
	if head, err = http1.ReadHead(out, http1.MaxResponseHead); err != nil {
		return err
	}
	response, err := http1.ParseResponse(head, "GET")
	if err != nil {
		return err
	}
	agreed, err := offer.Check(response)
	if err != nil {
		return err
	}
	write(s.Client, "HTTP/1.1 101 Switching Protocols\r\n", agreed.Fields())
	s.Deflate = agreed.Deflate
	s.ClientEarly, s.UpstreamEarly = buffered(in), buffered(out)
	return nil
}

func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return bytes.Clone(b)
}

// echo is an origin that sends back what it gets, compressed where that is agreed.
func echo(t *testing.T, mode websocket.CompressionMode) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, CompressionMode: mode, CompressionThreshold: 1})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 26)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func dial(t *testing.T, address string, mode websocket.CompressionMode) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, "ws://"+address+"/", &websocket.DialOptions{Subprotocols: []string{"other", "echo"}, CompressionMode: mode, CompressionThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(1 << 26)
	return c
}

// Real peers agree with each other through the relay, compressed and not.
func TestRealPeersTalkThroughTheRelay(t *testing.T) {
	for _, m := range []struct {
		name           string
		client, server websocket.CompressionMode
		deflate        bool
	}{
		{"plain", websocket.CompressionDisabled, websocket.CompressionDisabled, false},
		{"compressed without memory", websocket.CompressionNoContextTakeover, websocket.CompressionNoContextTakeover, true},
		{"a client that compresses with memory", websocket.CompressionContextTakeover, websocket.CompressionContextTakeover, false},
		{"a server that does not compress", websocket.CompressionNoContextTakeover, websocket.CompressionDisabled, false},
	} {
		t.Run(m.name, func(t *testing.T) {
			var deflate bool
			address, ended := proxy(t, echo(t, m.server), func(s *Session) { deflate = s.Deflate })
			c := dial(t, address, m.client)
			if c.Subprotocol() != "echo" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			ctx := t.Context()
			messages := []string{"", "a", strings.Repeat("compressible ", 20), strings.Repeat("long ", 100_000), noise}
			for _, want := range messages {
				for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
					if err := c.Write(ctx, kind, []byte(want)); err != nil {
						t.Fatal(err)
					}
					got, b, err := c.Read(ctx)
					if err != nil || got != kind || string(b) != want {
						t.Fatalf("%d bytes of %d, %v", len(b), len(want), err)
					}
				}
			}
			if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
				t.Error(err)
			}
			s := <-ended
			if s.err != nil || s.stats.Close != 1000 || s.stats.Up.Messages != int64(2*len(messages)) || s.stats.Down.Messages != s.stats.Up.Messages || deflate != m.deflate {
				t.Errorf("%v, %+v, deflate %v", s.err, s.stats, deflate)
			}
		})
	}
}

// A message in many writes of the client's library arrives as one.
func TestRealClientsFragmentsAreOneMessage(t *testing.T) {
	var judged []string
	address, ended := proxy(t, echo(t, websocket.CompressionNoContextTakeover), func(s *Session) {
		s.Judge = func(_ context.Context, b []byte) ([]byte, error) {
			judged = append(judged, string(b))
			return bytes.ReplaceAll(b, []byte("placeholder"), []byte("value")), nil
		}
	})
	c := dial(t, address, websocket.CompressionNoContextTakeover)
	w, err := c.Writer(t.Context(), websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"a pla", "cehol", "der, ", strings.Repeat("x", 10_000)} {
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, b, err := c.Read(t.Context())
	if want := "a value, " + strings.Repeat("x", 10_000); err != nil || string(b) != want {
		t.Errorf("%.40q, %v", b, err)
	}
	if want := []string{"a placeholder, " + strings.Repeat("x", 10_000)}; !slices.Equal(judged, want) {
		t.Errorf("%.40q", judged)
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
	<-ended
}

// A real client learns why it is refused, and the origin sees an orderly close.
func TestRealPeersSeeARefusal(t *testing.T) {
	origin := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		_, _, err = c.Read(r.Context())
		origin <- err
	}))
	defer server.Close()
	address, ended := proxy(t, strings.TrimPrefix(server.URL, "http://"), func(s *Session) {
		s.Judge = func(context.Context, []byte) ([]byte, error) {
			return nil, &CloseError{Code: CodePolicy, Reason: core.ReasonPolicyDenied, Detail: "not permitted by policy"}
		}
	})
	c := dial(t, address, websocket.CompressionDisabled)
	if err := c.Write(t.Context(), websocket.MessageText, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	_, _, err := c.Read(t.Context())
	if e, ok := errors.AsType[websocket.CloseError](err); !ok || e.Code != websocket.StatusPolicyViolation || e.Reason != "not permitted by policy" {
		t.Errorf("the client reads %v", err)
	}
	if err := <-origin; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the origin reads %v", err)
	}
	<-ended
}
