package websocket

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

func deflating(s *Session) { s.Deflate = true }

// stored is a deflate block that is not compressed.
func stored(final byte, s string) string {
	n := len(s)
	return string([]byte{final, byte(n), byte(n >> 8), ^byte(n), ^byte(n >> 8)}) + s
}

var noise = func() string {
	b := make([]byte, 100_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	for i := range b {
		b[i] = b[i]&0x3f + 0x30
	}
	return string(b)
}()

func TestCompressedMessagesAreSentOnInflated(t *testing.T) {
	hello := deflated("hello")
	withFinal := "\xf3\x48\xcd\xc9\xc9\x07\x00\x00" // RFC 7692 section 7.2.3.5
	for _, c := range []struct {
		rule string
		in   []byte
		want []frame
	}{
		{"one frame", masked(compressed, hello), []frame{{text, "hello"}}},
		{"the example of the RFC", masked(compressed, "\xf2\x48\xcd\xc9\xc9\x07\x00"), []frame{{text, "Hello"}}},
		{"an example in two fragments", join(masked(textBegin|bitDeflate, "\xf2\x48\xcd"), masked(last, "\xc9\xc9\x07\x00")), []frame{{text, "Hello"}}},
		{"an example with two blocks", masked(compressed, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), []frame{{text, "Hello"}}},
		{"an example with a last block", masked(compressed, withFinal), []frame{{text, "Hello"}}},
		{"an example that is stored", masked(compressed, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), []frame{{text, "Hello"}}},
		{"nothing", masked(compressed, "\x00"), []frame{{text, ""}}},
		{"a plain one between", join(masked(compressed, hello), masked(text, "x"), masked(compressed, hello)), []frame{{text, "hello"}, {text, "x"}, {text, "hello"}}},
		{"control frames between fragments", join(masked(textBegin|bitDeflate, hello[:2]), masked(ping, "1"), masked(more, ""), masked(last, hello[2:])), []frame{{ping, "1"}, {text, "hello"}}},
		{"the greatest length", masked(compressed, deflated(half+half)), []frame{{text, half + half}}},
		{"empty blocks up to the limit", masked(compressed, strings.Repeat(stored(0, ""), MaxText/5)+"\x00"), []frame{{text, ""}}},
		{"what hardly compresses", masked(compressed, deflated(noise)), []frame{{text, noise}}},
		{"a binary passes as it is", join(masked(bin|bitDeflate, hello)), []frame{{bin | bitDeflate, hello}}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := exchange(t, c.in, true, deflating)
				if got := s.upFrames(t); s.err != nil || !slices.Equal(got, c.want) {
					t.Errorf("%.200v, %v", got, s.err)
				}
			})
		})
	}
}

func TestCompressedMessagesAreJudgedInflated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		judge := func(_ context.Context, b []byte) ([]byte, error) {
			if strings.Contains(string(b), "forbidden") {
				return nil, errOpaque
			}
			return nil, nil
		}
		d := deflated("a forbidden word")
		in := join(masked(textBegin|bitDeflate, d[:5]), masked(ping, "p"), masked(more, d[5:6]), masked(last, d[6:]))
		s := exchange(t, in, false, func(s *Session) { s.Deflate, s.Judge = true, judge })
		wantRefused(t, s, errOpaque.(*CloseError))
		if got := s.upFrames(t); !slices.Equal(got, []frame{{ping, "p"}, {closing, closes(CodeGoingAway, "")}}) {
			t.Errorf("%v", got)
		}
	})
}

// second compresses the second of two equal messages with the memory of the first.
func second(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = io.WriteString(w, s)
	_ = w.Flush()
	b.Reset()
	_, _ = io.WriteString(w, s)
	_ = w.Flush()
	return string(bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff}))
}

func TestCompressedMessagesThatAreRefused(t *testing.T) {
	letters := strings.Repeat("memory of another message ", 4)
	for _, c := range []struct {
		rule string
		in   []byte
		want error
	}{
		{"garbage", masked(compressed, "\xff\xff\xff"), errDeflate},
		{"no byte", masked(compressed, ""), errDeflate},
		{"a block that is cut", masked(compressed, deflated(letters)[:10]), errDeflate},
		{"a stored block that is cut", masked(compressed, stored(0, "hello")[:7]), errDeflate},
		{"a message with the memory of another", join(masked(compressed, second(letters))), errDeflate},
		{"bytes behind the last block", masked(compressed, stored(1, "hello")+stored(0, "more")+"\x00"), errDeflate},
		{"two bytes behind the last block", masked(compressed, stored(1, "hello")+"\x00\x00"), errDeflate},
		{"a last block and no empty one", masked(compressed, stored(1, "hello")), errDeflate},
		{"RSV1 on a continuation", join(masked(textBegin|bitDeflate, "a"), masked(last|bitDeflate, "b")), errReserved},
		{"RSV1 on a ping", masked(ping|bitDeflate, "a"), errReserved},
		{"a bomb, one byte too long", masked(compressed, deflated(half+half+"y")), errTooBig},
		{"a bomb", masked(compressed, deflated(strings.Repeat("\x00", 1<<25))), errTooBig},
		{"what inflates to no UTF-8", masked(compressed, deflated("\xff")), errText},
		{"empty blocks without end", masked(compressed, strings.Repeat(stored(0, ""), MaxText/5+1)), errTooBig},
		{"a last block and a fragment that does not come", join(masked(textBegin|bitDeflate, stored(1, "hello"))), errSlow},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := exchange(t, c.in, false, deflating)
				wantRefused(t, s, c.want.(*CloseError))
				if got := s.upFrames(t); !slices.Equal(got, []frame{{closing, closes(CodeGoingAway, "")}}) {
					t.Errorf("%v", got)
				}
			})
		})
	}
}

func TestAssembliesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := NewAssemblies(nil)
		begin := func() *session {
			s := newSession(func(s *Session) { s.Assemblies = places })
			s.start(t.Context())
			s.collect()
			s.send(masked(textBegin, "a"))
			synctest.Wait()
			return s
		}
		finish := func(s *session) {
			s.send(masked(last, "b"))
			synctest.Wait()
			_ = s.client.CloseWrite()
			_ = s.server.CloseWrite()
			s.wait()
			if got := s.upFrames(t); !slices.Equal(got, []frame{{text, "ab"}}) {
				t.Errorf("%v, %v", got, s.err)
			}
		}
		var holding []*session
		for range MaxAssemblies + MaxWaiting {
			holding = append(holding, begin())
		}
		if n := places.waiting.Load(); n != MaxWaiting {
			t.Errorf("%d wait", n)
		}
		refused := begin()
		refused.wait()
		wantRefused(t, refused, errFull.(*CloseError))
		small := newSession(func(s *Session) { s.Assemblies = places }) // it needs no place
		small.start(t.Context())
		small.collect()
		small.send(masked(text, "short"))
		if got := small.upFrames(t); !slices.Equal(got, []frame{{text, "short"}}) {
			t.Errorf("%v", got)
		}
		_ = small.client.CloseWrite()
		_ = small.server.CloseWrite()
		small.wait()
		for _, s := range holding { // those that waited get the places of those that end
			finish(s)
		}
		if len(places.places) != 0 || places.waiting.Load() != 0 {
			t.Error("places are lost")
		}
	})
}

// A session that ends while it waits for a place gives up at once.
func TestWaitingEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := NewAssemblies(nil)
		for range MaxAssemblies {
			places.places <- struct{}{}
		}
		s := newSession(func(s *Session) { s.Assemblies = places })
		s.start(t.Context())
		s.collect()
		s.send(masked(textBegin, "a"))
		synctest.Wait()
		cause := &CloseError{Code: CodePolicyChanged}
		s.cancel(cause)
		s.wait()
		if !errors.Is(s.err, cause) || places.waiting.Load() != 0 {
			t.Errorf("%v, %d", s.err, places.waiting.Load())
		}
	})
}
