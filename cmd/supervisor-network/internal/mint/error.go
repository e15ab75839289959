package mint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/splitpod/splitpod/pkg/core"
)

// Kind is why a handshake with the workload failed. The zero value is no kind.
type Kind string

// The kinds.
const (
	SNIMismatch Kind = "sni_mismatch"  // the client names another host than its tunnel
	NoSNI       Kind = "no_sni"        // the client names no host in a tunnel to a name
	Version     Kind = "version"       // older than TLS 1.2
	EarlyData   Kind = "early_data"    // data before the handshake
	ALPN        Kind = "alpn"          // no protocol in common
	Untrusted   Kind = "untrusted"     // the client does not trust our CA, or expects a certain certificate
	Malformed   Kind = "malformed"     // not a TLS handshake, or a broken one
	Closed      Kind = "client_closed" // the client went away
	Timeout     Kind = "timeout"       // the client took too long
	Busy        Kind = "busy"          // too many new names
	Stopped     Kind = "stopped"       // the caller's context ended
	Internal    Kind = "internal"      // our own fault
)

// Error is a handshake with the workload that failed. Detail may be shown to it.
type Error struct {
	Kind   Kind
	Detail string
	Err    error // the cause, for the log; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Kind, e.Detail)
	}
	return fmt.Sprintf("%s: %s: %v", e.Kind, e.Detail, e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// Reason is the kind in the words of records.
func (e *Error) Reason() core.Reason {
	switch e.Kind {
	case SNIMismatch, NoSNI:
		return core.ReasonAuthorityMismatch
	case Version, EarlyData, ALPN, Malformed:
		return core.ReasonBadRequest
	case Untrusted, Closed:
		return core.ReasonClientClosed
	case Timeout:
		return core.ReasonRequestTimeout
	case Busy:
		return core.ReasonTooManyConnections
	case Stopped:
		return core.ReasonShutdown
	default:
		return core.ReasonInternal
	}
}

// explain says why the handshake ended with err.
func (a *attempt) explain(ctx context.Context, err error) *Error {
	switch {
	case a.refused != nil:
		a.refused.Err = err
		return a.refused
	case errors.Is(a.failed, ErrBusy):
		return a.fail(Busy, err, "too many new host names at one time; try again later")
	case a.failed != nil:
		return a.fail(Internal, a.failed, "no certificate could be made")
	case ctx.Err() != nil:
		return a.fail(Stopped, context.Cause(ctx), "the connection was ended during its TLS handshake")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a.fail(Timeout, err, "the TLS handshake was not complete in time")
	case closed(err):
		return a.fail(Closed, err, "the client closed the connection during its TLS handshake")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return a.rejected(op)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err.Error() == badRecordMAC.Error() {
		return a.fail(Untrusted, err, "the client ended the TLS handshake when it saw the sandbox's certificate; does it use the sandbox's CA bundle?")
	}
	return a.fail(Malformed, err, "the client's TLS handshake is broken")
}

// badRecordMAC is what crypto/tls makes of OpenSSL clients that refuse a certificate
// in TLS 1.3: their alert comes in the clear, where an encrypted record is due.
const badRecordMAC = tls.AlertError(20)

// closed is how crypto/tls and the kernel say that the other end is gone.
func closed(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// Alerts of clients that do not take our certificate: bad, unsupported, expired and
// unknown certificate, unknown authority (RFC 8446 section 6.2).
var distrust = []tls.AlertError{42, 43, 45, 46, 48}

// rejected explains an alert of the client's. Its type is crypto/tls's own; the text
// of a number is the same as that of tls.AlertError.
func (a *attempt) rejected(op *net.OpError) *Error {
	text := op.Err.Error()
	for _, alert := range distrust {
		if text == alert.Error() {
			return a.fail(Untrusted, op, "the client does not take the sandbox's certificate (%s); does it use the sandbox's CA bundle?", text)
		}
	}
	return a.fail(Malformed, op, "the client ended the TLS handshake (%s)", text)
}
