package websocket

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// errClosed is the client's close frame, handed on.
var errClosed = errors.New("the client has closed")

// writeError is the failure of a write to the server; every other error of the upward
// direction is about the client.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// upward relays the client's frames until there are no more.
func (x *running) upward() error {
	err := x.relayUp()
	refused, ok := errors.AsType[*CloseError](err)
	failed, isWrite := errors.AsType[writeError](err)
	switch {
	case err == errClosed:
		x.upstream.clock.hurry()
		return nil
	case ok:
		x.end(refused, CodeGoingAway, true)
		x.deafen()
		return nil
	case err == errQuiet:
		return nil
	case err == errOver:
		x.deafen()
		return nil
	case isWrite && timedOut(failed):
		x.end(&CloseError{Code: CodeGoingAway, Reason: core.ReasonUpstreamTimeout, Detail: "the server does not read"}, CodeGoingAway, false)
		x.deafen()
		return nil
	case isWrite: // what the server said before it went away still reaches the client
		x.upstream.clock.hurry()
		x.deafen()
	default: // the client went away without a word, and so do we
		x.hangUp(&x.toUpstream)
		x.upstream.clock.hurry()
	}
	if orderly(err) {
		return nil
	}
	return err
}

// deafen reads on without parsing.
func (x *running) deafen() {
	x.toUpstream.abandon()
	x.finished(&x.deaf)
	x.client.drain()
}

func (x *running) relayUp() error {
	for {
		h, err := x.client.header(false, time.Time{})
		if err == nil {
			err = x.order.check(&h)
		}
		if err == nil {
			err = x.frame(h)
		}
		if err != nil {
			return err
		}
	}
}

// frame takes the frame, or with a text frame the message, whose header is read.
func (x *running) frame(h header) error {
	switch {
	case h.control():
		return x.control(h, time.Time{})
	case h.op == opText && h.fin && !h.deflate && h.size+int(min(h.length, smallBytes)) <= smallBytes:
		return x.short(h)
	case h.op == opText:
		return x.long(h)
	default:
		return x.binary(h)
	}
}

// control hands a control frame on. It fails with errClosed behind a close frame.
func (x *running) control(h header, until time.Time) error {
	total := h.size + int(h.length)
	if err := x.client.fill(total, true, until); err != nil {
		return err
	}
	p := x.client.window()[:total]
	payload := p[h.size:]
	cipher(payload, h.mask, 0)
	if h.op != opClose {
		return x.sendInPlace(p, h.size)
	}
	code, err := readClose(payload)
	if err != nil {
		return err
	}
	x.closed(code)
	x.mask(p, h.size)
	x.up.bytes.Add(int64(total))
	if err := x.toUpstream.writeLast(p); err != nil && err != errOver {
		return writeError{err}
	}
	return errClosed
}

// short takes a text message that fits the small buffer in one frame. It is judged and
// sent where it lies.
func (x *running) short(h header) error {
	total := h.size + int(h.length)
	if err := x.client.fill(total, true, time.Now().Add(assemblyWait)); err != nil {
		return err
	}
	p := x.client.window()[:total]
	cipher(p[h.size:], h.mask, 0)
	replacement, err := x.judge(p[h.size:])
	if err != nil {
		return err
	}
	if replacement == nil {
		x.up.messages.Add(1)
		return x.sendInPlace(p, h.size)
	}
	x.client.take(total)
	return x.replace(replacement)
}

// mask masks the frame p, whose header is size bytes long, with a new mask.
func (x *running) mask(p []byte, size int) {
	mask := x.masks.next()
	copy(p[size-4:size], mask[:])
	cipher(p[size:], mask, 0)
}

// sendInPlace sends the unmasked frame p, which stands at the start of the window.
func (x *running) sendInPlace(p []byte, size int) error {
	x.mask(p, size)
	x.client.take(len(p))
	return x.send(p, len(p), true)
}

func (x *running) send(p []byte, first int, whole bool) error {
	x.up.bytes.Add(int64(len(p)))
	err := x.toUpstream.write(p, first, whole)
	if err != nil && err != errOver {
		return writeError{err}
	}
	return err
}

// judge asks whether a text message may pass.
func (x *running) judge(text []byte) (replacement []byte, err error) {
	if !utf8.Valid(text) {
		return nil, errText
	}
	if x.Judge == nil {
		return nil, refusal(CodePolicy, core.ReasonPolicyDenied, "text messages are not permitted here")
	}
	replacement, err = x.Judge(x.ctx, text)
	if e, ok := errors.AsType[*CloseError](err); ok {
		return nil, e
	}
	switch {
	case err != nil:
		return nil, &CloseError{CodePolicy, core.ReasonInternal, "the message could not be judged", err}
	case len(replacement) > MaxText:
		return nil, errTooBig
	case !utf8.Valid(replacement):
		return nil, errText
	case x.ctx.Err() != nil: // judged too late
		return nil, errOver
	}
	return replacement, nil
}

// binary hands on a frame of a binary message as it arrives, with another mask.
func (x *running) binary(h header) error {
	switch {
	case !x.Binary:
		return errOpaque
	case h.length > MaxBinary:
		return errBinary
	case x.ctx.Err() != nil: // the right to it has ended, and the close frame is on its way
		return errOver
	}
	mask := x.masks.next()
	change := both(h.mask, mask)
	head, left, offset := h.size, int(h.length), 0
	copy(x.client.window()[head-4:], mask[:])
	for {
		b := x.client.window()
		n := min(left, len(b)-head)
		p := b[:head+n]
		cipher(p[head:], change, offset)
		left, offset = left-n, offset+n
		x.client.take(len(p))
		first := -1
		if left == 0 {
			first = len(p)
		}
		if err := x.send(p, first, left == 0); err != nil || left == 0 {
			if h.fin && err == nil {
				x.up.messages.Add(1)
			}
			return err
		}
		head = 0
		if err := x.client.fill(1, true, time.Time{}); err != nil {
			return err
		}
	}
}
