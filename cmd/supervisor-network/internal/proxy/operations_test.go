package proxy

import (
	"context"
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// TestOperationsOnAWebSocketAreJudged (rows 74 and 76): of what a client subscribes to,
// the origin gets what rules allow, by its text or by what its hash is registered as; one
// that they do not ends the WebSocket.
func TestOperationsOnAWebSocketAreJudged(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, `, protocol: websocket, enforcement: enforce, persisted_queries: allow_registered,
    graphql_persisted_queries: {good: {operation_type: query, fields: [viewer]}, bad: {operation_type: mutation, fields: [viewer]}},
    rules: [{allow: {method: GET, path: "/"}}, {allow: {operation_type: query, fields: [viewer]}}]`))
	received := make(chan string, 16)
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{"graphql-transport-ws"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			received <- string(data)
			_ = c.Write(r.Context(), kind, data)
		}
	}), "http/1.1")
	open := func() *websocket.Conn {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), generous)
		defer cancel()
		client := w.client(false)
		client.Timeout = 0
		c, _, err := websocket.Dial(ctx, "https://a.example.com/", &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"graphql-transport-ws"}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	subscribe := func(payload string) string { return `{"id":"1","type":"subscribe","payload":` + payload + `}` }
	hash := func(h string) string {
		return subscribe(`{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"` + h + `"}}}`)
	}
	c := open()
	defer c.CloseNow()
	for _, text := range []string{
		`{"type":"connection_init","payload":{"token":"x"}}`, `{"type":"ping"}`, subscribe(`{"query":"{viewer}"}`), subscribe(`{"query":"{me:viewer{id}}"}`),
		`{"id":"2","type":"start","payload":{"query":"{viewer}"}}`, hash("good"), `{"id":"1","type":"complete"}`,
	} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := <-received; got != text {
			t.Errorf("the origin got %q, want %q", got, text)
		}
		if _, data, err := c.Read(t.Context()); err != nil || string(data) != text {
			t.Fatalf("%s: %q, %v", text, data, err)
		}
	}
	for name, text := range map[string]string{
		"another field":                  subscribe(`{"query":"{secret}"}`),
		"an alias of another field":      subscribe(`{"query":"{viewer:secret}"}`),
		"another field in a fragment":    subscribe(`{"query":"{viewer ...F} fragment F on Query{secret}"}`),
		"a mutation":                     subscribe(`{"query":"mutation{viewer}"}`),
		"in the words of another client": `{"id":"1","type":"start","payload":{"query":"{secret}"}}`,
		"a hash that stands for another": hash("bad"),
		"a hash that stands for nothing": hash("unknown"),
		"the query twice":                subscribe(`{"query":"{viewer}","query":"{secret}"}`),
		"another kind of message":        `{"id":"1","type":"query","payload":{"query":"{viewer}"}}`,
		"a message without a kind":       `{"query":"{viewer}"}`,
		"no JSON":                        `{viewer}`,
	} {
		c := open()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, data, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: %q, %v, want 1008", name, data, err)
		}
		c.CloseNow()
		select {
		case got := <-received:
			t.Errorf("%s: the origin got %q", name, got)
		default:
		}
	}
}
