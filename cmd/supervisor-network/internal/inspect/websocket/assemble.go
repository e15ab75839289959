package websocket

import (
	"sync"
	"time"
)

// keepBytes is how long a buffer may be that is used again.
const keepBytes = 64 << 10

var messageBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// buffer is a pooled one with room for a header at its start.
func buffer() *[]byte {
	b := messageBuffers.Get().(*[]byte)
	*b = (*b)[:maxHeader]
	return b
}

func recycle(b *[]byte) {
	if cap(*b) <= keepBytes {
		messageBuffers.Put(b)
	}
}

// long takes a text message of any form: it holds it until it is judged. Nothing of
// it is sent before.
func (x *running) long(h header) error {
	if h.length > MaxText {
		return errTooBig
	}
	until := time.Now().Add(assemblyWait)
	if err := x.Assemblies.take(x.ctx, until); err != nil {
		return err
	}
	defer x.Assemblies.give()
	b := buffer()
	defer recycle(b)
	defer x.message.taking.giveBack()
	if err := x.message.start(h, until); err != nil {
		return err
	}
	var err error
	if h.deflate {
		*b, err = x.message.inflate(*b)
	} else {
		*b, err = x.message.collect(*b)
	}
	if err != nil {
		return err
	}
	replacement, err := x.judge((*b)[maxHeader:])
	if err != nil {
		return err
	}
	if replacement == nil {
		return x.sendText(*b)
	}
	if !x.message.taking.more(2 * len(replacement)) { // it, and the frame that it goes in
		return errCrowded
	}
	return x.replace(replacement)
}

// replace sends another text than the client did.
func (x *running) replace(text []byte) error {
	b := buffer()
	defer recycle(b)
	*b = append(*b, text...)
	return x.sendText(*b)
}

// sendText sends the text behind the room for its header, as one frame.
func (x *running) sendText(b []byte) error {
	mask := x.masks.next()
	cipher(b[maxHeader:], mask, 0)
	frame := b[putHeader(b, bitFin|byte(opText), len(b)-maxHeader, &mask):]
	x.up.messages.Add(1)
	return x.send(frame, len(frame), true)
}
