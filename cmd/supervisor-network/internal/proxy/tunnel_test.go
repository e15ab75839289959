package proxy

import (
	"io"
	"net"
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
