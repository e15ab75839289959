package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core"
)

// header8 is a masked header with a length in eight bytes.
func header8(first byte, length uint64) []byte {
	b := []byte{first, bitMask | 127}
	for i := 56; i >= 0; i -= 8 {
		b = append(b, byte(length>>i))
	}
	return append(b, 1, 2, 3, 4)
}

var half = strings.Repeat("x", MaxText/2)

// refused are what a client may not say, with the frames that came before.
var refused = []struct {
	rule string
	in   []byte
	want error
	up   []frame // what reaches the server before its close frame
}{
	{"a frame without a mask", plain(text, "hello"), errMask, nil},
	{"a control frame without a mask", plain(ping, ""), errMask, nil},
	{"RSV1 without an agreement", masked(compressed, deflated("a")), errReserved, nil},
	{"RSV2", masked(text|0x20, "a"), errReserved, nil},
	{"RSV3", masked(text|0x10, "a"), errReserved, nil},
	{"RSV1 on a control frame", masked(ping|bitDeflate, "a"), errReserved, nil},
	{"opcode 3", masked(0x83, "a"), errOpcode, nil},
	{"opcode 7", masked(0x87, "a"), errOpcode, nil},
	{"opcode 11", masked(0x8b, "a"), errOpcode, nil},
	{"opcode 15", masked(0x8f, "a"), errOpcode, nil},
	{"a ping in parts", masked(0x09, "a"), errControl, nil},
	{"a close in parts", masked(0x08, closes(1000, "")), errControl, nil},
	{"a ping of 126 bytes", masked(ping, strings.Repeat("p", 126)), errControl, nil},
	{"two bytes of length for 125", join([]byte{text, bitMask | 126, 0, 125, 1, 2, 3, 4}, make([]byte, 125)), errLength, nil},
	{"eight bytes of length for 65535", header8(text, 1<<16-1), errLength, nil},
	{"a length of 2^63", header8(text, 1<<63), errLength, nil},
	{"a text of 2^63-1", header8(text, 1<<63-1), errTooBig, nil},
	{"a binary of 2^63-1", header8(bin, 1<<63-1), errBinary, nil},
	{"a continuation of nothing", masked(last, "a"), errSequence, nil},
	{"a text inside a text", join(masked(textBegin, "a"), masked(text, "b")), errSequence, nil},
	{"a text inside a binary", join(masked(binBegin, "a"), masked(text, "b")), errSequence, []frame{{binBegin, "a"}}},
	{"a binary inside a text", join(masked(textBegin, "a"), masked(bin, "b")), errSequence, nil},
	{"a continuation after a text", join(masked(text, "a"), masked(last, "b")), errSequence, []frame{{text, "a"}}},
	{"a close of one byte", masked(closing, "x"), errClose, nil},
	{"close 0", masked(closing, closes(0, "")), errClose, nil},
	{"close 999", masked(closing, closes(999, "")), errClose, nil},
	{"close 1004", masked(closing, closes(1004, "")), errClose, nil},
	{"close 1005", masked(closing, closes(1005, "")), errClose, nil},
	{"close 1006", masked(closing, closes(1006, "")), errClose, nil},
	{"close 1015", masked(closing, closes(1015, "")), errClose, nil},
	{"close 2999", masked(closing, closes(2999, "")), errClose, nil},
	{"close 5000", masked(closing, closes(5000, "")), errClose, nil},
	{"a close reason that is no UTF-8", masked(closing, closes(1000, "\xff")), errReason, nil},
	{"text that is no UTF-8", masked(text, "a\xff"), errText, nil},
	{"text that ends inside a character", masked(text, "a\xe2\x82"), errText, nil},
	{"an encoded surrogate", masked(text, "\xed\xa0\x80"), errText, nil},
	{"no UTF-8 over two fragments", join(masked(textBegin, "\xe2\x82"), masked(last, "x")), errText, nil},
	{"a text one byte too long", header8(text, MaxText+1), errTooBig, nil},
	{"two fragments one byte too long", join(masked(textBegin, half), masked(last, half+"y")), errTooBig, nil},
	{"one fragment too many", join(masked(textBegin, ""), bytes.Repeat(masked(more, ""), MaxFragments-1), masked(last, "")), errFrames, nil},
	{"a binary frame one byte too long", header8(bin, MaxBinary+1), errBinary, nil},
	{"a continued binary frame one byte too long", join(masked(binBegin, "a"), header8(last, MaxBinary+1)), errBinary, []frame{{binBegin, "a"}}},
	{"a bad frame inside a text, behind a ping", join(masked(textBegin, "secret"), masked(ping, "1"), masked(0x8b, "")), errOpcode, []frame{{ping, "1"}}},
}

// A refused frame or message closes both sides, with a code, and leaves nothing of
// itself with the server.
func TestBrokenFramesCloseWithTheirCode(t *testing.T) {
	for _, c := range refused {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := exchange(t, c.in, false, nil)
				want := c.want.(*CloseError)
				wantRefused(t, s, want)
				up := append(slices.Clone(c.up), frame{closing, closes(CodeGoingAway, "")})
				if diff := cmp.Diff(up, s.upFrames(t), cmp.AllowUnexported(frame{})); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func wantRefused(t *testing.T, s *session, want *CloseError) {
	t.Helper()
	if !errors.Is(s.err, error(want)) && (s.err == nil || s.err.Error() != want.Error()) {
		t.Errorf("the session ended with %v, want %v", s.err, want)
	}
	if len(s.denied) != 1 || s.denied[0] != *want {
		t.Errorf("the record has %v", s.denied)
	}
	if s.stats.Close != want.Code {
		t.Errorf("close code %d", s.stats.Close)
	}
	down := []frame{{closing, closes(want.Code, want.Detail)}}
	if diff := cmp.Diff(down, s.downFrames(t), cmp.AllowUnexported(frame{})); diff != "" {
		t.Error(diff)
	}
}

// passing are what a client may say, and what the server gets.
var passing = []struct {
	rule string
	in   []byte
	up   []frame
}{
	{"a text", masked(text, "hello"), []frame{{text, "hello"}}},
	{"an empty text", masked(text, ""), []frame{{text, ""}}},
	{"a text of one small buffer", masked(text, strings.Repeat("s", smallBytes-8)), []frame{{text, strings.Repeat("s", smallBytes-8)}}},
	{"a text one byte longer", masked(text, strings.Repeat("s", smallBytes-7)), []frame{{text, strings.Repeat("s", smallBytes-7)}}},
	{"a text in two bytes of length", masked(text, strings.Repeat("s", 126)), []frame{{text, strings.Repeat("s", 126)}}},
	{"a text in eight bytes of length", masked(text, strings.Repeat("s", 1<<16)), []frame{{text, strings.Repeat("s", 1<<16)}}},
	{"a text of the greatest length", masked(text, half+half), []frame{{text, half + half}}},
	{"fragments of the greatest length", join(masked(textBegin, half), masked(last, half)), []frame{{text, half + half}}},
	{"the greatest number of fragments", join(masked(textBegin, "a"), bytes.Repeat(masked(more, ""), MaxFragments-2), masked(last, "b")), []frame{{text, "ab"}}},
	{"a character over three fragments", join(masked(textBegin, "\xe2"), masked(more, "\x82"), masked(last, "\xac")), []frame{{text, "€"}}},
	{"control frames between fragments", join(masked(textBegin, "a"), masked(ping, "1"), masked(more, "b"), masked(pong, "2"), masked(last, "c")), []frame{{ping, "1"}, {pong, "2"}, {text, "abc"}}},
	{"a ping of 125 bytes", masked(ping, strings.Repeat("p", 125)), []frame{{ping, strings.Repeat("p", 125)}}},
	{"a binary", masked(bin, "\xff\x00"), []frame{{bin, "\xff\x00"}}},
	{"a binary in parts keeps its parts", join(masked(binBegin, "a"), masked(ping, ""), masked(more, ""), masked(last, "b")), []frame{{binBegin, "a"}, {ping, ""}, {more, ""}, {last, "b"}}},
	{"a binary of the greatest length", masked(bin, strings.Repeat("b", MaxBinary)), []frame{{bin, strings.Repeat("b", MaxBinary)}}},
	{"messages of every kind in a row", join(masked(text, "a"), masked(bin, "b"), masked(textBegin, "c"), masked(last, "d"), masked(text, "e")), []frame{{text, "a"}, {bin, "b"}, {text, "cd"}, {text, "e"}}},
	{"a close inside a text drops the text", join(masked(textBegin, "a"), masked(closing, closes(1001, "bye"))), []frame{{closing, closes(1001, "bye")}}},
	{"an empty close", masked(closing, ""), []frame{{closing, ""}}},
	{"close 4999 with the longest reason", masked(closing, closes(4999, strings.Repeat("r", 123))), []frame{{closing, closes(4999, strings.Repeat("r", 123))}}},
	{"what follows a close is nothing", join(masked(closing, closes(1000, "")), masked(text, "late")), []frame{{closing, closes(1000, "")}}},
}

func TestWhatAClientMaySayReachesTheServer(t *testing.T) {
	for _, c := range passing {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := exchange(t, c.in, true, nil)
				if s.err != nil || len(s.denied) > 0 {
					t.Errorf("%v, %v", s.err, s.denied)
				}
				if diff := cmp.Diff(c.up, s.upFrames(t), cmp.AllowUnexported(frame{})); diff != "" {
					t.Error(diff[:min(len(diff), 2000)])
				}
				if got := s.downFrames(t); len(got) > 0 {
					t.Errorf("the client got %v", got)
				}
			})
		})
	}
}

// Every mask is new, and what came with the handshake is parsed like the rest.
func TestEarlyBytesAreJudgedAndMasksAreNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var judged []string
		early := join(masked(text, "one"), masked(text, "two")[:4])
		s := newSession(func(s *Session) {
			s.ClientEarly = early
			s.UpstreamEarly = plain(text, "hi")
			s.Judge = func(_ context.Context, b []byte) ([]byte, error) {
				judged = append(judged, string(b))
				return nil, nil
			}
		})
		s.start(t.Context())
		s.collect()
		s.send(masked(text, "two")[4:])
		_ = s.client.CloseWrite()
		s.wait()
		if diff := cmp.Diff([]string{"one", "two"}, judged); diff != "" {
			t.Error(diff)
		}
		if b := s.up.Bytes(); [4]byte(b[2:6]) == [4]byte{0x11, 0xa2, 0x03, 0xf4} || [4]byte(b[2:6]) == [4]byte(b[11:15]) {
			t.Errorf("masks %x, %x", b[2:6], b[11:15])
		}
		if got := s.downFrames(t); !slices.Equal(got, []frame{{text, "hi"}}) {
			t.Errorf("the client got %v", got)
		}
		want := Stats{Up: Direction{2, 18}, Down: Direction{1, 4}, Close: CodeAbnormal}
		if s.stats != want {
			t.Errorf("%+v", s.stats)
		}
	})
}

// What a message means does not depend on how its bytes arrive.
func TestEverySplitReadsTheSame(t *testing.T) {
	in := join(masked(textBegin, "ab"), masked(ping, "p"), masked(last, "cd"), masked(bin, "ef"), masked(text, strings.Repeat("g", 300)), masked(closing, closes(1000, "x")))
	want := []frame{{ping, "p"}, {text, "abcd"}, {bin, "ef"}, {text, strings.Repeat("g", 300)}, {closing, closes(1000, "x")}}
	for i := range len(in) {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(nil)
			s.start(t.Context())
			s.collect()
			s.send(in[:i])
			synctest.Wait()
			s.send(in[i:])
			s.wait()
			if got := s.upFrames(t); s.err != nil || !slices.Equal(got, want) {
				t.Errorf("split at %d: %v, %v", i, got, s.err)
			}
		})
	}
}

func TestJudgeDecides(t *testing.T) {
	private := errors.New("the evaluator says something private")
	for _, c := range []struct {
		rule   string
		judge  func(context.Context, []byte) ([]byte, error)
		want   CloseError
		detail string
	}{
		{"a denial", func(context.Context, []byte) ([]byte, error) {
			return nil, &CloseError{Code: CodePolicy, Reason: core.ReasonPolicyDenied, Detail: "not permitted"}
		}, CloseError{Code: CodePolicy, Reason: core.ReasonPolicyDenied, Detail: "not permitted"}, "not permitted"},
		{"a code of its own", func(context.Context, []byte) ([]byte, error) {
			return nil, fmt.Errorf("wrapped: %w", &CloseError{Code: 4000, Reason: core.ReasonPolicyDenied, Detail: "x"})
		}, CloseError{Code: 4000, Reason: core.ReasonPolicyDenied, Detail: "x"}, "x"},
		{"a code that cannot be sent", func(context.Context, []byte) ([]byte, error) {
			return nil, &CloseError{Code: CodeAbnormal, Detail: strings.Repeat("é", 100)}
		}, CloseError{Code: CodePolicy, Detail: strings.Repeat("é", 100)}, strings.Repeat("é", 61)},
		{"an error, which stays private", func(context.Context, []byte) ([]byte, error) { return nil, private },
			CloseError{CodePolicy, core.ReasonInternal, "the message could not be judged", private}, "the message could not be judged"},
		{"nobody", nil, CloseError{Code: CodePolicy, Reason: core.ReasonPolicyDenied, Detail: "text messages are not permitted here"}, "text messages are not permitted here"},
		{"a replacement that is no text", func(context.Context, []byte) ([]byte, error) { return []byte{0xff}, nil }, *errText.(*CloseError), errText.(*CloseError).Detail},
		{"a replacement that is too long", func(context.Context, []byte) ([]byte, error) { return make([]byte, MaxText+1), nil }, *errTooBig.(*CloseError), errTooBig.(*CloseError).Detail},
	} {
		for form, in := range map[string][]byte{"short": masked(text, "secret"), "long": join(masked(textBegin, "sec"), masked(last, "ret"))} {
			t.Run(c.rule+", "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := exchange(t, join(in, masked(text, "after")), false, func(s *Session) { s.Judge = c.judge })
					if len(s.denied) != 1 || s.denied[0] != c.want {
						t.Errorf("%v", s.denied)
					}
					if got := s.downFrames(t); !slices.Equal(got, []frame{{closing, closes(c.want.Code, c.detail)}}) {
						t.Errorf("the client got %v", got)
					}
					if got := s.upFrames(t); !slices.Equal(got, []frame{{closing, closes(CodeGoingAway, "")}}) {
						t.Errorf("the server got %v", got)
					}
				})
			})
		}
	}
}

func TestReplacementsAreSentInstead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upper := func(_ context.Context, b []byte) ([]byte, error) {
			switch string(b) {
			case "keep":
				return nil, nil
			case "empty":
				return []byte{}, nil
			}
			return []byte(strings.Repeat(strings.ToUpper(string(b)), 100)), nil
		}
		in := join(masked(text, "abc"), masked(text, "keep"), masked(textBegin, "ke"), masked(last, "ep"), masked(textBegin, "a"), masked(last, "bc"), masked(text, "empty"))
		s := exchange(t, in, true, func(s *Session) { s.Judge = upper })
		long := strings.Repeat("ABC", 100)
		if got := s.upFrames(t); !slices.Equal(got, []frame{{text, long}, {text, "keep"}, {text, "keep"}, {text, long}, {text, ""}}) {
			t.Errorf("%v", got)
		}
		if s.stats.Up.Messages != 5 {
			t.Errorf("%+v", s.stats)
		}
	})
}

func TestBinaryMessagesPassOnlyWhereTheyMay(t *testing.T) {
	for rule, in := range map[string][]byte{"whole": masked(bin, "secret"), "in parts": masked(binBegin, "secret")} {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := exchange(t, in, false, func(s *Session) { s.Binary = false })
				wantRefused(t, s, errOpaque.(*CloseError))
			})
		})
	}
}

// A client that begins and does not go on is refused, when it has begun with text at
// the latest two minutes after that.
func TestSlowClients(t *testing.T) {
	for _, c := range []struct {
		rule  string
		in    []byte
		every time.Duration
		piece []byte
		after time.Duration
	}{
		{"half a header", masked(text, "abc")[:1], time.Hour, nil, readWait},
		{"half a short text", masked(text, "abc")[:8], time.Hour, nil, readWait},
		{"half a ping", masked(ping, "abc")[:8], time.Hour, nil, readWait},
		{"half a binary", masked(bin, strings.Repeat("x", 1000))[:200], time.Hour, nil, readWait},
		{"a text without its end", masked(textBegin, "abc"), time.Hour, nil, readWait},
		{"a text that grows slowly", masked(textBegin, "abc"), readWait - time.Second, masked(more, "x"), assemblyWait},
		{"a text with pings", masked(textBegin, "abc"), readWait - time.Second, masked(ping, "x"), assemblyWait},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := newSession(nil)
				var took time.Duration
				s.Denied = func(e *CloseError) {
					took = time.Since(began)
					s.denied = append(s.denied, *e)
				}
				s.start(t.Context())
				s.collect()
				s.send(c.in)
				for range 10 {
					select {
					case <-s.done:
					case <-time.After(c.every):
						s.send(c.piece)
					}
				}
				s.wait()
				if len(s.denied) != 1 || s.denied[0] != *errSlow.(*CloseError) || took != c.after {
					t.Errorf("%v after %v, want %v", s.denied, took, c.after)
				}
			})
		})
	}
}

func TestAnIdleSessionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil)
		s.start(t.Context())
		s.collect()
		s.send(masked(textBegin, "a"))
		synctest.Wait()
		time.Sleep(readWait - time.Second)
		s.send(masked(last, "b"))
		time.Sleep(1000 * time.Hour) // between messages nothing is late
		s.send(masked(binBegin, "c"))
		time.Sleep(1000 * time.Hour) // nor between parts that nobody holds
		s.send(masked(last, "d"))
		_ = s.client.CloseWrite()
		s.wait()
		if got := s.upFrames(t); s.err != nil || !slices.Equal(got, []frame{{text, "ab"}, {binBegin, "c"}, {last, "d"}}) {
			t.Errorf("%v, %v", got, s.err)
		}
	})
}

func TestIdleLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(func(s *Session) { s.Idle = time.Hour })
		s.start(t.Context())
		s.collect()
		time.Sleep(50 * time.Minute)
		s.send(masked(ping, ""))
		time.Sleep(50 * time.Minute)
		if got := s.downFrames(t); len(got) > 0 {
			t.Fatalf("%v", got)
		}
		time.Sleep(time.Hour)
		s.wait()
		if got := s.downFrames(t); len(got) != 1 || got[0].payload[:2] != closes(CodeGoingAway, "") {
			t.Errorf("%v", got)
		}
		if e, ok := errors.AsType[*CloseError](s.err); !ok || e.Reason != core.ReasonIdle || len(s.denied) > 0 {
			t.Errorf("%v, %v", s.err, s.denied)
		}
	})
}
