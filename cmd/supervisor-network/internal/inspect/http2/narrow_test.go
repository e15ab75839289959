package http2

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// shut is a client's setting by which nothing may be sent to it.
var shut = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}

// TestARefusalWaitsForNoWindow: its head goes alone, and nothing of the stream stays.
func TestARefusalWaitsForNoWindow(t *testing.T) {
	f := serve(t, Options{}, func(_ context.Context, s *Stream) {
		_ = s.Deny(http.StatusForbidden, core.ReasonPolicyDenied, "no", "", http1.ErrorBody{Error: core.ReasonPolicyDenied})
	})
	r := dial(t, f).hello()
	r.headers(1, true, get())
	if a := r.answer(1); a.status != "403" || !strings.Contains(a.body, "policy_denied") {
		t.Errorf("where there is a window: %+v", a)
	}
	r = dial(t, f).hello(shut)
	r.headers(1, true, get())
	if a := r.answer(1); a.status != "403" || a.body != "" || a.fields["content-length"] != "0" {
		t.Errorf("where there is none: %+v", a)
	}
	r.headers(3, true, append(with(":method", "HEAD"), fields()...))
	if a := r.answer(3); a.status != "403" || a.fields["content-length"] == "0" {
		t.Errorf("without a body: %+v", a)
	}
}

// TestTheEndOfAnAnswerIsWaitedForInItsHandler, so that what bounds handlers bounds
// streams that have something to send.
func TestTheEndOfAnAnswerIsWaitedForInItsHandler(t *testing.T) {
	result := make(chan error, 1)
	small := func(ctx context.Context, s *Stream) {
		resp := response("hello", "Content-Length", "5")
		resp.ContentLength = 5
		result <- s.Respond(ctx, resp)
	}
	f := serve(t, Options{Stall: 100 * time.Millisecond}, small)
	r := dial(t, f).hello(shut)
	r.headers(1, true, get())
	if a := r.answer(1); a.reset == 0 {
		t.Errorf("the stream was not reset: %+v", a)
	}
	if err := next(t, result); !errors.Is(err, ErrStalled) {
		t.Errorf("the handler was told %v", err)
	}
	r.headers(3, true, get())
	r.ok(r.fr.WriteWindowUpdate(3, 5))
	if a := r.answer(3); a.status != "200" || a.body != "hello" || next(t, result) != nil {
		t.Errorf("a window of just as much: %+v", a)
	}
}

// TestWindowsOfAClient: what is sent at once fits for certain.
func TestWindowsOfAClient(t *testing.T) {
	window := func(id http2.SettingID, val uint32) func(*http2.Framer) error {
		return func(fr *http2.Framer) error { return fr.WriteSettings(http2.Setting{ID: id, Val: val}) }
	}
	grown := func(stream, n uint32) func(*http2.Framer) error {
		return func(fr *http2.Framer) error { return fr.WriteWindowUpdate(stream, n) }
	}
	many := func(fr *http2.Framer) error {
		var all []http2.Setting
		for range maxSettings/settingSize + 1 {
			all = append(all, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
		}
		return fr.WriteSettings(all...)
	}
	for rule, c := range map[string]struct {
		says   []func(*http2.Framer) error
		n, all int
		fits   bool
	}{
		"all of the least window":             {nil, narrowWindow, narrowWindow, true},
		"more than a stream's":                {[]func(*http2.Framer) error{grown(0, 1)}, 1, narrowWindow + 1, false},
		"more than the connection's":          {nil, narrowWindow + 1, 1, false},
		"as much as it grew by":               {[]func(*http2.Framer) error{grown(0, 1)}, narrowWindow + 1, 1, true},
		"a stream's does not widen it":        {[]func(*http2.Framer) error{grown(1, 1)}, narrowWindow + 1, 1, false},
		"wider streams":                       {[]func(*http2.Framer) error{window(http2.SettingInitialWindowSize, 1<<20)}, 1, 1, true},
		"streams as they are":                 {[]func(*http2.Framer) error{window(http2.SettingInitialWindowSize, narrowWindow)}, 1, 1, true},
		"narrower streams":                    {[]func(*http2.Framer) error{window(http2.SettingInitialWindowSize, narrowWindow-1)}, 1, 1, false},
		"narrower ones for a moment":          {[]func(*http2.Framer) error{window(http2.SettingInitialWindowSize, 0), window(http2.SettingInitialWindowSize, 1<<20)}, 1, 1, false},
		"another setting":                     {[]func(*http2.Framer) error{window(http2.SettingMaxConcurrentStreams, 0)}, 1, 1, true},
		"more settings than are looked at":    {[]func(*http2.Framer) error{many}, 1, 1, false},
		"a window behind settings and a ping": {[]func(*http2.Framer) error{window(http2.SettingMaxFrameSize, 1<<14), func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{}) }, grown(0, 1)}, narrowWindow + 1, 1, true},
	} {
		for _, whole := range []bool{true, false} {
			m := newMeter(nil, time.Now())
			m.skip = 0
			var b []byte
			for _, say := range c.says {
				b = append(b, frames(t, 1, func(fr *http2.Framer, _ uint32) error { return say(fr) })...)
			}
			for i := range b {
				if !whole && !m.count(b[i:i+1]) {
					t.Fatal("a flood")
				}
			}
			if whole && !m.count(b) {
				t.Fatal("a flood")
			}
			if got := m.sends(c.n, c.all); got != c.fits {
				t.Errorf("%s, in one piece %v: fits %v", rule, whole, got)
			}
		}
	}
}
