package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
)

// TestHTTP2IsOfferedWhileThereIsMemoryForIt: who speaks something older, too, is served
// in that, and others are refused with a reason.
func TestHTTP2IsOfferedWhileThereIsMemoryForIt(t *testing.T) {
	w := newWorld(t, 5*time.Second, endpoint("a.example.com", 443, ""))
	w.Windows = &http2.Windows{Limit: 1<<16 - 1} // of one connection
	w.origin("a.example.com", 443, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "http/1.1")
	older := w.secure("a.example.com", "http/1.1")
	w.until("it takes none", func() bool { return w.Windows.Held() == 0 })
	first := w.secure("a.example.com", "h2", "http/1.1")
	second := w.secure("a.example.com", "h2", "http/1.1")
	if a, b := first.ConnectionState().NegotiatedProtocol, second.ConnectionState().NegotiatedProtocol; a != "h2" || b != "http/1.1" {
		t.Errorf("the first one speaks %s, one too many %s", a, b)
	}
	for _, c := range []net.Conn{older, second} {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
		if resp, _ := answer(t, bufio.NewReader(c), "GET"); resp.StatusCode != 200 {
			t.Errorf("it is answered with %s", resp.Status)
		}
	}
	third := tls.Client(w.tunnel("a.example.com", 443), &tls.Config{RootCAs: w.roots, ServerName: "a.example.com", NextProtos: []string{"h2"}})
	if third.Handshake() == nil {
		t.Error("one too many speaks HTTP/2")
	}
	w.until("a record that says why", func() bool {
		return strings.Contains(fmt.Sprint(w.records.list()), `"reason":"too_many_connections"`)
	})
	first.Close()
	w.until("it is given back", func() bool { return w.Windows.Held() == 0 })
	if got := w.secure("a.example.com", "h2", "http/1.1").ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("behind it one speaks %s", got)
	}
}

// TestAConnectionWithoutRoomForItsFieldsIsOnRecord, although none of its streams was a
// request.
func TestAConnectionWithoutRoomForItsFieldsIsOnRecord(t *testing.T) {
	const host = "a.example.com"
	w := newWorld(t, generous, endpoint(host, 443, ""))
	w.Windows = &http2.Windows{Limit: 1<<16 - 1} // of one connection, with room for half a frame
	w.origin(host, 443, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "http/1.1")
	c := w.streams(host)
	c.ok(c.fr.WriteRawFrame(frames.FrameHeaders, frames.FlagHeadersEndHeaders, 1, make([]byte, 16<<10)))
	w.until("a record that says why", func() bool {
		return strings.Contains(fmt.Sprint(w.records.list()), "no memory for one more large section")
	})
}
