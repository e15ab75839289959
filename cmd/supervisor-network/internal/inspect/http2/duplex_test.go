package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestExtendedConnectIsOffered: package xconnect comes before the library.
func TestExtendedConnectIsOffered(t *testing.T) {
	r := dial(t, serve(t, Options{}, hello))
	_, err := io.WriteString(r.conn, http2.ClientPreface)
	r.ok(err)
	r.ok(r.fr.WriteSettings())
	f, err := r.fr.ReadFrame()
	r.ok(err)
	settings, ok := f.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the first frame is %v", f)
	}
	if v, ok := settings.Value(http2.SettingEnableConnectProtocol); !ok || v != 1 {
		t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d, %t", v, ok)
	}
}

// accepted serves every stream as an extended CONNECT that is accepted.
func accepted(t *testing.T, o Options, use func(*Duplex)) *raw {
	f := serve(t, o, func(ctx context.Context, s *Stream) {
		d, err := s.Accept(http.Header{"X-More": {"1"}, "Content-Length": {"3"}, "Alt-Svc": {"h3"}})
		if err != nil {
			if ctx.Err() == nil { // a test may end as soon as it has read the answer
				t.Error(err)
			}
			return
		}
		use(d)
	})
	return dial(t, f).hello()
}

// open begins a stream that the server accepts.
func (r *raw) open(stream uint32, more ...string) {
	r.t.Helper()
	r.headers(stream, false, connect("websocket", more...))
	for {
		f, err := r.fr.ReadFrame()
		r.ok(err)
		if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamID == stream {
			if h.PseudoValue("status") != "200" || h.StreamEnded() {
				r.t.Fatalf("answered with %v", h)
			}
			return
		}
	}
}

// data reads the next n bytes of the stream.
func (r *raw) data(stream uint32, n int) string {
	r.t.Helper()
	out := ""
	for len(out) < n {
		f, err := r.fr.ReadFrame()
		r.ok(err)
		if d, ok := f.(*http2.DataFrame); ok && d.StreamID == stream {
			out += string(d.Data())
		}
		if reset, ok := f.(*http2.RSTStreamFrame); ok && reset.StreamID == stream {
			r.t.Fatalf("reset with %v behind %q", reset.ErrCode, out)
		}
	}
	return out
}

func echo(d *Duplex) { _, _ = io.Copy(d, d) }

func TestAnAcceptedStreamCarriesBytesBothWays(t *testing.T) {
	r := accepted(t, Options{}, echo)
	r.open(1)
	for _, text := range []string{"one", "two"} {
		r.ok(r.fr.WriteData(1, false, []byte(text)))
		if got := r.data(1, len(text)); got != text {
			t.Fatalf("%q came back as %q", text, got)
		}
	}
	r.ok(r.fr.WriteDataPadded(1, false, []byte("padded"), make([]byte, 100)))
	if got := r.data(1, 6); got != "padded" {
		t.Fatalf("padding comes back: %q", got)
	}
	r.ok(r.fr.WriteData(1, true, []byte("last")))
	if a := r.answer(1); a.body != "last" || a.reset != 0 {
		t.Errorf("the end is answered with %+v", a)
	}
}

func TestTrailersEndAnAcceptedStream(t *testing.T) {
	r := accepted(t, Options{}, echo)
	r.open(1, "trailer", "x-late")
	r.headers(1, true, fields("x-late", "1"))
	if a := r.answer(1); a.reset != 0 || a.closed {
		t.Errorf("answered with %+v", a)
	}
}

// TestAcceptingSaysNothingOfOneConnection: what is meant for one hop, or would bound
// the stream, is not in the answer.
func TestAcceptingSaysNothingOfOneConnection(t *testing.T) {
	r := accepted(t, Options{}, echo)
	r.headers(1, false, connect("websocket"))
	r.ok(r.fr.WriteData(1, true, nil))
	a := r.answer(1)
	if a.status != "200" || len(a.fields) != 1 || a.fields["x-more"] != "1" {
		t.Errorf("answered with %+v", a)
	}
}

// TestAReaderThatWaitsHoldsUpItsClient: the window of a stream is opened by reading.
func TestAReaderThatWaitsHoldsUpItsClient(t *testing.T) {
	read, total := make(chan struct{}), make(chan int64, 1)
	r := accepted(t, Options{}, func(d *Duplex) {
		held(t, read)
		n, _ := io.Copy(io.Discard, d)
		total <- n
	})
	r.open(1)
	piece := make([]byte, maxFrame)
	for range streamWindow / maxFrame {
		r.ok(r.fr.WriteData(1, false, piece))
	}
	pinged := [8]byte{1}
	r.ok(r.fr.WritePing(false, pinged))
	for {
		f, err := r.fr.ReadFrame()
		r.ok(err)
		if w, ok := f.(*http2.WindowUpdateFrame); ok && w.StreamID == 1 {
			t.Fatal("the window opens while nobody reads")
		}
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
			break
		}
	}
	close(read)
	r.ok(r.fr.WriteData(1, true, nil))
	if n := next(t, total); n != streamWindow {
		t.Errorf("%d bytes arrived", n)
	}
}

func TestMoreThanTheWindowResetsTheStream(t *testing.T) {
	read := make(chan struct{})
	r := accepted(t, Options{}, func(*Duplex) { held(t, read) })
	defer close(read)
	r.open(1)
	for range streamWindow / maxFrame {
		r.ok(r.fr.WriteData(1, false, make([]byte, maxFrame)))
	}
	r.ok(r.fr.WriteData(1, false, []byte("x")))
	if a := r.answer(1); a.reset != http2.ErrCodeFlowControl {
		t.Errorf("answered with %+v", a)
	}
}

// TestDeadlinesOfAnAcceptedStream: they end what waits, and nothing else.
func TestDeadlinesOfAnAcceptedStream(t *testing.T) {
	past := time.Now().Add(-time.Second)
	for rule, c := range map[string]struct {
		use  func(*Duplex) error
		want error
	}{
		"a read that waits ends": {func(d *Duplex) error {
			_ = d.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := d.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		"a read behind the deadline reads nothing": {func(d *Duplex) error {
			_ = d.SetDeadline(past)
			_, err := d.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		"a write behind the deadline writes nothing": {func(d *Duplex) error {
			_ = d.SetWriteDeadline(past)
			_, err := d.Write([]byte("x"))
			return err
		}, os.ErrDeadlineExceeded},
		"a write that waits for the window ends": {func(d *Duplex) error {
			_ = d.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := d.Write(make([]byte, 1<<20))
			return err
		}, os.ErrDeadlineExceeded},
		"a deadline to write that nobody waited for is over": {func(d *Duplex) error {
			_ = d.SetWriteDeadline(past)
			_ = d.SetWriteDeadline(time.Time{})
			_, err := d.Write([]byte("x"))
			return err
		}, nil},
		"a client that does not end is at its end behind ours": {func(d *Duplex) error {
			_ = d.CloseWrite()
			_ = d.SetReadDeadline(time.Now().Add(time.Hour))
			_, err := d.Read(make([]byte, 1))
			return err
		}, io.EOF},
		"nothing is written behind the end": {func(d *Duplex) error {
			_ = d.CloseWrite()
			_, err := d.Write([]byte("x"))
			return err
		}, net.ErrClosed},
		"nothing is read when it is closed": {func(d *Duplex) error {
			_ = d.Close()
			_, err := d.Read(make([]byte, 1))
			return err
		}, net.ErrClosed},
	} {
		t.Run(rule, func(t *testing.T) {
			got := make(chan error, 1)
			r := accepted(t, Options{}, func(d *Duplex) { got <- c.use(d) })
			r.open(1)
			if err := next(t, got); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			r.answer(1)
			r.headers(3, false, connect("websocket")) // the connection serves on
			if a := r.answer(3); a.status != "200" {
				t.Errorf("the next stream: %+v", a)
			}
		})
	}
}

// TestAnOldDeadlineToWriteResetsNothing: a WebSocket sets one for each write and takes
// none away.
func TestAnOldDeadlineToWriteResetsNothing(t *testing.T) {
	r := accepted(t, Options{}, func(d *Duplex) {
		fired := make(chan struct{})
		_ = d.SetWriteDeadline(time.Now().Add(time.Millisecond))
		time.AfterFunc(5*time.Millisecond, func() { close(fired) })
		<-fired
		_ = d.SetWriteDeadline(time.Now().Add(time.Minute))
		_, _ = d.Write([]byte("later"))
	})
	r.open(1)
	if a := r.answer(1); a.body != "later" || a.reset != http2.ErrCodeNo && a.reset != 0 {
		t.Errorf("answered with %+v", a)
	}
}

// TestDeadlinesBehindTheHandlerTouchNothing: timers may still be about to set them.
func TestDeadlinesBehindTheHandlerTouchNothing(t *testing.T) {
	left := make(chan *Duplex, 1)
	r := accepted(t, Options{}, func(d *Duplex) { left <- d })
	r.open(1)
	r.answer(1)
	d := next(t, left)
	if err := d.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a deadline behind the handler: %v", err)
	}
	if err := d.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("an end behind the handler: %v", err)
	}
}

// TestAResetEndsReadingAndWriting, of the stream alone.
func TestAResetEndsReadingAndWriting(t *testing.T) {
	reads, writes := make(chan error, 1), make(chan error, 1)
	r := accepted(t, Options{}, func(d *Duplex) {
		var reading sync.WaitGroup
		defer reading.Wait() // before the handler returns
		reading.Go(func() {
			_, err := d.Read(make([]byte, 1))
			reads <- err
		})
		_, err := d.Write(make([]byte, 1<<20)) // more than the window
		writes <- err
	})
	r.open(1)
	r.data(1, 1)
	r.ok(r.fr.WriteRSTStream(1, http2.ErrCodeCancel))
	if read, write := next(t, reads), next(t, writes); read == nil || errors.Is(read, io.EOF) || write == nil {
		t.Errorf("read %v, written %v", read, write)
	}
	r.open(3)
}

// TestACONNECTIsRefusedWithoutSuccess: a status of 2xx would open what was refused.
func TestACONNECTIsRefusedWithoutSuccess(t *testing.T) {
	for name, handle := range map[string]Handler{
		"denied": func(_ context.Context, s *Stream) {
			_ = s.Deny(403, core.ReasonPolicyDenied, "no", "id", http1.ErrorBody{Error: core.ReasonPolicyDenied})
		},
		"answered with success": func(ctx context.Context, s *Stream) {
			if err := s.Respond(ctx, response("<html>")); !errors.Is(err, ErrStatus) {
				t.Errorf("success is passed on: %v", err)
			}
			_ = s.Deny(502, core.ReasonUpstreamInvalid, "no", "id", http1.ErrorBody{Error: core.ReasonUpstreamInvalid})
		},
		"answered with a redirect": func(ctx context.Context, s *Stream) {
			resp := response("elsewhere", "Location", "/x")
			resp.StatusCode = 302
			if err := s.Respond(ctx, resp); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := dial(t, serve(t, Options{}, handle)).hello()
			r.headers(1, false, connect("websocket", "content-type", "application/grpc"))
			if a := r.answer(1); a.status == "" || strings.HasPrefix(a.status, "2") {
				t.Errorf("answered with %+v", a)
			}
			r.headers(3, true, append(fields(":method", "CONNECT", ":authority", host+":443"), fields("content-type", "application/grpc")...))
			if a := r.answer(3); a.status != "403" {
				t.Errorf("a plain CONNECT is answered with %+v", a)
			}
		})
	}
}

// TestTheStreamOfAWebSocketHasNoLength, which would bound what can be said on it, and is
// opened by CONNECT alone.
func TestTheStreamOfAWebSocketHasNoLength(t *testing.T) {
	for _, list := range [][]field{connect("websocket", "content-length", "5"), instead(connect("websocket"), ":method", "GET")} {
		r := accepted(t, Options{}, func(*Duplex) { t.Errorf("%v is accepted", list) })
		r.headers(1, false, list)
		if a := r.answer(1); a.status != "400" {
			t.Errorf("%v is answered with %+v", list, a)
		}
	}
}

// TestOnlyAnExtendedConnectIsAccepted, and only once.
func TestOnlyAnExtendedConnectIsAccepted(t *testing.T) {
	again := make(chan error, 2)
	r := dial(t, serve(t, Options{}, func(ctx context.Context, s *Stream) {
		if _, err := s.Accept(nil); s.Protocol == "" {
			again <- err
			hello(ctx, s)
			return
		}
		_, err := s.Accept(nil)
		again <- err
	})).hello()
	r.alive(1)
	r.open(3)
	for range 2 {
		if next(t, again) == nil {
			t.Error("a stream is accepted that cannot be")
		}
	}
}
