package hygiene

import "encoding/binary"

// prefixBytes is the length of what stands in front of a message of gRPC: flags, and
// the length of the message.
const prefixBytes = 5

// What the flags say.
const (
	plainMessage  = 0
	webTrailers   = 0x80 // text behind the last message, where HTTP has no trailers
	compressedBit = 1
)

// frames covers values in the messages of gRPC, each of which is looked at like a body
// without a length, and is on its way when its last byte has come: two ends that take
// turns wait for each other's messages.
type frames struct {
	w    *Writer // over the message under way
	head [prefixBytes]byte
	n    int    // of the bytes in head
	left uint32 // of the message
}

func newFrames(w *Writer) *frames {
	w.cover = true
	return &frames{w: w}
}

// Write implements io.Writer. Nothing of a message that cannot be read is passed on.
func (f *frames) Write(p []byte) (int, error) {
	size := len(p)
	for len(p) > 0 {
		var n int
		var err error
		if f.n < prefixBytes {
			n, err = f.prefix(p)
		} else {
			n, err = f.message(p)
		}
		if err != nil {
			return size - len(p), err
		}
		p = p[n:]
	}
	return size, nil
}

// prefix reads what stands in front of a message.
func (f *frames) prefix(p []byte) (int, error) {
	n := copy(f.head[f.n:], p)
	if f.n += n; f.n < prefixBytes {
		return n, nil
	}
	f.left = binary.BigEndian.Uint32(f.head[1:])
	flags := f.head[0]
	if flags&^compressedBit != plainMessage && flags&^compressedBit != webTrailers || flags&compressedBit != 0 && f.left > 0 {
		return n, errCompressed
	}
	if _, err := f.w.w.Write(f.head[:]); err != nil {
		return n, err
	}
	return n, f.over()
}

// message reads a part of a message.
func (f *frames) message(p []byte) (int, error) {
	n := min(len(p), int(f.left))
	if _, err := f.w.Write(p[:n]); err != nil {
		return 0, err
	}
	f.left -= uint32(n)
	return n, f.over()
}

// over makes ready for the next message when one has ended.
func (f *frames) over() error {
	if f.left > 0 {
		return nil
	}
	f.n = 0
	return f.w.next()
}

// Close hands on what is held back, which is no whole message.
func (f *frames) Close() error {
	if 0 < f.n && f.n < prefixBytes {
		if _, err := f.w.w.Write(f.head[:f.n]); err != nil {
			return err
		}
	}
	return f.w.Close()
}
