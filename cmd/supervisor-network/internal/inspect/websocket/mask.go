package websocket

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/gobwas/ws"
)

// cipher masks p, or takes the mask off; offset is the place of p in its payload.
func cipher(p []byte, mask [4]byte, offset int) { ws.Cipher(p, mask, offset&3) }

// both is the mask that takes a off and puts b on.
func both(a, b [4]byte) (out [4]byte) {
	binary.NativeEndian.PutUint32(out[:], binary.NativeEndian.Uint32(a[:])^binary.NativeEndian.Uint32(b[:]))
	return out
}

// masks makes masks nobody can foretell (RFC 6455 section 5.3), some at a time, since
// asking the kernel for four bytes costs more than masking a short message.
type masks struct {
	pool [64]byte
	left int
}

func (m *masks) next() (mask [4]byte) {
	if m.left == 0 {
		_, _ = rand.Read(m.pool[:]) // it does not fail
		m.left = len(m.pool)
	}
	m.left -= len(mask)
	copy(mask[:], m.pool[m.left:])
	return mask
}
