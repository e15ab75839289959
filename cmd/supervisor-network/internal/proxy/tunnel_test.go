package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestNoFixedTimeStandsBeforeTheServersFirstWord: who looks at a connection before it says
// what it is looks at it as bytes come, and waits for none. A wait would be in every one of
// many tries; a busy machine is not in all of them.
func TestNoFixedTimeStandsBeforeTheServersFirstWord(t *testing.T) {
	const word, wait, tries = "220 ready\r\n", 50 * time.Millisecond, 50
	for name, more := range map[string]string{"tls: auto": "", "tls: skip": ", tls: skip", "protocol: tcp": ", protocol: tcp"} {
		w := newWorld(t, generous, endpoint("mail.example.com", 25, more))
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.WriteString(c, word)
					_, _ = io.Copy(io.Discard, c)
				}()
			}
		}()
		w.lead("mail.example.com", 25, l.Addr().String())
		soonest := generous
		for n := 0; n < tries && soonest >= wait; n++ {
			c := w.tunnel("mail.example.com", 25)
			began, got := time.Now(), make([]byte, len(word))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != word {
				t.Fatalf("%s: %q, %v", name, got, err)
			}
			soonest = min(soonest, time.Since(began))
			c.Close()
		}
		if soonest >= wait {
			t.Errorf("%s: of %d servers none was heard in less than %s; the soonest in %s", name, tries, wait, soonest)
		}
	}
}

// TestATunnelIsAliveUntilItEnds, however it is looked at: with its client, or with the rule
// that allowed it. It leaves one record then.
func TestATunnelIsAliveUntilItEnds(t *testing.T) {
	for name, more := range map[string]string{"tls: auto": "", "tls: skip": ", tls: skip", "protocol: tcp": ", protocol: tcp"} {
		for end, revoked := range map[string]bool{"client": false, "rule": true} {
			t.Run(name+", "+end, func(t *testing.T) {
				w := newWorld(t, generous, endpoint("mail.example.com", 25, more))
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				go func() {
					if c, err := l.Accept(); err == nil {
						defer c.Close()
						_, _ = io.Copy(c, c)
					}
				}()
				w.lead("mail.example.com", 25, l.Addr().String())
				c := w.tunnel("mail.example.com", 25)
				echo := make([]byte, 4)
				if _, err := io.WriteString(c, "EHLO"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, echo); err != nil || string(echo) != "EHLO" {
					t.Fatalf("%q, %v", echo, err)
				}
				if n, records := w.Live.Count(), w.records.list(); n != 1 || len(records) != 0 {
					t.Errorf("%d tunnels are alive, records %q", n, records)
				}
				if revoked {
					w.publish(endpoint("other.example.com", 25, ""))
					if _, err := io.ReadFull(c, echo); err == nil {
						t.Errorf("after its rule went, %q arrived", echo)
					}
				} else {
					c.Close()
				}
				for deadline := time.Now().Add(generous); w.Live.Count() != 0 || len(w.records.list()) == 0; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("%d tunnels are alive, records %q", w.Live.Count(), w.records.list())
					}
				}
				if got := w.records.list(); len(got) != 1 || !strings.Contains(got[0], `"bytes_out":4`) {
					t.Errorf("records %q", got)
				}
			})
		}
	}
}
