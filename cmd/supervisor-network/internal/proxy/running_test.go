package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// TestASubscriptionEndsWithTheRightToIt, and one that the new policy allows goes on, as
// does a WebSocket whose query was answered.
func TestASubscriptionEndsWithTheRightToIt(t *testing.T) {
	policy := func(fields string) string {
		return endpoint("a.example.com", 443, `, protocol: websocket, enforcement: enforce, persisted_queries: allow_registered,
    graphql_persisted_queries: {h: {operation_type: subscription, fields: [`+strings.Split(fields, ",")[0]+`]}},
    rules: [{allow: {method: GET, path: "/"}}, {allow: {operation_type: query, fields: [`+fields+`]}}, {allow: {operation_type: subscription, fields: [`+fields+`]}}]`)
	}
	w := newWorld(t, generous, policy("secret, news"))
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			_ = c.Write(r.Context(), kind, data)
		}
	}), "http/1.1")
	subscribe := func(payload string) string { return `{"id":"1","type":"subscribe","payload":` + payload + `}` }
	sockets := map[string]struct {
		text   string
		closes bool
		c      *websocket.Conn
	}{
		"what is forbidden":         {text: subscribe(`{"query":"subscription{secret}"}`), closes: true},
		"beside what is allowed":    {text: subscribe(`{"query":"subscription{news more:secret}"}`), closes: true},
		"a hash of what is allowed": {text: subscribe(`{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"h"}}}`)},
		"what is allowed":           {text: subscribe(`{"query":"subscription{news}"}`)},
		"a query that is over":      {text: subscribe(`{"query":"{secret}"}`)},
		"nothing":                   {text: `{"type":"ping"}`},
	}
	client := w.client(false)
	client.Timeout = 0
	exchange := func(name string, c *websocket.Conn, text string) {
		t.Helper()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, data, err := c.Read(t.Context()); err != nil || string(data) != text {
			t.Fatalf("%s: %q, %v", name, data, err)
		}
	}
	for name, s := range sockets {
		var err error
		if s.c, _, err = websocket.Dial(t.Context(), "https://a.example.com/", &websocket.DialOptions{HTTPClient: client}); err != nil {
			t.Fatal(err)
		}
		defer s.c.CloseNow()
		exchange(name, s.c, s.text)
		sockets[name] = s
	}
	w.publish(policy("news"))
	for name, s := range sockets {
		if !s.closes {
			exchange(name, s.c, `{"type":"ping"}`)
		} else if _, data, err := s.c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("%s: %q, %v, want 1012", name, data, err)
		}
	}
}

// TestWhatRunsIsBounded: beyond the limit nothing is remembered but that there was more,
// which no new policy is known to allow.
func TestWhatRunsIsBounded(t *testing.T) {
	var r running
	op := func(i int) []decide.Operation {
		return []decide.Operation{{Type: "subscription", Name: fmt.Sprintf("%016d", i)}}
	}
	const each = 80 + 16
	for i := range maxRunning / each {
		r.start(op(i))
		r.start(op(i))
	}
	if m, known := r.message("/"); !known || len(m.Operations) != maxRunning/each || m.Path != "/" || !m.Message {
		t.Fatalf("%+v, %v", m, known)
	}
	r.start([]decide.Operation{{Type: "query", Name: strings.Repeat("x", maxRunning)}})
	if _, known := r.message("/"); !known {
		t.Error("a query counts")
	}
	r.start(op(-1))
	if m, known := r.message("/"); known || m != nil {
		t.Errorf("%+v, %v", m, known)
	}
}
