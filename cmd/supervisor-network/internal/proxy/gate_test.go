package proxy

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal/sealtest"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestUnreadMessagesEndWhereCredentialsAreBound: on a WebSocket that is open binary messages
// pass until its endpoint gets credentials. One on which none pass stays.
func TestUnreadMessagesEndWhereCredentialsAreBound(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText), endpoint("text.example.com", 443, noText))
	dir := t.TempDir()
	sealtest.Write(t, dir+"/key", "REALvalue12345")
	sealtest.Write(t, dir+"/c.yaml", "version: 1\ncredentials: {}\n")
	store, _, err := credentials.Open(credentials.Config{File: dir + "/c.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	w.Vault = &seal.Vault{Store: store}
	w.origin("ws.example.com", 443, echoes(t, nil), "http/1.1")
	w.origin("text.example.com", 443, echoes(t, nil), "http/1.1")
	text := w.streams("text.example.com")
	text.open("text.example.com", "/")
	c := w.streams("ws.example.com")
	stream := c.open("ws.example.com", "/")
	c.say(stream, 0x82, "x")
	if op, payload := c.hear(stream); op != 0x82 || payload != "x" {
		t.Fatalf("%x %q came back", op, payload)
	}
	sealtest.Write(t, dir+"/c.yaml", "version: 1\ncredentials:\n  KEY: {file: "+dir+"/key, bindings: [{host: '*.example.com', port: 443}]}\n")
	store.Reload()
	if n := w.Live.Gate(store.Current().Credentialed); n != 1 {
		t.Fatalf("%d connections ended", n)
	}
	if code, reason := c.closed(stream); code != 1008 || !strings.HasPrefix(gated, reason) || reason == "" {
		t.Errorf("told %d %q", code, reason)
	}
}

func TestTheForwardPathHasItsOwnWord(t *testing.T) {
	for tunnel, want := range map[bool]core.Reason{true: core.ReasonCredentialUnavailable, false: core.ReasonCredentialInjection} {
		s := &session{tunnel: tunnel}
		if got := s.inPlace(uninjected(inject.Unavailable("x"))); got.reason != want {
			t.Errorf("tunnel %v: %s", tunnel, got.reason)
		}
	}
}

// TestAKeyWithoutAValueIsNotTriedAgain: it is a 500, which libraries of models' services try
// again, for a minute and without a word, unless they are told.
func TestAKeyWithoutAValueIsNotTriedAgain(t *testing.T) {
	for _, tunnel := range []bool{true, false} {
		s := &session{tunnel: tunnel}
		got := s.inPlace(uninjected(inject.Unavailable("x"))).fieldsOfHTTP1()
		if want := (http1.Field{Name: "X-Should-Retry", Value: "false"}); len(got) != 1 || got[0] != want {
			t.Errorf("tunnel %v: the answer says %v", tunnel, got)
		}
	}
	if got := uninjected(inject.Guarded()).fields(); got != nil { // a 403 is not tried again anyway
		t.Errorf("the answer says %v", got)
	}
}

const marker = sealtest.Marker

// keysOf is a vault whose file binds KEY, and what signs, to port 443 of a host.
func keysOf(t testing.TB, host string) *seal.Vault {
	return &seal.Vault{Store: sealtest.Keys(t, host), Signer: sigv4.New(nil)}
}

// answered is the status that a refusal is answered with.
func answered(r *refusal) int {
	if r == nil {
		return 0
	}
	return r.status
}
