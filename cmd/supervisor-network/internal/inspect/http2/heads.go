package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// heads is a connection on which every header section is written anew, so that the library
// sees none that it would answer in words of its own, of which nobody else is told: in its
// place comes one that says why it is refused. One that is no request for another reason
// passes as it is; the library ends its stream.
//
// It holds one section at a time, as it came, until that is complete: where more than
// keptBuffer is to be held there has to be room for it, which it has for as long as a head of
// HTTP/1.1 may take. Of what it says MaxHeaderList is kept; the rest is read for the sake of
// the compression alone.
type heads struct {
	*meter
	in  io.Reader             // the meter
	all *Windows              // of all connections; nil: there is always room
	due func(time.Time) error // sets the deadline of reads
	max time.Duration         // for what needs room
	dec *hpack.Decoder        // of the client
	enc *hpack.Encoder        // to the library

	frame  [frameHead]byte
	rest   int          // bytes of a frame that passes as it is
	out    bytes.Buffer // what the library gets
	newest uint32       // stream that began

	// Of the section that is open, which nothing but Read is under way for:
	held   int    // bytes of room
	open   []byte // what came of it in frames before the last one
	stream uint32 // 0: none is
	flags  byte
	fields []hpack.HeaderField
	kind   string       // its content type
	size   int          // of the list
	length int          // as it came
	block  bytes.Buffer // as it goes on, behind its priority
}

// What a connection keeps the memory of.
const (
	keptBuffer = 4 << 10
	keptFields = 64
)

// maxSection bounds a section that is read for the sake of the compression: one that never
// ends is held as far as that.
const maxSection = 64 << 10

func newHeads(m *meter, all *Windows, limit time.Duration) *heads {
	h := &heads{meter: m, in: m, all: all, due: m.SetReadDeadline, max: limit, rest: prefaceSize}
	h.dec = hpack.NewDecoder(tableSize, h.field)
	h.dec.SetMaxStringLength(maxSection)
	h.enc = hpack.NewEncoder(&h.block)
	return h
}

// tableSize is what both sides compress with, as neither says anything else.
const tableSize = 4096

// Read implements net.Conn.
func (h *heads) Read(p []byte) (int, error) {
	for h.out.Len() == 0 && h.rest == 0 {
		if err := h.next(); err != nil {
			if h.held > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				h.flooded.Store(true)
				err = errFlood
			}
			h.forget()
			return 0, err
		}
	}
	if h.out.Len() > 0 {
		n, err := h.out.Read(p)
		if h.out.Len() == 0 && h.out.Cap() > keptBuffer {
			h.out = bytes.Buffer{}
		}
		return n, err
	}
	n, err := h.in.Read(p[:min(len(p), h.rest)])
	h.rest -= n
	return n, err
}

// next goes over the head of a frame, and the whole frame if it is one of a section. What
// breaks the framing of sections ends the connection, as it would in the library.
func (h *heads) next() error {
	if _, err := io.ReadFull(h.in, h.frame[:]); err != nil {
		return err
	}
	size := int(h.frame[0])<<16 | int(h.frame[1])<<8 | int(h.frame[2])
	kind, flags, stream := h.frame[3], h.frame[4], binary.BigEndian.Uint32(h.frame[5:])&(1<<31-1)
	switch {
	case h.stream != 0 && (kind != typeContinuation || stream != h.stream), h.stream == 0 && kind == typeContinuation, kind == typeHeaders && stream == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case kind != typeHeaders && kind != typeContinuation:
		h.out.Write(h.frame[:])
		h.rest = size
		return nil
	case size > maxFrame:
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if !h.room(cap(h.open) + size) {
		return errFlood
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(h.in, payload); err != nil {
		return err
	}
	if kind == typeHeaders {
		priority, fragment, ok := unpadded(payload, flags)
		if !ok {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		h.stream, h.flags = stream, flags&(flagEndStream|flagPriority)
		h.kind, h.size, h.length = "", 0, 0
		h.block.Write(priority)
		payload = fragment
	}
	return h.section(payload, flags&flagEndHeaders != 0)
}

// unpadded takes a HEADERS frame apart (RFC 9113 section 6.2).
func unpadded(payload []byte, flags byte) (priority, fragment []byte, ok bool) {
	pad := 0
	if flags&flagPadded != 0 {
		if len(payload) == 0 {
			return nil, nil, false
		}
		pad, payload = int(payload[0]), payload[1:]
	}
	if flags&flagPriority != 0 {
		if len(payload) < prioritySize {
			return nil, nil, false
		}
		priority, payload = payload[:prioritySize], payload[prioritySize:]
	}
	if pad > len(payload) {
		return nil, nil, false
	}
	return priority, payload[:len(payload)-pad], true
}

// section reads a piece of one, and writes it anew when it has ended.
func (h *heads) section(piece []byte, ends bool) error {
	if h.length += len(piece); h.length > maxSection {
		h.flooded.Store(true)
		return errFlood
	}
	if !ends || len(h.open) > 0 {
		if !h.keep(piece) {
			return errFlood
		}
		piece = h.open
	}
	if !ends {
		return nil
	}
	_, err := h.dec.Write(piece)
	if err == nil {
		err = h.dec.Close()
	}
	if err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	h.settle()
	h.write()
	h.forget()
	return nil
}

// keep adds a piece to what is open, if there is room for it.
func (h *heads) keep(piece []byte) bool {
	if n := len(h.open) + len(piece); n > cap(h.open) {
		size := min(max(n, 2*cap(h.open)), maxSection)
		if !h.room(size) {
			return false
		}
		h.open = append(make([]byte, 0, size), h.open...)
	}
	h.open = append(h.open, piece...)
	return true
}

// room reports whether n bytes may be held.
func (h *heads) room(n int) bool {
	if n <= keptBuffer || n <= h.held {
		return true
	}
	if !h.all.hold(int64(n - h.held)) {
		h.crowded.Store(true)
		return false
	}
	if h.held == 0 {
		_ = h.due(time.Now().Add(h.max)) // or reading fails by itself
	}
	h.held = n
	return true
}

// forget gives back what was held, when the section or the connection has ended.
func (h *heads) forget() {
	if h.held > 0 {
		h.all.release(int64(h.held))
		h.held = 0
		_ = h.due(time.Time{})
		// The decoder remembers what it read last until it reads something else. The
		// beginning of a field, which then is none, changes nothing in it.
		_, _ = h.dec.Write([]byte{0x40})
		_ = h.dec.Close()
	}
	h.open = nil
}

// field is told each field of a section.
func (h *heads) field(f hpack.HeaderField) {
	if f.Name == "content-type" {
		h.kind = f.Value
	}
	if h.size += listSize(f); h.size <= MaxHeaderList {
		h.fields = append(h.fields, f)
	}
}

// listSize is what a field counts for. A name in Trailer counts for one, as it does to the
// library, which would refuse too many of them in words of its own.
func listSize(f hpack.HeaderField) int {
	size := int(f.Size())
	if f.Name == "trailer" {
		size += fieldOverhead * strings.Count(f.Value, ",")
	}
	return size
}

// settle looks at a section that has ended. Trailers are nobody's request: those that are
// too many are made ones that end their stream.
func (h *heads) settle() {
	if h.stream <= h.newest {
		if h.size > MaxHeaderList {
			h.fields = append(h.fields[:0], hpack.HeaderField{Name: ":too-many"})
		}
		return
	}
	h.newest = h.stream
	why := malformed(h.fields)
	if h.size > MaxHeaderList {
		why = tooLarge
	}
	if why == "" {
		return
	}
	h.fields = standIn(h.fields, h.kind, why)
}

// write gives the section to the library, in as many frames as it needs, and closes it.
func (h *heads) write() {
	for _, f := range h.fields {
		_ = h.enc.WriteField(f) // to memory
	}
	kind, flags, block := byte(typeHeaders), h.flags, h.block.Bytes()
	for more := true; more; {
		piece := block[:min(len(block), maxFrame)]
		block = block[len(piece):]
		if more = len(block) > 0; !more {
			flags |= flagEndHeaders
		}
		var head [frameHead]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(piece))<<8|uint32(kind))
		head[4] = flags
		binary.BigEndian.PutUint32(head[5:], h.stream)
		h.out.Write(head[:])
		h.out.Write(piece)
		kind, flags = typeContinuation, 0
	}
	clear(h.fields)
	if h.stream, h.fields = 0, h.fields[:0]; cap(h.fields) > keptFields {
		h.fields = nil
	}
	if h.block.Reset(); h.block.Cap() > keptBuffer {
		h.block = bytes.Buffer{}
	}
}

// Frames and flags of sections (RFC 9113 sections 6.2 and 6.10).
const (
	typeContinuation = 0x9
	flagEndHeaders   = 0x4
	flagPriority     = 0x20
	prioritySize     = 5
)

// fieldOverhead is what a field counts for besides its bytes (RFC 9113 section 6.5.2).
const fieldOverhead = 32
