package http2

import (
	"context"
	"testing"

	"golang.org/x/net/http2"
)

// TestFewConnectionsHaveAWideWindow, and what one had goes to another when it ends.
func TestFewConnectionsHaveAWideWindow(t *testing.T) {
	var w Windows
	w.wide.Store(maxWide - 1) // of others
	f := serve(t, Options{Windows: &w}, func(context.Context, *Stream) {})
	announced := func() (*raw, int) {
		r := dial(t, f)
		_, err := r.conn.Write([]byte(http2.ClientPreface))
		r.ok(err)
		r.ok(r.fr.WriteSettings())
		r.ok(r.fr.WritePing(false, [8]byte{1}))
		for size := narrowWindow; ; {
			f, err := r.fr.ReadFrame()
			r.ok(err)
			switch f := f.(type) {
			case *http2.WindowUpdateFrame:
				size += int(f.Increment)
			case *http2.PingFrame:
				return r, size
			}
		}
	}
	first, size := announced()
	if size != connectionWindow {
		t.Errorf("the last wide one has %d", size)
	}
	if _, size := announced(); size != narrowWindow {
		t.Errorf("one too many has %d", size)
	}
	first.conn.Close()
	<-f.stats
	if _, size := announced(); size != connectionWindow {
		t.Errorf("behind one that ended, it has %d", size)
	}
}
