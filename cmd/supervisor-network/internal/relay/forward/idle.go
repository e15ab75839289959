package forward

import (
	"io"
	"sync/atomic"
	"time"
)

// idle ends an exchange in which nothing has moved for a while by letting every
// deadline pass: the readers then report a time-out, which can still be answered.
type idle struct {
	limit time.Duration
	moved atomic.Int64 // monotonic nanoseconds since start
	start time.Time
	timer *time.Timer
	late  atomic.Bool
}

func newIdle(x Exchange) *idle {
	i := &idle{limit: x.Idle, start: time.Now()}
	i.timer = time.AfterFunc(time.Hour, func() { i.check(x) })
	i.timer.Reset(i.limit) // not before timer is set, which check reads
	return i
}

func (i *idle) check(x Exchange) {
	quiet := time.Since(i.start) - time.Duration(i.moved.Load())
	if quiet < i.limit {
		i.timer.Reset(i.limit - quiet)
		return
	}
	i.late.Store(true)
	_ = x.Upstream.SetDeadline(time.Unix(1, 0))
	_ = x.Client.SetReadDeadline(time.Unix(1, 0))
	_ = x.Client.SetWriteDeadline(time.Now().Add(time.Second)) // a short answer still fits
}

func (i *idle) stop()         { i.timer.Stop() }
func (i *idle) expired() bool { return i.late.Load() }
func (i *idle) mark()         { i.moved.Store(int64(time.Since(i.start))) }

type watchedReader struct {
	io.Reader
	idle *idle
}

func (r watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.idle.mark()
	}
	return n, err
}

type watchedWriter struct {
	io.Writer
	idle *idle
}

func (w watchedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if n > 0 {
		w.idle.mark()
	}
	return n, err
}

func (i *idle) reader(r io.Reader) io.Reader { return watchedReader{r, i} }
func (i *idle) writer(w io.Writer) io.Writer { return watchedWriter{w, i} }
