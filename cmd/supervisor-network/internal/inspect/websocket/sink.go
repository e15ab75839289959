package websocket

import (
	"sync"
	"time"
)

// sink writes to one side. Both directions write to it: one what it relays, the other
// a close frame, which waits for the end of a frame that is under way.
type sink struct {
	stream Stream
	clock  clock
	// own is true where the end of writing follows our own close frame at once. A
	// server may do that, and a client then answers and closes.
	own bool

	mu      sync.Mutex
	within  bool   // a frame is written in part
	pending []byte // the close frame that waits
	over    bool   // nothing follows: closed, or a write failed
}

func (k *sink) init(stream Stream, own bool) {
	k.stream, k.own = stream, own
	k.clock.set = stream.SetWriteDeadline
}

// write relays p. First is the offset behind the first frame that ends in p, -1 when
// none does; whole says that p ends with a frame. It fails with errOver when this or
// the next write has no effect.
func (k *sink) write(p []byte, first int, whole bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return errOver
	}
	if k.pending == nil || first < 0 {
		k.within = !whole
		return k.raw(p)
	}
	if err := k.raw(p[:first]); err != nil {
		return err
	}
	k.within = false
	k.last(k.pending)
	return errOver
}

// writeLast relays the close frame of the other side, the last frame of this one.
func (k *sink) writeLast(p []byte) error {
	err := k.write(p, len(p), true)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	return err
}

// close writes a close frame of this daemon as soon as it can stand. Without wait it
// gives up, with false, where another write is under way.
func (k *sink) close(frame []byte, wait bool) bool {
	if wait {
		k.mu.Lock()
	} else if !k.mu.TryLock() {
		return false
	}
	defer k.mu.Unlock()
	switch {
	case k.over || k.pending != nil:
	case k.within:
		k.pending = frame
	default:
		k.last(frame)
	}
	return true
}

func (k *sink) last(frame []byte) {
	if k.raw(frame) == nil && k.own {
		k.half()
	}
	k.over = true
}

// abandon gives up a frame that will not be completed, and the close frame behind it.
func (k *sink) abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pending != nil && !k.over {
		k.over = true
		k.half()
	}
}

// shut ends writing without a close frame.
func (k *sink) shut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.half()
}

func (k *sink) half() {
	if s, ok := k.stream.(interface{ CloseWrite() error }); ok {
		_ = s.CloseWrite() // a side that is gone needs no end
	}
}

func (k *sink) raw(p []byte) error {
	if err := k.clock.arm(writeWait, time.Time{}); err != nil {
		k.over = true
		return err
	}
	_, err := k.stream.Write(p)
	if err != nil {
		k.over = true
	}
	return err
}
