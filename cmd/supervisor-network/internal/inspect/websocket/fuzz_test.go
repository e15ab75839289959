package websocket

import (
	"bytes"
	"compress/flate"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// tape is a stream whose peer says what is on it, in pieces, and then ends: at once, or
// when the gate opens.
type tape struct {
	in   []byte
	step int
	ends bool // its end opens the gate
	gate *gate
	out  bytes.Buffer
}

// gate opens when one side has ended, or is not waited for any longer.
type gate struct {
	once sync.Once
	open chan struct{}
}

func (g *gate) pass() { g.once.Do(func() { close(g.open) }) }

func (s *tape) Read(p []byte) (int, error) {
	if len(s.in) > 0 {
		n := copy(p[:min(len(p), s.step)], s.in)
		s.in = s.in[n:]
		return n, nil
	}
	if s.ends {
		s.gate.pass()
	}
	<-s.gate.open
	return 0, io.EOF
}

func (s *tape) SetReadDeadline(t time.Time) error {
	if !s.ends && !t.IsZero() {
		s.gate.pass()
	}
	return nil
}

func (s *tape) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *tape) SetWriteDeadline(time.Time) error { return nil }
func (s *tape) Close() error                     { return nil }

// tapes make a session in which one side says in, in pieces of step bytes, and the other
// one only listens.
func tapes(in []byte, step byte) (talks, listens *tape) {
	g := &gate{open: make(chan struct{})}
	return &tape{in: bytes.Clone(in), step: int(step) + 1, ends: true, gate: g}, &tape{gate: g}
}

var seeds = func() [][]byte {
	var out [][]byte
	for _, c := range refused {
		out = append(out, c.in)
	}
	for _, c := range passing {
		out = append(out, c.in)
	}
	d := deflated("a forbidden word, and more of it")
	out = append(out, masked(compressed, d), join(masked(textBegin|bitDeflate, d[:5]), masked(ping, "p"), masked(last, d[5:])),
		join(masked(textBegin, "forb"), masked(last, "idden"), masked(text, "fine")))
	return slices.DeleteFunc(out, func(b []byte) bool { return len(b) > 4096 })
}()

// FuzzClient: whatever a client says, in whatever pieces, the server gets well-formed
// frames with text messages that were judged and allowed, in their order and no other,
// and the client gets at most one close frame.
func FuzzClient(f *testing.F) {
	for i, s := range seeds {
		f.Add(s, byte(i), i%2 == 0, i%3 != 0)
	}
	if len(seeds) < 40 {
		f.Fatalf("only %d seeds", len(seeds))
	}
	f.Fuzz(func(t *testing.T, in []byte, step byte, deflate, binary bool) {
		var allowed []string
		s := &Session{Deflate: deflate, Binary: binary, Assemblies: NewAssemblies(nil), Judge: func(_ context.Context, b []byte) ([]byte, error) {
			if !utf8.Valid(b) || len(b) > MaxText {
				t.Errorf("judged %d bytes that are no text message", len(b))
			}
			switch {
			case strings.Contains(string(b), "forbidden"):
				return nil, errOpaque
			case strings.Contains(string(b), "fine"):
				allowed = append(allowed, "replaced")
				return []byte("replaced"), nil
			}
			allowed = append(allowed, string(b))
			return nil, nil
		}}
		down, up := tapes(in, step)
		s.Client, s.Upstream = down, up
		stats, _ := s.Run(t.Context())

		frames, rest := slowRead(up.out.Bytes(), true)
		checkUp(t, frames, rest, allowed, binary)
		got, rest := slowRead(down.out.Bytes(), false)
		if len(rest) > 0 || len(got) > 1 || len(got) == 1 && got[0].first != closing {
			t.Errorf("the client got %v and %x", got, rest)
		}
		if stats.Up.Bytes != int64(up.out.Len()) && len(got) == 0 {
			t.Errorf("%d bytes are counted, %d were sent", stats.Up.Bytes, up.out.Len())
		}
		if want := slowTexts(in, deflate, binary); !slices.Equal(allowed, want) {
			t.Errorf("allowed were %q, a slow reader finds %q", allowed, want)
		}
	})
}

// slowTexts reads the whole of in frame by frame, and returns what is sent for its text
// messages up to the first refusal.
func slowTexts(in []byte, deflate, binary bool) (out []string) {
	frames, _ := slowRead(in, true)
	kind, squeezed, body := byte(0), false, ""
	for _, f := range frames {
		op, fin, rsv := f.first&0xf, f.first&bitFin != 0, f.first>>4&7
		if op >= 8 {
			if op > 10 || !fin || rsv != 0 || len(f.payload) > 125 || op == 8 {
				return out
			}
			continue
		}
		switch {
		case rsv&3 != 0, rsv&4 != 0 && (!deflate || op == 0), op > 2, (op == 0) != (kind != 0):
			return out
		case op != 0:
			kind, squeezed, body = op, rsv != 0, ""
		}
		if kind == 2 && !binary {
			return out
		}
		body += f.payload
		if !fin {
			continue
		}
		ok := true
		if kind == 1 && squeezed {
			body, ok = slowInflate(body)
		}
		if kind == 1 {
			switch {
			case !ok || !utf8.ValidString(body) || strings.Contains(body, "forbidden"):
				return out
			case strings.Contains(body, "fine"):
				body = "replaced"
			}
			out = append(out, body)
		}
		kind = 0
	}
	return out
}

func slowInflate(body string) (string, bool) {
	in := strings.NewReader(body + deflateTail)
	b, err := io.ReadAll(io.LimitReader(flate.NewReader(in), MaxText+1))
	left := in.Len()
	onlyZero := left == 1+len(deflateTail) && body[len(body)-1] == 0
	return string(b), err == nil && len(b) <= MaxText && (left <= len(deflateTail)-4 || onlyZero)
}

func checkUp(t *testing.T, frames []frame, rest []byte, allowed []string, binary bool) {
	t.Helper()
	var texts []string
	open := false
	for i, f := range frames {
		switch f.first {
		case text:
			texts = append(texts, f.payload)
			if open {
				t.Error("a text inside a binary message")
			}
		case ping, pong:
		case closing:
			if i != len(frames)-1 || len(rest) > 0 {
				t.Error("something follows a close frame")
			}
		case bin, binBegin, bin | bitDeflate, binBegin | bitDeflate:
			if open || !binary {
				t.Errorf("frame %#x", f.first)
			}
			open = f.first&bitFin == 0
		case more, last:
			if !open {
				t.Error("a continuation of nothing")
			}
			open = f.first == more
		default:
			t.Errorf("frame %#x", f.first)
		}
	}
	if !slices.Equal(texts, allowed) {
		t.Errorf("the server got %q, allowed were %q", texts, allowed)
	}
	// Only a binary frame may be cut.
	if len(rest) > 0 && (rest[0]&0xf == byte(opText) || rest[0]&0x8 != 0 || !binary) {
		t.Errorf("a frame is cut: %x", rest)
	}
}

// FuzzServer: whatever a server says, in whatever pieces, the client gets a prefix of
// it, then at most one close frame of ours; all of it when it is well formed.
func FuzzServer(f *testing.F) {
	for i, in := range seeds {
		frames, _ := slowRead(in, true)
		var b []byte
		for _, fr := range frames {
			b = append(b, plain(fr.first, fr.payload)...)
		}
		f.Add(b, byte(i), i%2 == 0)
		f.Add(in, byte(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, in []byte, step byte, deflate bool) {
		server, client := tapes(in, step)
		s := &Session{Client: client, Upstream: server, Deflate: deflate}
		_, err := s.Run(t.Context())
		out := client.out.Bytes()
		frames, rest := slowRead(out, false)
		if bytes.HasPrefix(in, out) {
			return
		}
		if err == nil || len(frames) == 0 || frames[len(frames)-1].first != closing || len(rest) > 0 {
			t.Fatalf("%v: the client got %x of %x", err, out, in)
		}
		n := len(plain(closing, frames[len(frames)-1].payload))
		if !bytes.HasPrefix(in, out[:len(out)-n]) {
			t.Fatalf("the client got %x of %x", out, in)
		}
	})
}

// FuzzHeader: headers are read as a library reads them, but for those it is lenient
// with, and are written back as they were.
func FuzzHeader(f *testing.F) {
	for _, s := range seeds {
		f.Add(s[:min(len(s), maxHeader)])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		want, wantErr := ws.ReadHeader(bytes.NewReader(in))
		if len(in) < 2 || len(in) < headerSize(in[0], in[1]) {
			if wantErr == nil {
				t.Fatalf("%x is a whole header to the library", in)
			}
			return
		}
		h, err := parseHeader(in)
		if wantErr != nil {
			if err == nil {
				t.Fatalf("%x: the library says %v", in, wantErr)
			}
			return
		}
		if err != nil {
			return
		}
		if h.length != want.Length || h.masked != want.Masked || h.mask != want.Mask || h.fin != want.Fin || byte(h.op) != byte(want.OpCode) || h.deflate != want.Rsv1() {
			t.Fatalf("%x is %+v, the library says %+v", in, h, want)
		}
		if h.length > 1<<40 {
			return
		}
		var mask *[4]byte
		if h.masked {
			mask = &h.mask
		}
		b := make([]byte, maxHeader)
		if again := b[putHeader(b, in[0], int(h.length), mask):]; !bytes.Equal(again, in[:h.size]) {
			t.Fatalf("%x is written back as %x", in[:h.size], again)
		}
	})
}

// FuzzUnmask: masks go on and off as one byte after the other, from any offset.
func FuzzUnmask(f *testing.F) {
	f.Add([]byte("some text that is longer than one block"), uint32(0x1234), uint32(99), 3)
	f.Add([]byte{}, uint32(0), uint32(1), 0)
	f.Fuzz(func(t *testing.T, in []byte, a, b uint32, offset int) {
		if offset < 0 {
			return
		}
		from := [4]byte{byte(a), byte(a >> 8), byte(a >> 16), byte(a >> 24)}
		to := [4]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)}
		want := bytes.Clone(in)
		for i := range want {
			want[i] ^= from[(offset+i)&3] ^ to[(offset+i)&3]
		}
		got := bytes.Clone(in)
		cipher(got, both(from, to), offset)
		if !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
	})
}
