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
	next(t, f.stats)
	if _, size := announced(); size != connectionWindow {
		t.Errorf("behind one that ended, it has %d", size)
	}
}

// TestWindowsOfAllConnectionsHaveOneLimit: as many as fit have one, and wide ones take
// half of it at most.
func TestWindowsOfAllConnectionsHaveOneLimit(t *testing.T) {
	w := Windows{Limit: 3 * narrowWindow}
	for i := range 3 {
		if !w.Enter() {
			t.Errorf("number %d of 3 has no room", i+1)
		}
	}
	if w.Enter() || w.Held() != w.Limit || w.Unoffered() != 1 {
		t.Errorf("one too many: %d bytes are held, %d times there was no room", w.Held(), w.Unoffered())
	}
	if w.Leave(); !w.Enter() {
		t.Error("what was given back is not there")
	}
	w = Windows{Limit: 2 * connectionWindow}
	w.Enter()
	size, give := w.widen()
	if size != connectionWindow || w.Held() != connectionWindow {
		t.Errorf("the first one has %d, of %d", size, w.Held())
	}
	w.Enter()
	if size, _ := w.widen(); size != narrowWindow || w.Held() != connectionWindow+narrowWindow {
		t.Errorf("behind half of the limit, one has %d, of %d", size, w.Held())
	}
	give()
	w.Leave()
	w.Leave()
	if w.Held() != 0 || w.wide.Load() != 0 {
		t.Errorf("%d bytes and %d wide ones stay", w.Held(), w.wide.Load())
	}
	w = Windows{}
	for range 20000 {
		w.Enter()
	}
	if !w.Enter() {
		t.Error("without a limit there is one")
	}
}
