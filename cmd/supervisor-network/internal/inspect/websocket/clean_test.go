package websocket

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// replacing is a Clean that replaces SECRET, in what is no text by as much, and holds
// back what it may begin with.
func replacing() func([]byte, bool, bool) []byte {
	held := ""
	return func(piece []byte, text, last bool) []byte {
		with := "x"
		if !text {
			with = "******"
		}
		whole, ready := strings.ReplaceAll(held+string(piece), "SECRET", with), 0
		if ready = max(0, len(whole)-5); last {
			ready = len(whole)
		}
		held = whole[ready:]
		return []byte(whole[:ready])
	}
}

// messages puts the fragments of messages together; control frames keep their places.
func messages(frames []frame) (out []frame) {
	var under frame
	for _, f := range frames {
		switch {
		case f.first&0x8 != 0:
			out = append(out, f)
		case f.first&0xf != 0:
			under = frame{f.first | last, f.payload}
		default:
			under.payload += f.payload
		}
		if f.first&0x8 == 0 && f.first&last != 0 {
			out = append(out, under)
		}
	}
	return out
}

func TestMessagesOfTheServerAreCleaned(t *testing.T) {
	far := strings.Repeat("f", bigBytes)
	bye := plain(closing, closes(1000, "bye"))
	for _, c := range []struct {
		rule string
		in   []byte
		down []frame
	}{
		{"a text", plain(text, "a SECRET b"), []frame{{text, "a x b"}}},
		{"an empty text", plain(text, ""), []frame{{text, ""}}},
		{"nothing to replace", plain(text, "SECRE"), []frame{{text, "SECRE"}}},
		{"fragments", join(plain(textBegin, "SEC"), plain(more, ""), plain(more, "RE"), plain(last, "T!")), []frame{{text, "x!"}}},
		{"control frames in between", join(plain(textBegin, "SEC"), plain(ping, "SECRET"), plain(last, "RET")), []frame{{ping, "SECRET"}, {text, "x"}}},
		{"longer than the buffer", plain(text, far+"SECRET"+far+"SECRET"), []frame{{text, far + "x" + far + "x"}}},
		{"where the buffer ends", plain(text, far[:bigBytes-3]+"SECRET"), []frame{{text, far[:bigBytes-3] + "x"}}},
		{"one after another", join(plain(text, "SEC"), plain(text, "RET")), []frame{{text, "SEC"}, {text, "RET"}}},
		{"a binary keeps its length", join(plain(binBegin, "SECRE"), plain(more, "T"), plain(last, far+"SECRET"), plain(text, "SECRET")), []frame{{bin, "******" + far + "******"}, {text, "x"}}},
		{"an empty binary", plain(bin, ""), []frame{{bin, ""}}},
	} {
		for _, step := range []int{1, 7, 4096, len(c.in)} {
			if step == 1 && len(c.in) > 1000 {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				s := newSession(func(s *Session) { s.Clean = replacing() })
				s.start(t.Context())
				s.collect()
				for rest := c.in; len(rest) > 0; rest = rest[min(step, len(rest)):] {
					_, _ = s.server.Write(rest[:min(step, len(rest))])
				}
				_, _ = s.server.Write(bye)
				s.wait()
				want := append(c.down, frame{closing, closes(1000, "bye")})
				if diff := cmp.Diff(want, messages(s.downFrames(t)), cmp.AllowUnexported(frame{})); diff != "" || s.err != nil {
					t.Errorf("%s, in pieces of %d: %v\n%.500s", c.rule, step, s.err, diff)
				}
				if n := int64(len(c.down) - strings.Count(string(c.in), "\x89")); s.stats.Down.Messages != n {
					t.Errorf("%s: %d messages are counted, not %d", c.rule, s.stats.Down.Messages, n)
				}
			})
		}
	}
}

// A frame that fits the buffer stays one: there are clients that expect no others.
func TestAShortTextStaysOneFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(func(s *Session) { s.Clean = replacing() })
		s.start(t.Context())
		s.collect()
		long := strings.Repeat("l", bigBytes)
		in := plain(text, long)
		_, _ = s.server.Write(in[:1000])
		_, _ = s.server.Write(in[1000:])
		_, _ = s.server.Write(plain(closing, ""))
		s.wait()
		if diff := cmp.Diff([]frame{{text, long}, {closing, ""}}, s.downFrames(t), cmp.AllowUnexported(frame{})); diff != "" {
			t.Errorf("%.300s", diff)
		}
	})
}

// What a server may not say it may not say where its texts are cleaned.
func TestBrokenServersWhereTextsAreCleaned(t *testing.T) {
	for _, c := range brokenServer {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(func(s *Session) { s.Clean = replacing() })
			s.start(t.Context())
			s.collect()
			_, _ = s.server.Write(join(plain(text, "fine"), c.in))
			s.wait()
			down := s.downFrames(t)
			want := c.want.(*CloseError)
			if len(down) < 2 || down[0] != (frame{text, "fine"}) || down[len(down)-1] != (frame{closing, closes(want.Code, "the server: "+want.Detail)}) {
				t.Errorf("%s: the client got %v", c.rule, down)
			}
		})
	}
}

// FuzzClean: a Clean that changes nothing changes no message, however a server sends it.
func FuzzClean(f *testing.F) {
	for i, in := range seeds {
		frames, _ := slowRead(in, true)
		var b []byte
		for _, fr := range frames {
			b = append(b, plain(fr.first, fr.payload)...)
		}
		f.Add(b, byte(i))
	}
	f.Fuzz(func(t *testing.T, in []byte, step byte) {
		run := func(clean func([]byte, bool, bool) []byte) ([]frame, Stats) {
			server, client := tapes(in, step)
			s := &Session{Client: client, Upstream: server, Clean: clean}
			stats, _ := s.Run(t.Context())
			frames, _ := slowRead(client.out.Bytes(), false)
			return messages(frames), stats
		}
		want, before := run(nil)
		got, after := run(func(piece []byte, _, _ bool) []byte { return piece })
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(frame{})); diff != "" || before.Down.Messages != after.Down.Messages || before.Close != after.Close {
			t.Fatalf("%x: %s\n%+v, %+v", in, diff, before, after)
		}
	})
}
