package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestEveryRefusalIsOurs: what the library would answer in words of its own, or without
// any, is refused with a request id that somebody was told; its connection goes on, and its
// client's compression with it.
func TestEveryRefusalIsOurs(t *testing.T) {
	var long []string
	for i := range 100 {
		long = append(long, fmt.Sprint("x-", i), strings.Repeat("v", 500))
	}
	post := func(more ...string) []field { return append(instead(get(), ":method", "POST"), fields(more...)...) }
	for _, c := range []struct {
		rule   string
		send   []field
		method string
		want   string
	}{
		{"Connection", post("connection", "x-secret"), "POST", "400 bad_request"},
		{"Proxy-Connection", get("proxy-connection", "keep-alive"), "GET", "400 bad_request"},
		{"Keep-Alive", get("keep-alive", "1"), "GET", "400 bad_request"},
		{"Transfer-Encoding", post("transfer-encoding", "chunked"), "POST", "400 bad_request"},
		{"Upgrade", get("upgrade", "h2c"), "GET", "400 bad_request"},
		{"TE that lists more", get("te", "trailers, deflate"), "GET", "400 bad_request"},
		{"two TE", get("te", "trailers", "te", "trailers"), "GET", "400 bad_request"},
		{"a CONNECT with an upgrade", append(instead(get(), ":method", "CONNECT"), fields(":protocol", "websocket", "upgrade", "websocket")...), "CONNECT", "400 bad_request"},
		{"a CONNECT as of HTTP/1.1", append(fields(":method", "CONNECT", ":authority", host+":443"), fields("proxy-connection", "keep-alive")...), "CONNECT", "400 bad_request"},
		{"a CONNECT with a path", instead(get(), ":method", "CONNECT"), "CONNECT", "400 bad_request"},
		{"a CONNECT without an authority", fields(":method", "CONNECT"), "CONNECT", "400 bad_request"},
		{"a name in upper case", post("X-Upper", "v"), "POST", "400 bad_request"},
		{"a name that is none", post("x y", "v"), "POST", "400 bad_request"},
		{"a control character", post("x", "a\x01"), "POST", "400 bad_request"},
		{"a control character in the type of a call", post("content-type", "application/grpc;\x01"), "POST", "400 bad_request"},
		{"a control character in the path", instead(post(), ":path", "/\x7f"), "POST", "400 bad_request"},
		{"a control character in the method", with(":method", "P\rT"), "", "400 bad_request"},
		{"no method", with(":method", ""), "", "400 bad_request"},
		{"two methods", append(fields(":method", "PUT"), get()...), "GET", "400 bad_request"},
		{"a pseudo-field of answers", append(fields(":status", "200"), post()...), "POST", "400 bad_request"},
		{"a pseudo-field behind a field", post(":path", "/other"), "POST", "400 bad_request"},
		{"another scheme", with(":scheme", "ftp"), "GET", "400 bad_request"},
		{"user information", instead(post(), ":authority", "me@"+host), "POST", "400 bad_request"},
		{"an authority that is none", instead(post(), ":authority", "a b"), "POST", "400 bad_request"},
		{"a Host field with user information, and no authority", append(instead(post(), ":authority", ""), fields("host", "me@"+host)...), "POST", "400 bad_request"},
		{"another Host field", post("host", "evil.test"), "POST", "400 bad_request"},
		{"two Host fields", post("host", host, "host", host), "POST", "400 bad_request"},
		{"a path without a slash", instead(post(), ":path", "admin"), "POST", "400 invalid_request_target"},
		{"no fields", nil, "", "400 bad_request"},
		{"a bare percent sign", with(":path", "/100%"), "GET", "400 invalid_request_target"},
		{"half an escape", with(":path", "/a%2?b"), "GET", "400 invalid_request_target"},
		{"one large field", post("x", strings.Repeat("v", 60<<10)), "POST", "431 header_too_large"},
		{"many fields", get(long...), "GET", "431 header_too_large"},
		{"a large path", with(":path", "/"+strings.Repeat("a", 60<<10)), "GET", "431 header_too_large"},
		{"names of trailers without end", get("trailer", strings.Repeat("x-sum,", 2500)), "GET", "431 header_too_large"},
		{"HTTP2-Settings", get("http2-settings", "AAMAAABkAAQAAP__"), "GET", "400 bad_request"},
		{"a TE that is empty", get("te", ""), "GET", "400 bad_request"},
		{"our own name", post(refusedName, "size DELETE"), "POST", "400 bad_request"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var told []string
			f := serve(t, Options{Refused: func(method string, status int, err error) string {
				told = append(told, fmt.Sprint(method, " ", status))
				return "id-1"
			}}, hello)
			r := dial(t, f).hello()
			r.headers(1, true, get("x-before", "indexed"))
			r.answer(1)
			r.continued(3, append(c.send, field{Name: "x-behind", Value: "indexed"}))
			a := r.answer(3)
			status, reason, _ := strings.Cut(c.want, " ")
			if a.status != status || !strings.Contains(a.body, `"error":"`+reason+`"`) || !strings.Contains(a.body, `"request_id":"id-1"`) || a.fields["x-splitpod-request-id"] != "id-1" {
				t.Errorf("answered %+v", a)
			}
			if diff := cmp.Diff([]string{c.method + " " + status}, told); diff != "" {
				t.Error(diff)
			}
			r.headers(5, true, get("x-before", "indexed", "x-behind", "indexed"))
			if a := r.answer(5); a.status != "200" {
				t.Errorf("what came behind it: %+v", a)
			}
			r.conn.Close()
			if s := next(t, f.stats); s.Streams != 3 || s.Handled != 3 {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("a call", func(t *testing.T) {
		r := dial(t, serve(t, Options{}, hello)).hello()
		r.continued(1, append(instead(get("x", strings.Repeat("v", 50<<10)), ":method", "POST"), fields("content-type", "application/grpc+proto")...))
		if a := r.answer(1); a.status != "200" || a.fields["grpc-status"] != "8" {
			t.Errorf("%+v", a)
		}
		r.alive(3)
	})
}

// TestTrailersWithoutEndEndTheirStream: none of them is left out behind the others' back.
func TestTrailersWithoutEndEndTheirStream(t *testing.T) {
	r := dial(t, serve(t, Options{}, func(ctx context.Context, s *Stream) {
		if _, err := io.Copy(io.Discard, s.Body); err == nil {
			hello(ctx, s)
		}
	})).hello()
	r.headers(1, false, instead(get("trailer", "x-sum"), ":method", "POST"))
	r.continued(1, fields("x-sum", strings.Repeat("v", MaxHeaderList)))
	if a := r.answer(1); a.reset != http2.ErrCodeProtocol {
		t.Errorf("%+v", a)
	}
	r.alive(3)
}

// section is one as a client could send it, in pieces, padded, with a priority.
func section(enc *hpack.Encoder, buf *bytes.Buffer, out *http2.Framer, stream uint32, end bool, pieces int, pad uint8, weight uint8, list []field) {
	buf.Reset()
	for _, f := range list {
		_ = enc.WriteField(f)
	}
	block := bytes.Clone(buf.Bytes())
	size := max(len(block)/max(pieces, 1), 1)
	piece := block[:min(size, len(block))]
	_ = out.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: piece, EndStream: end, EndHeaders: len(piece) == len(block), PadLength: pad, Priority: http2.PriorityParam{Weight: weight}})
	for block = block[len(piece):]; len(block) > 0; block = block[len(piece):] {
		piece = block[:min(size, len(block))]
		_ = out.WriteContinuation(stream, len(piece) == len(block), piece)
	}
}

// FuzzHeads: behind it the library reads what it would read of the client, or a refusal, or
// fails where it would; and it refuses no request by itself.
func FuzzHeads(f *testing.F) {
	var wire, buf bytes.Buffer
	out, enc := http2.NewFramer(&wire, nil), hpack.NewEncoder(&buf)
	_ = out.WriteSettings()
	for i, list := range [][]field{get(), get("x-a", "b", "cookie", "c=d"), {{Name: ":path", Value: "/x", Sensitive: true}, {Name: "x-a", Value: "b"}}, get("connection", "x-a", "x-c", "d"), get("x-c", "d", "X-Upper", "e"), with(":path", "/%"), get("trailer", strings.Repeat("x-a,", 2500))} {
		section(enc, &buf, out, uint32(2*i+1), i%2 == 0, i+1, uint8(7*i), uint8(i), list)
		_ = out.WriteData(uint32(2*i+1), false, []byte("data"))
		section(enc, &buf, out, uint32(2*i+1), true, 2, 0, 0, fields("x-a", "b", "x-trailer", "e"))
		f.Add(bytes.Clone(wire.Bytes()))
	}
	f.Add(append(bytes.Clone(wire.Bytes()), 0, 0, 1, 1, 4, 0, 0, 0, 77, 0x80)) // a bad index
	f.Add(append(bytes.Clone(wire.Bytes()), 0, 0, 1, 1, 0, 0, 0, 0, 77, 0x82, 0, 0, 0, 4, 0, 0, 0, 0, 0))
	f.Add(append(bytes.Clone(wire.Bytes()), 0, 0, 3, 1, 0x2c, 0, 0, 0, 77, 9, 0x82, 0x82))
	f.Fuzz(func(t *testing.T, sent []byte) {
		reader := func(in io.Reader) *http2.Framer {
			fr := http2.NewFramer(nil, in)
			fr.ReadMetaHeaders, fr.MaxHeaderListSize = hpack.NewDecoder(tableSize, nil), maxSection
			fr.SetMaxReadFrameSize(maxFrame)
			return fr
		}
		h := newHeads(&meter{}, nil, 0)
		h.in, h.due, h.rest = bytes.NewReader(sent), func(time.Time) error { return nil }, 0
		client, library := reader(bytes.NewReader(sent)), reader(h)
		newest := uint32(0)
		for {
			a, errA := client.ReadFrame()
			b, errB := library.ReadFrame()
			if h.newest > newest { // or what comes for it next is its trailers here, and another request there
				newest = h.newest
				if _, ended := errors.AsType[http2.StreamError](errB); ended {
					t.Fatalf("the library refuses %v by itself: %v", a, errB)
				}
			}
			if list, ok := b.(*http2.MetaHeadersFrame); ok && list.Truncated {
				t.Fatalf("the library leaves out some of %v", a)
			}
			if refused(b) {
				if list, ok := a.(*http2.MetaHeadersFrame); errA == nil && (!ok || !list.Truncated && malformed(list.Fields) == "" && !refused(a) && listed(list.Fields) <= MaxHeaderList) {
					t.Fatalf("refused %v", a)
				}
				if _, goesOn := errors.AsType[http2.StreamError](errA); errA != nil && !goesOn {
					return
				}
				continue
			}
			if (errA == nil) != (errB == nil) {
				if list, ok := a.(*http2.MetaHeadersFrame); ok && listed(list.Fields) > MaxHeaderList {
					return // trailers
				}
				t.Fatalf("%v, %v became %v, %v", a, errA, b, errB)
			}
			_, streamA := errors.AsType[http2.StreamError](errA)
			if _, streamB := errors.AsType[http2.StreamError](errB); streamA && streamB {
				continue
			}
			if errA != nil {
				return
			}
			if x, y := summary(a), summary(b); x != y {
				t.Fatalf("%s became %s", x, y)
			}
		}
	})
}

func refused(f http2.Frame) bool {
	list, ok := f.(*http2.MetaHeadersFrame)
	return ok && len(list.Fields) > 3 && list.Fields[3].Name == refusedName
}

func listed(list []field) (n int) {
	for _, f := range list {
		n += listSize(f)
	}
	return n
}

// summary is what a frame says, but for padding, which says nothing.
func summary(f http2.Frame) string {
	h := f.Header()
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return fmt.Sprint("head ", h.StreamID, f.StreamEnded(), f.HasPriority(), f.Priority, f.Fields)
	case *http2.DataFrame:
		return fmt.Sprintf("data %d %v %x", h.StreamID, f.StreamEnded(), f.Data())
	default:
		return fmt.Sprintf("%v", f)
	}
}

// TestOpenSectionsHaveOneLimit over all connections, also ones of which only the head of a
// frame has come. Where there is no room the connection ends, and says so; what is small
// needs none; and what one held is there for others when its section or connection ends.
func TestOpenSectionsHaveOneLimit(t *testing.T) {
	w := Windows{Limit: 8 * maxFrame * 3}
	f := serve(t, Options{Windows: &w}, hello)
	held := func(want int64) {
		t.Helper()
		for end := time.Now().Add(patience); w.sections.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d bytes are held, want %d", w.sections.Load(), want)
			}
		}
	}
	large := get("x", strings.Repeat("v", 28<<10)) // in its Huffman code a frame, and a part of one
	begin := func(r *raw) (rest []byte) {
		block := r.block(large)
		r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:maxFrame]}))
		return block[maxFrame:]
	}
	first := dial(t, f).hello()
	rest := begin(first)
	held(maxFrame)
	second := dial(t, f).hello()
	_, err := second.conn.Write([]byte{0, maxFrame >> 8, 0, typeHeaders, 0, 0, 0, 0, 1})
	second.ok(err)
	held(2 * maxFrame)
	first.ok(first.fr.WriteContinuation(1, false, rest[:1])) // for which there is room that doubles
	held(3 * maxFrame)
	third := dial(t, f).hello()
	begin(third)
	if away := third.ended(); away != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("one too many ends with %v", away)
	}
	if s := next(t, f.stats); !s.Crowded || s.Flooded {
		t.Errorf("%+v", s)
	}
	held(3 * maxFrame)
	fourth := dial(t, f).hello()
	fourth.ok(fourth.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fourth.block(large)[:1<<10]}))
	for range 8 { // each of them is small
		fourth.ok(fourth.fr.WriteContinuation(1, false, make([]byte, 1<<10)))
	}
	if fourth.ended(); !next(t, f.stats).Crowded {
		t.Error("many small pieces have room")
	}
	dial(t, f).hello().alive(1)
	second.conn.Close()
	held(2 * maxFrame)
	first.ok(first.fr.WriteContinuation(1, true, rest[1:]))
	if a := first.answer(1); a.status != "431" {
		t.Errorf("%+v", a)
	}
	held(0)
	first.enc.SetMaxDynamicTableSize(2048)
	first.headers(3, true, get("x-behind", "indexed"))
	first.answer(3)
	first.headers(5, true, get("x-behind", "indexed"))
	if a := first.answer(5); a.status != "200" {
		t.Errorf("behind it: %+v", a)
	}
}

// TestALargeSectionIsNotWaitedForForEver, as it keeps others out. What needs no room may take
// its time, and so may a connection behind a section that was in time.
func TestALargeSectionIsNotWaitedForForEver(t *testing.T) {
	const brief = 2 * time.Second // more than a busy machine takes for what is in time
	for name, sent := range map[string]int{"a frame": 0, "a section": maxFrame} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, Options{Head: brief, Windows: &Windows{Limit: 1 << 20}}, hello)
			r := dial(t, f).hello()
			r.continued(1, get("x", strings.Repeat("v", 40<<10)))
			r.answer(1)
			small := r.block(get("x-small", "v"))
			r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: small[:1], EndStream: true}))
			time.Sleep(brief + brief/2)
			r.ok(r.fr.WriteContinuation(3, true, small[1:]))
			if a := r.answer(3); a.status != "200" {
				t.Errorf("behind one that was in time: %+v", a)
			}
			_, err := r.conn.Write(append([]byte{0, maxFrame >> 8, 0, typeHeaders, 0, 0, 0, 0, 5}, make([]byte, sent)...))
			r.ok(err)
			if away := r.ended(); away != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("it ends with %v", away)
			}
			if s := next(t, f.stats); !s.Flooded {
				t.Errorf("%+v", s)
			}
		})
	}
}
