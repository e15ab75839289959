package websocket

import "encoding/binary"

// opcode is what a frame carries.
type opcode byte

// The opcodes of RFC 6455 section 5.2.
const (
	opContinuation opcode = 0x0
	opText         opcode = 0x1
	opBinary       opcode = 0x2
	opClose        opcode = 0x8
	opPing         opcode = 0x9
	opPong         opcode = 0xa
)

const (
	maxHeader  = 14
	maxControl = 125
	bitFin     = 0x80
	bitDeflate = 0x40 // RSV1, RFC 7692 section 6
	bitsOther  = 0x30 // RSV2 and RSV3
	bitMask    = 0x80
)

// header is the head of one frame.
type header struct {
	op      opcode
	fin     bool
	deflate bool
	masked  bool
	mask    [4]byte
	length  int64
	size    int // of the header itself
}

func (h *header) control() bool { return h.op >= opClose }

// headerSize returns how long the header is that starts with the two bytes.
func headerSize(b0, b1 byte) int {
	n := 2
	switch b1 &^ bitMask {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b1&bitMask != 0 {
		n += 4
	}
	return n
}

// parseHeader reads the header at the start of b, which holds all of it. Its rules are
// those of a single frame.
func parseHeader(b []byte) (header, error) {
	h := header{op: opcode(b[0] & 0xf), fin: b[0]&bitFin != 0, deflate: b[0]&bitDeflate != 0, masked: b[1]&bitMask != 0, size: headerSize(b[0], b[1])}
	switch short := b[1] &^ bitMask; short {
	case 126:
		h.length = int64(binary.BigEndian.Uint16(b[2:]))
		if h.length < 126 {
			return h, errLength
		}
	case 127:
		n := binary.BigEndian.Uint64(b[2:])
		if n < 1<<16 || n >= 1<<63 {
			return h, errLength
		}
		h.length = int64(n)
	default:
		h.length = int64(short)
	}
	if h.masked {
		copy(h.mask[:], b[h.size-4:])
	}
	switch {
	case b[0]&bitsOther != 0:
		return h, errReserved
	case h.op > opBinary && h.op < opClose || h.op > opPong:
		return h, errOpcode
	case h.control() && (!h.fin || h.length > maxControl):
		return h, errControl
	case h.deflate && (h.control() || h.op == opContinuation):
		return h, errReserved
	}
	return h, nil
}

// order holds the rules between the frames of one direction.
type order struct {
	masked  bool // frames of a client are
	deflate bool // permessage-deflate is agreed
	open    bool // a message has begun and not ended
}

// check takes the next frame.
func (o *order) check(h *header) error {
	switch {
	case h.masked != o.masked:
		return errMask
	case h.deflate && !o.deflate:
		return errReserved
	case h.control():
		return nil
	case o.open != (h.op == opContinuation):
		return errSequence
	}
	o.open = !h.fin
	return nil
}

// putHeader writes the shortest header of a frame to the end of b[:maxHeader], so that
// the payload can stand right behind it, and returns where it starts.
func putHeader(b []byte, first byte, length int, mask *[4]byte) int {
	end := maxHeader
	second := byte(0)
	if mask != nil {
		end -= 4
		copy(b[end:], mask[:])
		second = bitMask
	}
	switch {
	case length < 126:
		second |= byte(length)
	case length < 1<<16:
		second |= 126
		end -= 2
		binary.BigEndian.PutUint16(b[end:], uint16(length))
	default:
		second |= 127
		end -= 8
		binary.BigEndian.PutUint64(b[end:], uint64(length))
	}
	b[end-2], b[end-1] = first, second
	return end - 2
}
