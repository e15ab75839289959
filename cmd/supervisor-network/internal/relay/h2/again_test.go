package h2

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// bodies reads requests and calls took with each that is whole.
func (f *frames) bodies(took func(stream uint32, content []byte)) {
	content := make(map[uint32][]byte)
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			content[fr.StreamID] = []byte{}
			if fr.StreamEnded() {
				took(fr.StreamID, nil)
			}
		case *http2.DataFrame:
			content[fr.StreamID] = append(content[fr.StreamID], fr.Data()...)
			_ = f.WriteWindowUpdate(0, max(1, fr.Length))
			_ = f.WriteWindowUpdate(fr.StreamID, max(1, fr.Length))
			if fr.StreamEnded() {
				took(fr.StreamID, content[fr.StreamID])
			}
		}
	}
}

// unknown is a body whose length is not known.
type unknown struct{ io.Reader }

// TestWhatAnOriginDidNotDoIsSentAgain: the first request is given back as a rule says, when
// all of it has come, and every later one is taken.
func TestWhatAnOriginDidNotDoIsSentAgain(t *testing.T) {
	refused := func(f *frames, s uint32) { _ = f.WriteRSTStream(s, http2.ErrCodeRefusedStream) }
	goesAway := func(f *frames, s uint32) { _ = f.WriteGoAway(s-1, http2.ErrCodeNo, nil) }
	for _, c := range []struct {
		rule, method string
		size         int
		unknown      bool
		giveBack     func(f *frames, stream uint32)
		attempts     int32
	}{
		{"a POST that is refused", "POST", 100, false, refused, 2},
		{"a POST above the last stream", "POST", 100, false, goesAway, 2},
		{"of no known length", "POST", 100, true, goesAway, 2},
		{"a DELETE without a body", "DELETE", 0, false, goesAway, 2},
		{"as much as is kept", "POST", maxBegun, false, goesAway, 2},
		{"as much as is kept, of no known length", "POST", maxBegun, true, refused, 2},
		{"a byte more is not", "POST", maxBegun + 1, false, goesAway, 1},
		{"a byte more of no known length is not", "POST", maxBegun + 1, true, refused, 1},
		{"a POST that was taken is not", "POST", 100, false, func(f *frames, s uint32) { _ = f.WriteGoAway(s, http2.ErrCodeNo, nil); f.conn.Close() }, 1},
		{"one that ends with an error is not", "POST", 100, false, func(f *frames, s uint32) { _ = f.WriteRSTStream(s, http2.ErrCodeInternal) }, 1},
		{"a GET that ends with an error is not", "GET", 0, false, func(f *frames, s uint32) { _ = f.WriteRSTStream(s, http2.ErrCodeInternal) }, 1},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var attempts atomic.Int32
			p, _ := pool(t, scripted(t, func(f *frames) {
				f.bodies(func(stream uint32, content []byte) {
					if attempts.Add(1) == 1 {
						c.giveBack(f, stream)
						return
					}
					f.fields(stream, false, ":status", "200")
					for ; len(content) > 1<<14; content = content[1<<14:] {
						_ = f.WriteData(stream, false, content[:1<<14])
					}
					_ = f.WriteData(stream, true, content)
				})
			}), Config{})
			sent := make([]byte, c.size)
			_, _ = rand.Read(sent)
			var body io.Reader
			switch {
			case c.unknown:
				body = unknown{bytes.NewReader(sent)}
			case c.size > 0:
				body = bytes.NewReader(sent)
			}
			resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, c.method, body))
			if (err == nil) != (c.attempts > 1) || attempts.Load() != c.attempts {
				t.Fatalf("%d attempts, %v", attempts.Load(), err)
			}
			if err == nil {
				came, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if !bytes.Equal(came, sent) || err != nil {
					t.Errorf("%d bytes came, %v", len(came), err)
				}
			}
			if n := p.begins.Load(); n != 0 {
				t.Errorf("%d bytes are kept still", n)
			}
		})
	}
}

// TestARequestThatNeverBeganIsKnown by what net/http says of it, for which it has no name.
// TestWhatAnOriginDidNotDoIsSentAgain is about its other words.
func TestARequestThatNeverBeganIsKnown(t *testing.T) {
	p, _ := pool(t, httpOrigin(t, ok, nil), Config{})
	get(t, p, permit(t, host, 1))
	o, err := p.origin(keyOf(permit(t, host, 1)))
	if err != nil {
		t.Fatal(err)
	}
	c := o.conns[0]
	c.Close()
	if _, err := c.RoundTrip(request(t, "POST", strings.NewReader("x"))); err == nil || !undone(err) {
		t.Errorf("%v", err)
	}
}

// TestWhatMayNotBeSentAnyMoreIsNot: that is asked directly before each attempt, when there
// is a place for it, which goes to the next one.
func TestWhatMayNotBeSentAnyMoreIsNot(t *testing.T) {
	gone := errors.New("it may not be sent any more")
	right := permit(t, host, 1)
	t.Run("when it has waited for a place", func(t *testing.T) {
		held := make(chan bool)
		p, _ := pool(t, few(t, 1, held), Config{MaxConns: 1})
		first, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int32
		done := make(chan error)
		go func() {
			_, err := p.RoundTripWhile(t.Context(), right, request(t, "POST", strings.NewReader("x")), func() error {
				asked.Add(1)
				return gone
			}, nil)
			done <- err
		}()
		untilWaiting(t, p, 1)
		if n := asked.Load(); n > 0 {
			t.Errorf("asked %d times before there is a place", n)
		}
		close(held)
		_, _ = io.Copy(io.Discard, first.Body)
		first.Body.Close()
		if err := <-done; err != gone || asked.Load() != 1 {
			t.Errorf("asked %d times, %v", asked.Load(), err)
		}
		if waiting, taken := waits(p); waiting != 0 || taken != 0 {
			t.Errorf("%d wait, %d places are taken", waiting, taken)
		}
	})
	t.Run("when it is to be sent again", func(t *testing.T) {
		var attempts, asked atomic.Int32
		p, _ := pool(t, scripted(t, func(f *frames) {
			f.bodies(func(stream uint32, _ []byte) {
				attempts.Add(1)
				_ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			})
		}), Config{})
		_, err := p.RoundTripWhile(t.Context(), right, request(t, "POST", strings.NewReader("x")), func() error {
			if asked.Add(1) > 1 {
				return gone
			}
			return nil
		}, nil)
		if err != gone || attempts.Load() != 1 {
			t.Errorf("%d attempts, %v", attempts.Load(), err)
		}
	})
}

// TestAnOriginThatTakesNothingIsGivenUp, however often it says that it did nothing.
func TestAnOriginThatTakesNothingIsGivenUp(t *testing.T) {
	var attempts atomic.Int32
	p, _ := pool(t, scripted(t, func(f *frames) {
		f.bodies(func(stream uint32, _ []byte) {
			attempts.Add(1)
			_ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		})
	}), Config{})
	if _, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "POST", strings.NewReader("x"))); err == nil || attempts.Load() != maxAttempts {
		t.Errorf("%d attempts, %v", attempts.Load(), err)
	}
}

// TestBodiesAreKeptUpToALimit, that of all of them.
func TestBodiesAreKeptUpToALimit(t *testing.T) {
	for held, attempts := range map[int64]int32{maxBegins - 4: 2, maxBegins - 3: 1} {
		var came atomic.Int32
		p, _ := pool(t, scripted(t, func(f *frames) {
			f.bodies(func(stream uint32, _ []byte) {
				if came.Add(1) == 1 {
					_ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				} else {
					f.fields(stream, true, ":status", "200")
				}
			})
		}), Config{})
		p.begins.Store(held)
		resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "POST", strings.NewReader("four")))
		if err == nil {
			resp.Body.Close()
		}
		if came.Load() != attempts || p.begins.Load() != held {
			t.Errorf("of %d bytes: %d attempts, %v, %d afterwards", held, came.Load(), err, p.begins.Load())
		}
	}
}

// TestABodyThatIsWaitedForIsNotSentAgain: the wait ends with the request.
func TestABodyThatIsWaitedForIsNotSentAgain(t *testing.T) {
	p, _ := pool(t, scripted(t, func(f *frames) {
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if d, ok := fr.(*http2.DataFrame); ok && len(d.Data()) > 0 {
				_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
			}
		}
	}), Config{})
	out, in := io.Pipe()
	go func() { _, _ = io.WriteString(in, "begun, ") }()
	if resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "POST", out)); err == nil {
		t.Errorf("it is answered: %s", resp.Status)
	}
	if _, err := io.WriteString(in, "and nobody reads on"); err != io.ErrClosedPipe {
		t.Errorf("the upload goes on: %v", err)
	}
}

// TestAnAnswerBeforeTheSecondAttemptIsWhole does not cut what is still sent of it.
func TestAnAnswerBeforeTheSecondAttemptIsWhole(t *testing.T) {
	b := &body{ReadCloser: io.NopCloser(strings.NewReader("the whole body")), pool: New(Config{}), keep: maxBegun}
	if _, err := io.ReadAll(b); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if !b.again() {
		t.Fatal("it is lost")
	}
	_, _ = io.ReadFull(b, make([]byte, 4))
	b.settle()
	rest, err := io.ReadAll(b)
	if string(rest) != "whole body" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if b.Close(); b.pool.begins.Load() != 0 {
		t.Error("something is kept")
	}
	if _, err := b.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
		t.Errorf("%v", err)
	}
}
