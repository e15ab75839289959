package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

func TestClientClosesAndTheServersRestArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil)
		s.start(t.Context())
		s.collect()
		s.send(masked(closing, closes(1000, "bye")))
		want := make([]frame, 0, 21)
		for range 20 { // slower than any answer to a close of ours would have to be
			time.Sleep(halfWait - time.Second)
			_, _ = s.server.Write(plain(text, "rest"))
			want = append(want, frame{text, "rest"})
		}
		_, _ = s.server.Write(plain(closing, closes(1000, "bye")))
		s.wait()
		if got := s.downFrames(t); !slices.Equal(got, append(want, frame{closing, closes(1000, "bye")})) {
			t.Errorf("%v", got)
		}
		if s.err != nil || s.stats.Close != 1000 || len(s.denied) > 0 {
			t.Errorf("%v, %+v", s.err, s.stats)
		}
	})
}

func TestServerClosesAndTheClientsRestArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil)
		s.start(t.Context())
		s.collect()
		_, _ = s.server.Write(join(plain(text, "x"), plain(closing, closes(3000, ""))))
		synctest.Wait()
		time.Sleep(halfWait - time.Second)
		s.send(masked(text, "rest"))
		s.send(masked(closing, closes(3000, "")))
		s.wait()
		if got := s.upFrames(t); !slices.Equal(got, []frame{{text, "rest"}, {closing, closes(3000, "")}}) {
			t.Errorf("%v", got)
		}
		if got := s.downFrames(t); !slices.Equal(got, []frame{{text, "x"}, {closing, closes(3000, "")}}) || s.err != nil || s.stats.Close != 3000 {
			t.Errorf("%v, %v, %+v", got, s.err, s.stats)
		}
	})
}

func TestASideThatDoesNotAnswerACloseIsNotWaitedForForEver(t *testing.T) {
	for _, fromServer := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(nil)
			s.start(t.Context())
			s.collect()
			began := time.Now()
			if fromServer {
				_, _ = s.server.Write(plain(closing, ""))
			} else {
				s.send(masked(closing, ""))
			}
			s.wait()
			if took := time.Since(began); took != halfWait || s.err != nil || s.stats.Close != CodeNone {
				t.Errorf("%v, %v, %+v", took, s.err, s.stats)
			}
		})
	}
}

// A side that ends without a close frame is a half-close of the other: what is under
// way still arrives, and nobody is told of an orderly close.
func TestAnEndWithoutACloseLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil)
		s.start(t.Context())
		s.collect()
		s.send(masked(text, "last"))
		_ = s.client.CloseWrite()
		synctest.Wait()
		_, _ = s.server.Write(plain(text, "answer"))
		_ = s.server.CloseWrite()
		s.wait()
		if got := s.downFrames(t); !slices.Equal(got, []frame{{text, "answer"}}) {
			t.Errorf("the client got %v", got)
		}
		if got := s.upFrames(t); !slices.Equal(got, []frame{{text, "last"}}) || s.err != nil || s.stats.Close != CodeAbnormal {
			t.Errorf("the server got %v, %v", got, s.err)
		}
	})
}

func TestAClientThatEndsInsideATextSendsNothingOfIt(t *testing.T) {
	for _, in := range [][]byte{masked(textBegin, "secret"), masked(text, "secret")[:9], masked(text, strings.Repeat("s", 1000))[:900]} {
		synctest.Test(t, func(t *testing.T) {
			s := exchange(t, in, true, nil)
			if got := s.upFrames(t); len(got) > 0 || !errors.Is(s.err, io.ErrUnexpectedEOF) {
				t.Errorf("%v, %v", got, s.err)
			}
		})
	}
}

func TestTheContextsCauseIsWhatBothSidesAreTold(t *testing.T) {
	for _, c := range []struct {
		cause error
		code  Code
		text  string
	}{
		{&CloseError{Code: CodePolicyChanged, Reason: core.ReasonPolicyChanged, Detail: "the policy changed"}, CodePolicyChanged, "the policy changed"},
		{errors.New("private"), CodeGoingAway, "the session was ended"},
	} {
		for rule, in := range map[string][]byte{"idle": nil, "inside a text": masked(textBegin, "secret"), "inside a frame of a text": masked(text, "secret")[:9]} {
			t.Run(rule, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSession(nil)
					s.start(t.Context())
					s.collect()
					s.send(in)
					synctest.Wait()
					s.cancel(c.cause)
					s.wait()
					if got := s.downFrames(t); !slices.Equal(got, []frame{{closing, closes(c.code, c.text)}}) {
						t.Errorf("the client got %v", got)
					}
					if got := s.upFrames(t); !slices.Equal(got, []frame{{closing, closes(CodeGoingAway, "")}}) {
						t.Errorf("the server got %v", got)
					}
					if !errors.Is(s.err, c.cause) || s.stats.Close != c.code || len(s.denied) > 0 {
						t.Errorf("%v, %+v", s.err, s.stats)
					}
				})
			})
		}
	}
}

// A verdict that comes after the policy changed is not used, be it by an instant.
func TestALateVerdictSendsNothing(t *testing.T) {
	for _, in := range [][]byte{masked(text, "secret"), join(masked(textBegin, "sec"), masked(last, "ret"))} {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(nil)
			s.Judge = func(context.Context, []byte) ([]byte, error) {
				s.cancel(&CloseError{Code: CodePolicyChanged})
				return nil, nil
			}
			s.start(t.Context())
			s.collect()
			s.send(in)
			s.wait()
			if got := s.upFrames(t); !slices.Equal(got, []frame{{closing, closes(CodeGoingAway, "")}}) {
				t.Errorf("%v", got)
			}
		})
	}
}

// Whoever answers the close frame that tells it of a refusal is not lingered for.
func TestARefusalTakesNoTimeWhenBothSidesAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil)
		began := time.Now()
		s.start(t.Context())
		for _, peer := range []end{s.client, s.server} {
			go func() {
				_, _ = peer.Read(make([]byte, 100))
				_ = peer.CloseWrite()
				_, _ = io.Copy(io.Discard, peer)
			}()
		}
		s.send(masked(0x83, ""))
		s.wait()
		if took := time.Since(began); took != 0 || !errors.Is(s.err, errOpcode) {
			t.Errorf("%v after %v", s.err, took)
		}
	})
}

func TestAServerThatEndsMeanwhileDoesNotHideARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil)
		s.Denied = func(*CloseError) {
			_ = s.server.CloseWrite()
			time.Sleep(time.Second) // in which the other direction ends
		}
		s.start(t.Context())
		s.collect()
		s.send(masked(0x83, ""))
		s.wait()
		if got := s.downFrames(t); !slices.Equal(got, []frame{{closing, closes(CodeProtocol, errOpcode.(*CloseError).Detail)}}) {
			t.Errorf("the client got %v", got)
		}
	})
}

// A close frame of ours never stands inside a frame of the server.
func TestOurCloseWaitsForTheEndOfAFrame(t *testing.T) {
	for _, rest := range []string{"second half", "second half and more frames"} {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(nil)
			s.start(t.Context())
			s.collect()
			whole := plain(bin, strings.Repeat("x", 1000))
			_, _ = s.server.Write(whole[:500])
			synctest.Wait()
			s.send(masked(0x83, ""))
			synctest.Wait()
			after := whole[500:]
			if strings.Contains(rest, "more") {
				after = join(after, plain(text, "more"), plain(bin, strings.Repeat("y", 1000))[:500])
			}
			_, _ = s.server.Write(after)
			s.wait()
			want := []frame{{bin, strings.Repeat("x", 1000)}, {closing, closes(CodeProtocol, errOpcode.(*CloseError).Detail)}}
			if got := s.downFrames(t); !slices.Equal(got, want) {
				t.Errorf("%v", got)
			}
		})
	}
}

// Nor does one stand inside a frame to the server, which then sees the end of its
// stream instead.
func TestAFrameThatIsNotCompletedIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := masked(bin, strings.Repeat("x", 2000))[:1000]
		began := time.Now()
		s := newSession(nil)
		s.start(t.Context())
		go func() { _, _ = io.Copy(io.Discard, s.client) }()
		go s.send(in)
		got, err := io.ReadAll(s.server)
		if len(got) != len(in) || err != nil {
			t.Errorf("the server got %d bytes, %v", len(got), err)
		}
		if took := time.Since(began); took != readWait {
			t.Errorf("after %v", took)
		}
		s.wait()
	})
}

// brokenServer is what a server may not say.
var brokenServer = []struct {
	rule string
	in   []byte
	want error
}{
	{"a masked frame", masked(text, "a"), errMask},
	{"RSV1 without an agreement", plain(compressed, "a"), errReserved},
	{"RSV2", plain(text|0x20, "a"), errReserved},
	{"a reserved opcode", plain(0x83, "a"), errOpcode},
	{"a long ping", plain(ping, strings.Repeat("p", 126)), errControl},
	{"a length that is not the shortest", append([]byte{text, 126, 0, 5}, "hello"...), errLength},
	{"a length of 2^63", []byte{bin, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, errLength},
	{"a continuation of nothing", plain(last, ""), errSequence},
	{"a text inside a text", join(plain(textBegin, ""), plain(text, "")), errSequence},
	{"a close of one byte", plain(closing, "x"), errClose},
	{"a close with a code that is not sent", plain(closing, closes(1006, "")), errClose},
	{"a close reason that is no UTF-8", plain(closing, closes(1000, "\xff")), errReason},
}

func TestBrokenServersCloseBothSides(t *testing.T) {
	for _, c := range brokenServer {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSession(nil)
				s.start(t.Context())
				s.collect()
				_, _ = s.server.Write(join(plain(text, "fine"), c.in))
				s.wait()
				want := c.want.(*CloseError)
				down := s.downFrames(t)
				if len(down) < 2 || down[0] != (frame{text, "fine"}) || down[len(down)-1] != (frame{closing, closes(want.Code, "the server: "+want.Detail)}) {
					t.Errorf("the client got %v", down)
				}
				if got := s.upFrames(t); !slices.Equal(got, []frame{{closing, closes(want.Code, "")}}) {
					t.Errorf("the server got %v", got)
				}
				if e, ok := errors.AsType[*CloseError](s.err); !ok || e.Reason != core.ReasonUpstreamInvalid || len(s.denied) > 0 {
					t.Errorf("%v, %v", s.err, s.denied)
				}
			})
		})
	}
}

// The server's frames arrive as they were sent, however they are cut.
func TestServersFramesPassUnchanged(t *testing.T) {
	in := join(plain(text, "a"), plain(ping, "b"), plain(binBegin, strings.Repeat("c", 70000)), plain(pong, ""), plain(last, strings.Repeat("d", 300)), plain(text, ""), plain(closing, closes(1001, "e")))
	for _, step := range []int{1, 7, 511, 512, 513, 40000, len(in)} {
		synctest.Test(t, func(t *testing.T) {
			s := newSession(nil)
			s.start(t.Context())
			s.collect()
			for piece := range slices.Chunk(in, step) {
				_, _ = s.server.Write(piece)
			}
			s.send(masked(closing, ""))
			s.wait()
			if got := s.down.String(); got != string(in) || s.err != nil {
				t.Errorf("in steps of %d: %d bytes of %d, %v", step, len(got), len(in), s.err)
			}
			if want := (Direction{3, int64(len(in))}); s.stats.Down != want {
				t.Errorf("%+v", s.stats.Down)
			}
		})
	}
}

// tcp is a pair of connected sockets.
func tcp(t testing.TB) (far, near *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// A refused client that still sends reads why, and not a reset.
func TestARefusalIsNotLostToAReset(t *testing.T) {
	client, near := tcp(t)
	server, upstream := tcp(t)
	s := &Session{Client: near, Upstream: upstream, Assemblies: NewAssemblies(nil)}
	done := make(chan error, 1)
	go func() { _, err := s.Run(t.Context()); done <- err }()
	go func() { // a server that answers a close by closing
		_, _ = io.ReadFull(server, make([]byte, len(masked(closing, closes(CodeGoingAway, "")))))
		server.Close()
	}()
	_, err := client.Write(join(masked(bin, "secret"), make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(client) // ours ends with its close frame
	if frames, rest := slowRead(got, false); err != nil || len(rest) > 0 || len(frames) != 1 || frames[0].payload != closes(CodePolicy, errOpaque.(*CloseError).Detail) {
		t.Errorf("%v, %v", frames, err)
	}
	client.Close()
	if err := <-done; !errors.Is(err, errOpaque) {
		t.Error(err)
	}
}

// A server that answers, closes and goes away while the client still talks: the answer
// arrives.
func TestWhatTheServerSaidLastArrives(t *testing.T) {
	client, near := tcp(t)
	server, upstream := tcp(t)
	s := &Session{Client: near, Upstream: upstream, Binary: true}
	done := make(chan error, 1)
	go func() { _, err := s.Run(t.Context()); done <- err }()
	go func() {
		for {
			if _, err := client.Write(masked(bin, strings.Repeat("x", 1000))); err != nil {
				return
			}
		}
	}()
	if _, err := io.ReadFull(server, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_, _ = server.Write(join(plain(text, "too much"), plain(closing, closes(1009, ""))))
	_ = server.CloseWrite()
	got, _ := io.ReadAll(io.LimitReader(client, int64(len(plain(text, "too much"))+4)))
	server.Close() // with unread bytes: a reset
	if frames, _ := slowRead(got, false); !slices.Equal(frames, []frame{{text, "too much"}, {closing, closes(1009, "")}}) {
		t.Errorf("%v", frames)
	}
	client.Close()
	<-done
}

func TestRunLeavesNoGoroutineAndClosesBothStreams(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		client, near := tcp(t)
		server, upstream := tcp(t)
		s := &Session{Client: near, Upstream: upstream, Judge: allow, Idle: time.Hour}
		done := make(chan struct{})
		go func() { defer close(done); _, _ = s.Run(ctx) }()
		switch i % 3 {
		case 0:
			_ = client.SetLinger(0)
			client.Close()
			server.Close()
		case 1:
			_ = server.SetLinger(0)
			server.Close()
			_, _ = io.Copy(io.Discard, client)
			client.Close()
		default:
			cancel()
			_, _ = io.Copy(io.Discard, client)
			client.Close()
			server.Close()
		}
		<-done
		cancel()
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the client's stream: %v", err)
		}
		if _, err := upstream.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the server's stream: %v", err)
		}
	}
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
