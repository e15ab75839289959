package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
)

// TestWhatAClientLeavesLyingIsSeen, and that it takes some of it, however little.
func TestWhatAClientLeavesLyingIsSeen(t *testing.T) {
	client, server := pair(t)
	var l lying
	begin := time.Now()
	at := func(minutes int) time.Duration { return l.at(begin.Add(time.Duration(minutes)*time.Minute), server) }
	if at(0); at(10) != 0 {
		t.Error("nothing was sent, and it is not read")
	}
	_, _ = io.WriteString(server, "short")
	settled(t, server)
	if at(20) != 0 {
		t.Error("what its kernel took is not read")
	}
	fill(t, server)
	if at(30); at(40) != 10*time.Minute {
		t.Errorf("it did not read for %v", at(40))
	}
	taken, _ := relay.Unread(server)
	for more := taken; more == taken; more, _ = relay.Unread(server) {
		if _, err := client.Read(make([]byte, 16<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if _, waits := relay.Unread(server); !waits || at(50) != 0 {
		t.Error("it read, slowly")
	}
}

// TestWhoReadsTwoKilobytesASecondIsWaitedFor, although its kernel tells of room only when
// a sixteenth of the largest buffer is free (Linux 6.16 on; tried with one that had read
// two gigabytes before).
func TestWhoReadsTwoKilobytesASecondIsWaitedFor(t *testing.T) {
	const step, rate = 32 << 20 / 16, 2 << 10
	if p := (&Path{Idle: time.Hour}); p.unreadFor() <= step/rate*time.Second {
		t.Errorf("it is seen to read after %v, and let go after %v", step/rate*time.Second, p.unreadFor())
	}
}

// fill writes until the other side has no room.
func fill(t *testing.T, c net.Conn) {
	t.Helper()
	var err error
	for full := false; err == nil || !full && errors.Is(err, os.ErrDeadlineExceeded); { // a busy machine lets it pass earlier
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = c.Write(make([]byte, 64<<10))
		_, full = relay.Unread(c.(*net.TCPConn))
	}
	if _ = c.SetWriteDeadline(time.Time{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
}

// settled waits until what was written is taken.
func settled(t *testing.T, c *net.TCPConn) {
	t.Helper()
	for end := time.Now().Add(generous); ; {
		if _, waits := relay.Unread(c); !waits {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not in time")
		}
	}
}

// TestAClientThatDoesNotReadHoldsNoOrigin, and one that does is not disturbed by it.
func TestAClientThatDoesNotReadHoldsNoOrigin(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"
	plainly := func(w *world) {
		_, _ = io.WriteString(w.tunnel("a.example.com", 80), request)
	}
	secured := func(w *world) {
		_, _ = io.WriteString(w.secure("a.example.com", "http/1.1"), request)
	}
	stream := func(w *world) {
		resp, err := w.client(true).Get("https://a.example.com/")
		if err != nil {
			w.t.Error(err)
			return
		}
		w.t.Cleanup(func() { resp.Body.Close() })
	}
	for name, tc := range map[string]struct {
		ask      func(*world)
		protocol string // of the origin
		why      string
	}{
		"plain":                            {plainly, "", errUnread.Error()},
		"TLS":                              {secured, "http/1.1", errUnread.Error()},
		"TLS, to an origin of HTTP/2":      {secured, "h2", errUnread.Error()},
		"a stream":                         {stream, "http/1.1", "the client does not take what is sent to it"},
		"a stream, to an origin of HTTP/2": {stream, "h2", "the client does not take what is sent to it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 5*time.Second, endpoint("a.example.com", 443, ""), endpoint("a.example.com", 80, ""))
			w.Idle = 3 * time.Second
			over := make(chan bool, 1)
			port := 443
			if tc.protocol == "" {
				port = 80
			}
			w.origin("a.example.com", port, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/small" {
					return
				}
				for piece := make([]byte, 64<<10); ; {
					if _, err := rw.Write(piece); err != nil {
						over <- true
						return
					}
				}
			}), strings.Fields(tc.protocol)...)
			tc.ask(w)
			w.until("the origin is let go", func() bool {
				url := map[int]string{80: "http", 443: "https"}[port] + "://a.example.com/small"
				resp, err := w.client(false).Get(url)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				return len(over) > 0
			})
			w.until("the record says why", func() bool {
				said := fmt.Sprint(w.records.list())
				return strings.Contains(said, tc.why) && strings.Contains(said, `"reason":"idle"`)
			})
		})
	}
}

// TestUnreadAnswersMakeRoomForOthers: an origin of HTTP/2 that finds no room waits, then
// the answer that nobody reads ends, with a record that says why, and the next one comes.
func TestUnreadAnswersMakeRoomForOthers(t *testing.T) {
	for _, newer := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", newer), func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
			room := hold.New(200 << 10) // less than one of them takes
			w.newer.Unread, w.newer.Patience = room, time.Millisecond
			w.HTTP2 = h2.New(w.newer)
			w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/small" {
					_, _ = io.WriteString(rw, "small")
					return
				}
				for piece := make([]byte, 64<<10); ; {
					if _, err := rw.Write(piece); err != nil {
						return
					}
				}
			}), "h2")
			unread, err := w.client(newer).Get("https://a.example.com/")
			if err != nil {
				t.Fatal(err)
			}
			defer unread.Body.Close()
			w.until("it is ended", func() bool { return w.HTTP2.Ended() > 0 })
			small, err := w.client(newer).Get("https://a.example.com/small")
			if err != nil {
				t.Fatal(err)
			}
			defer small.Body.Close()
			if text, err := io.ReadAll(small.Body); string(text) != "small" || err != nil {
				t.Errorf("another answer: %q, %v", text, err)
			}
			if _, err := io.Copy(io.Discard, unread.Body); err == nil {
				t.Error("the one that nobody read is whole")
			}
			w.until("a record that says why", func() bool {
				said := strings.Join(w.records.list(), "\n")
				return strings.Contains(said, `"reason":"too_many_bodies"`) && strings.Contains(said, "left unread the longest")
			})
			w.until("nothing is held", func() bool { return room.Held() == 0 })
		})
	}
}
