package http2

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// heads are the header blocks of a stream until its end, the status first.
func (r *raw) heads(stream uint32) (out []map[string]string) {
	r.t.Helper()
	for {
		f, err := r.fr.ReadFrame()
		r.ok(err)
		if f.Header().StreamID != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			m := make(map[string]string)
			for _, hf := range f.Fields {
				m[hf.Name] = hf.Value
			}
			out = append(out, m)
			if f.StreamEnded() {
				return out
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return out
			}
		case *http2.RSTStreamFrame:
			r.t.Fatalf("the stream is reset with %v behind %v", f.ErrCode, out)
		}
	}
}

// TestInterimResponsesAreToldBeforeTheAnswer, which has nothing of their fields, nor have
// they what goes to no client.
func TestInterimResponsesAreToldBeforeTheAnswer(t *testing.T) {
	hints := http.Header{"Link": {"</a>"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Alt-Svc": {"h3"}, "Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Keep-Alive": {"5"}}
	said := func(ctx context.Context, s *Stream, statuses ...int) {
		for _, status := range statuses {
			if err := s.Inform(ctx, status, hints); err != nil {
				t.Error(err)
			}
		}
	}
	hint := map[string]string{":status": "103", "link": "</a>"}
	final := map[string]string{":status": "200", "content-type": "text/plain"}
	for rule, c := range map[string]struct {
		handle Handler
		send   []field
		want   []map[string]string
	}{
		"one":                 {func(ctx context.Context, s *Stream) { said(ctx, s, 103); hello(ctx, s) }, get(), []map[string]string{hint, final}},
		"several":             {func(ctx context.Context, s *Stream) { said(ctx, s, 103, 103); hello(ctx, s) }, get(), []map[string]string{hint, hint, final}},
		"to HEAD":             {func(ctx context.Context, s *Stream) { said(ctx, s, 103); hello(ctx, s) }, with(":method", "HEAD"), []map[string]string{hint, final}},
		"leave, or a switch":  {func(ctx context.Context, s *Stream) { said(ctx, s, 100, 101); hello(ctx, s) }, get(), []map[string]string{final}},
		"one that is final":   {func(ctx context.Context, s *Stream) { said(ctx, s, 200, 99); hello(ctx, s) }, get(), []map[string]string{final}},
		"behind the answer":   {func(ctx context.Context, s *Stream) { hello(ctx, s); said(ctx, s, 103) }, get(), []map[string]string{final}},
		"in front of refusal": {func(ctx context.Context, s *Stream) { said(ctx, s, 103); deny(s) }, with(":method", "HEAD"), []map[string]string{hint, {":status": "403", "content-type": "application/json", "content-length": "37"}}},
		"to an extended CONNECT": {func(ctx context.Context, s *Stream) { said(ctx, s, 103); deny(s) }, connect("websocket"),
			[]map[string]string{{":status": "403", "content-type": "application/json", "content-length": "37"}}},
	} {
		t.Run(rule, func(t *testing.T) {
			r := dial(t, serve(t, Options{}, c.handle)).hello()
			r.headers(1, !strings.HasPrefix(rule, "to an extended"), c.send)
			if diff := cmp.Diff(c.want, r.heads(1)); diff != "" {
				t.Error(diff)
			}
			r.headers(3, true, get())
			if a := r.answer(3); a.status == "" {
				t.Errorf("the connection serves no more: %+v", a)
			}
		})
	}
}

func deny(s *Stream) {
	_ = s.Deny(http.StatusForbidden, core.ReasonPolicyDenied, "", "", http1.ErrorBody{Error: core.ReasonPolicyDenied})
}

// TestAClientThatReadsNoInterimResponseIsNotWaitedFor: there is no window for them, but a
// connection takes only so much.
func TestAClientThatReadsNoInterimResponseIsNotWaitedFor(t *testing.T) {
	left := baseline(t)
	result := make(chan error, 1)
	f := serve(t, Options{Stall: 200 * time.Millisecond}, func(ctx context.Context, s *Stream) {
		hints := http.Header{"Link": {strings.Repeat("a", maxFrame)}}
		var err error
		for err == nil {
			err = s.Inform(ctx, http.StatusEarlyHints, hints)
		}
		result <- err
	})
	r := dial(t, f).hello()
	r.headers(1, true, get())
	if err := next(t, result); err == nil {
		t.Error("the handler was told nothing")
	}
	next(t, f.stats)
	r.conn.Close()
	f.stop()
	left()
}

// TestARevokedStreamIsToldNoMore while it is told something before its answer.
func TestARevokedStreamIsToldNoMore(t *testing.T) {
	result := make(chan error, 1)
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(&Revoked{core.ReasonPolicyChanged, "no longer"})
		result <- s.Inform(ctx, http.StatusEarlyHints, http.Header{"Link": {"</a>"}})
		deny(s)
	})
	r := dial(t, f).hello()
	r.headers(1, true, with(":method", "HEAD"))
	if heads := r.heads(1); len(heads) != 1 || heads[0][":status"] != "403" {
		t.Errorf("answered with %v", heads)
	}
	if _, ok := errors.AsType[*Revoked](next(t, result)); !ok {
		t.Error("the handler was not told")
	}
}

// TestAResetBesideAnInterimResponseTouchesNoFields: the library writes them on another
// goroutine, which the end of the stream does not end. What would be wrong is a race.
func TestAResetBesideAnInterimResponseTouchesNoFields(t *testing.T) {
	const streams = 300
	ended := make(chan struct{}, streams)
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		defer func() { ended <- struct{}{} }()
		s.ToOrigin(ctx)
		hints := make(http.Header)
		for _, name := range many(60) {
			hints.Set(name, strings.Repeat("v", 100))
		}
		for range 3 {
			if s.Inform(ctx, http.StatusEarlyHints, hints) != nil {
				return
			}
		}
		hello(ctx, s)
	})
	r := dial(t, f).hello()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			if _, err := r.fr.ReadFrame(); err != nil {
				return
			}
		}
	}()
	for i := range uint32(streams) {
		r.headers(2*i+1, true, get())
		r.ok(r.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		next(t, ended)
	}
	r.conn.Close()
	next(t, read)
}
