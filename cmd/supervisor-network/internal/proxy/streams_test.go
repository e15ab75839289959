package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestStreamsAreBoundedOverAllConnections: a connection carries many, and there are many
// connections.
func TestStreamsAreBoundedOverAllConnections(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	w.Places = NewPlaces(2)
	reached, answer := make(chan bool), make(chan bool)
	w.origin("a.example.com", 443, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- true
		<-answer
	}), "http/1.1")
	clients := []*http.Client{w.client(true), w.client(true), w.client(true)}
	get := func(i int) int {
		resp, err := clients[i].Get("https://a.example.com/")
		if err != nil {
			t.Error(err)
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	done := make(chan int)
	for i := range 2 {
		go func() { done <- get(i) }()
		<-reached
	}
	for i := range clients { // new and old
		if status := get(i); status != 503 {
			t.Errorf("one too many: %d", status)
		}
	}
	answer <- true
	if status := <-done; status != 200 {
		t.Errorf("one of the two: %d", status)
	}
	w.until("a place is free", func() bool { return w.Places.taken.Load() == 1 })
	go func() { done <- get(2) }()
	<-reached
	for range 2 {
		answer <- true
		if status := <-done; status != 200 {
			t.Errorf("after it: %d", status)
		}
	}
	w.until("no place is taken", func() bool { return w.Places.taken.Load() == 0 })
	w.until("the records", func() bool { return strings.Count(fmt.Sprint(w.records.list()), "too_many_connections") >= 3 })
}

// TestABodyThatBreaksOffIsItsClients: what came of it was taken back from the origin,
// which then gives no answer.
func TestABodyThatBreaksOffIsItsClients(t *testing.T) {
	broken := func() io.ReadCloser { return io.NopCloser(iotest.ErrReader(errors.New("more than was declared"))) }
	for name, tc := range map[string]struct {
		body   io.ReadCloser
		close  bool // by who sends it, first
		cause  error
		reason core.Reason
	}{
		"whole":                    {http.NoBody, false, nil, core.ReasonUpstreamInvalid},
		"broken":                   {broken(), false, nil, core.ReasonClientClosed},
		"closed, for the origin":   {broken(), true, nil, core.ReasonUpstreamInvalid},
		"broken with its stream":   {broken(), false, context.Canceled, core.ReasonClientClosed},
		"broken by another policy": {broken(), false, errRevoked, core.ReasonPolicyChanged},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		up := &counted{ReadCloser: tc.body}
		if tc.close {
			up.Close()
		}
		_, _ = io.Copy(io.Discard, up)
		if tc.cause != nil {
			cancel(tc.cause)
		}
		s := &session{sockets: t.Context()}
		if got := s.unanswered(ctx, &grant{}, &incoming{}, up, io.ErrUnexpectedEOF); got.reason != tc.reason || (got.status == 403) != (tc.reason == core.ReasonPolicyChanged) {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.reason, tc.reason)
		}
		cancel(nil)
	}
}

// TestWhoResetsAStreamWhileTheDaemonStopsIsItsClient, until the daemon ends the connection.
func TestWhoResetsAStreamWhileTheDaemonStopsIsItsClient(t *testing.T) {
	gone, end := context.WithCancelCause(t.Context())
	end(nil)
	stalled, end := context.WithCancelCause(t.Context())
	end(http2.ErrStalled)
	for name, tc := range map[string]struct {
		stream, connection context.Context
		reason             core.Reason
	}{
		"it":         {gone, t.Context(), core.ReasonClientClosed},
		"reads none": {stalled, t.Context(), core.ReasonIdle},
		"the daemon": {gone, gone, core.ReasonShutdown},
	} {
		s := &session{p: &Path{Stopping: gone}, sockets: tc.connection}
		if reason, _ := s.streamOutcome(tc.stream, tc.stream.Err()); reason != tc.reason {
			t.Errorf("%s: %s, want %s", name, reason, tc.reason)
		}
	}
}

// TestWhoKeepsAStreamWaitingIsSaid: its client, whose body does not go on, or its origin,
// which has all of it.
func TestWhoKeepsAStreamWaitingIsSaid(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		for name, tc := range map[string]struct {
			whole  bool
			status int
			reason core.Reason
		}{
			"the client": {false, 408, core.ReasonRequestTimeout},
			"the origin": {true, 504, core.ReasonUpstreamTimeout},
		} {
			t.Run(name+", "+protocol, func(t *testing.T) {
				w := newWorld(t, 600*time.Millisecond, endpoint("a.example.com", 443, ""))
				w.origin("a.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				}), protocol)
				body, sends := io.Pipe()
				defer sends.Close()
				go func() {
					_, _ = io.WriteString(sends, "begin")
					if tc.whole {
						sends.Close()
					}
				}()
				resp, err := w.client(true).Post("https://a.example.com/", "text/plain", body)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != tc.status {
					t.Errorf("status %d", resp.StatusCode)
				}
				w.until("a record that says why", func() bool {
					return strings.Contains(fmt.Sprint(w.records.list()), `"reason":"`+string(tc.reason)+`"`)
				})
			})
		}
	}
}
