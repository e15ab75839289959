package websocket

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// Code is the status code of a close frame.
type Code uint16

// The codes that this side sends, and two that stand for what was not sent.
const (
	CodeGoingAway     Code = 1001
	CodeProtocol      Code = 1002
	CodeNone          Code = 1005 // a close frame without a code; never sent
	CodeAbnormal      Code = 1006 // no close frame; never sent
	CodeInvalidText   Code = 1007
	CodePolicy        Code = 1008
	CodeTooBig        Code = 1009
	CodePolicyChanged Code = 1012
	CodeCapacity      Code = 1013
)

// maxReason is what fits beside the code in a control frame.
const maxReason = maxControl - 2

// CloseError is why this side ends a session. Judge returns one, or one is the cause
// of the context, to say how the client is told. Detail goes to the client, up to 123
// bytes of it, and names the rule, never what broke it.
//
// A code that may not be sent, zero among them, is sent as 1008.
type CloseError struct {
	Code   Code
	Reason core.Reason
	Detail string
	Err    error // what went wrong behind it, for the record only
}

// Error implements error.
func (e *CloseError) Error() string {
	return fmt.Sprintf("close %d, %s: %s", e.Code, e.Reason, e.Detail)
}

// Unwrap implements errors.Unwrap.
func (e *CloseError) Unwrap() error { return e.Err }

func refusal(code Code, reason core.Reason, detail string) error {
	return &CloseError{Code: code, Reason: reason, Detail: detail}
}

func broken(detail string) error { return refusal(CodeProtocol, core.ReasonBadRequest, detail) }

// The rules of frames.
var (
	errLength   = broken("a frame's length has its shortest form, below 2^63")
	errReserved = broken("a reserved bit is set that no agreed extension gives a meaning")
	errOpcode   = broken("the opcode is reserved")
	errControl  = broken("a control frame is whole and at most 125 bytes long")
	errMask     = broken("a client's frames are masked, a server's are not")
	errSequence = broken("a continuation follows the beginning of its message, and nothing else does")
	errClose    = broken("a close frame is empty or has a valid code")
	errReason   = refusal(CodeInvalidText, core.ReasonBadRequest, "the reason of a close frame is UTF-8")
	errBinary   = broken("a binary frame is at most 16 MiB long")
	errFrames   = broken("a text message has at most 4096 fragments")
	errSlow     = refusal(CodeProtocol, core.ReasonRequestTimeout, "the frame or message did not arrive in time")
	errDeflate  = broken("the compressed message cannot be inflated by itself")
	errText     = refusal(CodeInvalidText, core.ReasonBadRequest, "a text message is UTF-8")
	errTooBig   = refusal(CodeTooBig, core.ReasonBodyTooLarge, "a text message is at most 4 MiB long")
	errOpaque   = refusal(CodePolicy, core.ReasonPolicyDenied, "binary messages are not permitted here")
	errCrowded  = refusal(CodeCapacity, core.ReasonTooManyBodies, "too much of messages and bodies is held at this moment to be read as a whole; try again")
	errFull     = refusal(CodeCapacity, core.ReasonTooManyConnections, "too many messages are being assembled")
)

func (c Code) sendable() bool {
	return c >= 1000 && c <= 1003 || c >= 1007 && c <= 1014 || c >= 3000 && c <= 4999
}

// readClose returns the code of a close frame's payload. Its rules are RFC 6455
// sections 5.5.1 and 7.4.
func readClose(p []byte) (Code, error) {
	if len(p) == 0 {
		return CodeNone, nil
	}
	if len(p) == 1 {
		return 0, errClose
	}
	code := Code(binary.BigEndian.Uint16(p))
	if !code.sendable() {
		return 0, errClose
	}
	if !utf8.Valid(p[2:]) {
		return 0, errReason
	}
	return code, nil
}

// closeFrame makes a close frame, masked when mask is not nil.
func closeFrame(code Code, reason string, mask *[4]byte) []byte {
	reason = clip(strings.ToValidUTF8(reason, "?"))
	b := make([]byte, maxHeader, maxHeader+maxControl)
	b = append(binary.BigEndian.AppendUint16(b, uint16(code)), reason...)
	start := putHeader(b, bitFin|byte(opClose), len(b)-maxHeader, mask)
	if mask != nil {
		cipher(b[maxHeader:], *mask, 0)
	}
	return b[start:]
}

// clip cuts s to what a close frame holds, between two characters.
func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	n := maxReason
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
