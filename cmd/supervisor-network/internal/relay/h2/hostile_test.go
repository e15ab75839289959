package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is one connection of an origin that says what a test wants.
type frames struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	buf  bytes.Buffer
	enc  *hpack.Encoder
}

// scripted is such an origin; script is called for each of its connections, once the
// settings are said, and ends it by returning.
func scripted(t testing.TB, script func(*frames)) string {
	t.Helper()
	return unsettled(t, func(f *frames) {
		_ = f.WriteSettings()
		script(f)
	})
}

// unsettled is one whose script has to say the settings, too.
func unsettled(t testing.TB, script func(*frames)) string {
	t.Helper()
	l := secured(listen(t), "h2")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				f := &frames{Framer: http2.NewFramer(c, c), t: t, conn: c}
				f.enc = hpack.NewEncoder(&f.buf)
				f.AllowIllegalWrites, f.ReadMetaHeaders = true, hpack.NewDecoder(4096, nil)
				script(f)
				_, _ = io.Copy(io.Discard, c) // until the client has read what was written
			}()
		}
	}()
	return l.Addr().String()
}

// head reads up to the head of the next request.
func (f *frames) head() (stream uint32) {
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return 0
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			return fr.StreamID
		}
	}
}

// arrivals are the requests that begin, as they do. Whoever asks for them reads nothing else.
func (f *frames) arrivals() <-chan uint32 {
	streams := make(chan uint32, 1000)
	go func() {
		defer close(streams)
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if head, ok := fr.(*http2.MetaHeadersFrame); ok {
				streams <- head.StreamID
			}
		}
	}()
	return streams
}

// limit says how many streams the origin takes at a time.
func (f *frames) limit(n uint32) {
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
}

// fields writes a header or trailer section; more are names and values.
func (f *frames) fields(stream uint32, end bool, more ...string) {
	f.buf.Reset()
	for i := 0; i < len(more); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: more[i], Value: more[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: end})
}

// flood begins a section and adds to it until nobody takes it, or until it has 100 MiB.
func (f *frames) flood(stream uint32, first ...string) (sent int) {
	f.buf.Reset()
	for i := 0; i < len(first); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: first[i], Value: first[i+1]})
	}
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.buf.Bytes(), EndStream: len(first) == 0})
	f.buf.Reset()
	_ = f.enc.WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("~", 10000), Sensitive: true})
	for piece := f.buf.Bytes(); err == nil && sent < 100<<20; sent += len(piece) {
		err = f.WriteContinuation(stream, false, piece)
	}
	return sent
}

// TestAnOriginThatGoesAwayFinishesWhatItTook: an upload that is under way arrives whole,
// one that came too late has another connection.
func TestAnOriginThatGoesAwayFinishesWhatItTook(t *testing.T) {
	began, arrived := make(chan bool), make(chan string, 1)
	first := make(chan bool, 1)
	first <- true
	addr := scripted(t, func(f *frames) {
		select {
		case <-first:
		default:
			f.fields(f.head(), true, ":status", "200")
			return
		}
		took := f.head()
		began <- true
		var body []byte
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch fr := fr.(type) {
			case *http2.MetaHeadersFrame:
				_ = f.WriteGoAway(took, http2.ErrCodeNo, nil)
			case *http2.DataFrame:
				if fr.StreamID != took {
					continue
				}
				if body = append(body, fr.Data()...); fr.StreamEnded() {
					arrived <- string(body)
					f.fields(took, true, ":status", "201")
					return
				}
			}
		}
	})
	p, dialled := pool(t, addr, Config{})
	right := permit(t, host, 1)
	body, upload := io.Pipe()
	answered := make(chan int)
	go func() {
		resp, err := p.RoundTrip(t.Context(), right, request(t, "POST", body))
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	_, _ = io.WriteString(upload, "begun, ")
	<-began
	resp, err := p.RoundTrip(t.Context(), right, request(t, "POST", strings.NewReader("too late")))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	_, _ = io.WriteString(upload, "and finished")
	upload.Close()
	if status, got := <-answered, <-arrived; status != 201 || got != "begun, and finished" {
		t.Errorf("%d, %q arrived", status, got)
	}
	if n := dialled.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestAnEarlyAnswerEndsTheUpload: a reset without an error behind a whole answer says
// that nobody wants the rest (RFC 9113 section 8.1). The answer stands.
func TestAnEarlyAnswerEndsTheUpload(t *testing.T) {
	addr := scripted(t, func(f *frames) {
		s := f.head()
		f.fields(s, false, ":status", "413")
		_ = f.WriteData(s, true, []byte("too large"))
		_ = f.WriteRSTStream(s, http2.ErrCodeNo)
	})
	p, _ := pool(t, addr, Config{})
	body, upload := io.Pipe()
	resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "POST", body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(text) != "too large" || err != nil {
		t.Errorf("%s %q, %v", resp.Status, text, err)
	}
	for err = nil; err == nil; {
		_, err = upload.Write(make([]byte, 1024))
	}
	if err != io.ErrClosedPipe {
		t.Errorf("the upload goes on: %v", err)
	}
}

// TestInterimResponsesAreBounded: they say nothing that reaches a client.
func TestInterimResponsesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		n      int
		fields []string
		passes bool
	}{
		"a hundred, short":  {100, nil, true},
		"a thousand, short": {1000, nil, false},
		"twenty, long":      {20, []string{"link", strings.Repeat("x", 1000)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := pool(t, scripted(t, func(f *frames) {
				s := f.head()
				for range c.n {
					f.fields(s, false, append([]string{":status", "103"}, c.fields...)...)
				}
				f.fields(s, true, ":status", "200")
			}), Config{})
			resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil))
			if (err == nil) != c.passes {
				t.Fatal(err)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
}

// TestFieldsWithoutEndAreNotTaken: neither in front of an answer nor behind it.
func TestFieldsWithoutEndAreNotTaken(t *testing.T) {
	for name, begin := range map[string][]string{"in the head": {":status", "200"}, "in the trailers": nil} {
		t.Run(name, func(t *testing.T) {
			taken := make(chan int, 1)
			p, _ := pool(t, scripted(t, func(f *frames) {
				s := f.head()
				if begin == nil {
					f.fields(s, false, ":status", "200")
					_ = f.WriteData(s, false, []byte("body"))
				}
				taken <- f.flood(s, begin...)
			}), Config{})
			resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil))
			if begin != nil && err == nil {
				t.Error("a head without end is an answer")
			}
			if err == nil {
				if _, err = io.ReadAll(resp.Body); err == nil {
					t.Error("an answer with trailers without end is whole")
				}
				resp.Body.Close()
			}
			if n := <-taken; n > 16<<20 { // what the kernel takes before it knows
				t.Errorf("%d bytes of fields were taken", n)
			}
		})
	}
}

// TestTrailersAreNoFieldsOfTheMessage: what frames a message or belongs to one hop does
// not come behind it (RFC 9110 section 6.5.1).
func TestTrailersAreNoFieldsOfTheMessage(t *testing.T) {
	addr := scripted(t, func(f *frames) {
		s := f.head()
		f.fields(s, false, ":status", "200")
		_ = f.WriteData(s, false, []byte("body"))
		f.fields(s, true, "x-fine", "1", "content-length", "999", "transfer-encoding", "chunked", "connection", "x-fine", "host", "other.test",
			"keep-alive", "1", "upgrade", "h2c", "proxy-authenticate", "Basic", "alt-svc", `h3=":443"`, "te", "trailers", "trailer", "x-fine")
	})
	p, _ := pool(t, addr, Config{})
	front := tunnel(t, p, nil)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots(), NextProtos: []string{"h2"}}}
		return d.DialContext(ctx, "tcp", front)
	}}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "body" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if diff := cmp.Diff([]string{"X-Fine"}, slices.Sorted(maps.Keys(resp.Trailer))); diff != "" {
		t.Error(diff)
	}
}
