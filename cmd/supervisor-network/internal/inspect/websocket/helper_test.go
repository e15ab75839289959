package websocket

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// end is one end of a connection that can be half-closed and has deadlines.
type end struct{ r, w net.Conn }

func (e end) Read(p []byte) (int, error)         { return e.r.Read(p) }
func (e end) Write(p []byte) (int, error)        { return e.w.Write(p) }
func (e end) SetReadDeadline(t time.Time) error  { return unlessClosed(e.r.SetReadDeadline(t)) }
func (e end) SetWriteDeadline(t time.Time) error { return unlessClosed(e.w.SetWriteDeadline(t)) }
func (e end) CloseWrite() error                  { return e.w.Close() }
func (e end) Close() error                       { return errors.Join(e.r.Close(), e.w.Close()) }

// unlessClosed makes a pipe as a socket is: its deadlines can be set after the far end
// has closed.
func unlessClosed(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

func connection() (far end, near Stream) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return end{r1, w2}, end{r2, w1}
}

// frame is a frame as a slow reader sees it.
type frame struct {
	first   byte
	payload string
}

// raw makes a frame with any first byte and the length's shortest form.
func raw(first byte, payload string, masked bool) []byte {
	b := []byte{first}
	m := byte(0)
	if masked {
		m = bitMask
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, m|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, m|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, m|127), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	mask := []byte{0x11, 0xa2, 0x03, 0xf4}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// masked and plain are frames of a client and of a server.
func masked(first byte, payload string) []byte { return raw(first, payload, true) }
func plain(first byte, payload string) []byte  { return raw(first, payload, false) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// First bytes.
const (
	text       = 0x81
	textBegin  = 0x01
	more       = 0x00
	last       = 0x80
	bin        = 0x82
	binBegin   = 0x02
	closing    = 0x88
	ping       = 0x89
	pong       = 0x8a
	compressed = 0xc1
)

// slowRead is a slow and simple reader of frames; rest is what it cannot read as a frame.
func slowRead(b []byte, fromClient bool) (frames []frame, rest []byte) {
	for {
		whole := b
		if len(b) < 2 {
			return frames, whole
		}
		first, n := b[0], uint64(b[1]&0x7f)
		if (b[1]&0x80 != 0) != fromClient {
			return frames, whole
		}
		b = b[2:]
		size := map[uint64]int{126: 2, 127: 8}[n]
		if len(b) < size {
			return frames, whole
		}
		if size > 0 {
			short := n
			n = 0
			for _, c := range b[:size] {
				n = n<<8 | uint64(c)
			}
			if short == 126 && n < 126 || short == 127 && n < 1<<16 {
				return frames, whole
			}
			b = b[size:]
		}
		var mask [4]byte
		if fromClient {
			if len(b) < 4 {
				return frames, whole
			}
			mask = [4]byte(b)
			b = b[4:]
		}
		if uint64(len(b)) < n {
			return frames, whole
		}
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = b[i] ^ mask[i%4]
		}
		frames = append(frames, frame{first, string(payload)})
		b = b[n:]
	}
}

// closes is the payload of a close frame.
func closes(code Code, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// deflated compresses s as a message of its own.
func deflated(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.DefaultCompression)
	_, _ = io.WriteString(w, s)
	_ = w.Flush()
	return string(bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff}))
}

// allow lets every message pass.
func allow(context.Context, []byte) ([]byte, error) { return nil, nil }

// session is one under test, in a bubble: nothing takes real time.
type session struct {
	Session
	client, server end // the ends of the two peers
	cancel         context.CancelCauseFunc
	denied         []CloseError
	stats          Stats
	err            error
	done           chan struct{}

	mu       sync.Mutex
	up, down bytes.Buffer // what the server and the client got
	readers  sync.WaitGroup
}

func newSession(change func(*Session)) *session {
	s := &session{done: make(chan struct{})}
	s.client, s.Client = connection()
	s.server, s.Upstream = connection()
	s.Judge, s.Binary, s.Assemblies = allow, true, NewAssemblies(nil)
	s.Goodbye = func(cause error) *CloseError {
		e, _ := errors.AsType[*CloseError](cause)
		return e
	}
	s.Denied = func(e *CloseError) { s.denied = append(s.denied, *e) }
	if change != nil {
		change(&s.Session)
	}
	return s
}

func (s *session) start(ctx context.Context) {
	ctx, s.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(s.done)
		s.stats, s.err = s.Run(ctx)
	}()
}

// collect keeps reading both peers' ends.
func (s *session) collect() {
	for from, to := range map[end]*bytes.Buffer{s.client: &s.down, s.server: &s.up} {
		s.readers.Go(func() {
			b := make([]byte, 4096)
			for {
				n, err := from.Read(b)
				s.mu.Lock()
				to.Write(b[:n])
				s.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
}

// wait waits for the end of the session and closes the peers.
func (s *session) wait() {
	<-s.done
	s.client.Close()
	s.server.Close()
	s.readers.Wait()
}

// upFrames and downFrames are what the peers have read by now.
func (s *session) upFrames(t *testing.T) []frame   { return s.frames(t, &s.up, true) }
func (s *session) downFrames(t *testing.T) []frame { return s.frames(t, &s.down, false) }

func (s *session) frames(t *testing.T, b *bytes.Buffer, fromClient bool) []frame {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	frames, rest := slowRead(bytes.Clone(b.Bytes()), fromClient)
	if len(rest) > 0 {
		t.Errorf("%d bytes are no frame: %.20x", len(rest), rest)
	}
	return frames
}

// send writes what the client says, and then nothing more.
func (s *session) send(b []byte) { _, _ = s.client.Write(b) }

// exchange runs a session in which the client says b and then stays open, or ends its
// side; the server stays silent.
func exchange(t *testing.T, b []byte, hangUp bool, change func(*Session)) *session {
	t.Helper()
	s := newSession(change)
	s.start(t.Context())
	s.collect()
	s.send(b)
	if hangUp {
		_ = s.client.CloseWrite()
	}
	s.wait()
	return s
}
