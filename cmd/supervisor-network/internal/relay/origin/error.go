package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Kind is why TLS with an origin failed. The zero value is no kind.
type Kind string

// The kinds.
const (
	Expired          Kind = "certificate_expired" // or not valid yet
	UnknownAuthority Kind = "unknown_authority"
	WrongHost        Kind = "wrong_host"
	BadCertificate   Kind = "bad_certificate"             // anything else about it
	ClientCert       Kind = "client_certificate_required" // which we never have
	Version          Kind = "version"                     // older than TLS 1.2
	NotTLS           Kind = "not_tls"
	NoProtocol       Kind = "no_protocol" // none of those that were offered
	Refused          Kind = "handshake_failed"
	Closed           Kind = "closed"
	Timeout          Kind = "timeout"
	Stopped          Kind = "stopped" // the caller's context ended
	Internal         Kind = "internal"
)

// Error is TLS with an origin that failed. Detail may be shown to the workload: it
// names the host it asked for and nothing else of ours.
type Error struct {
	Kind   Kind
	Detail string
	Err    error // the cause, for the log
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Kind, e.Detail, e.Err) }

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// Reason is the kind in the words of records.
func (e *Error) Reason() core.Reason {
	switch e.Kind {
	case Timeout:
		return core.ReasonUpstreamTimeout
	case Stopped:
		return core.ReasonShutdown
	case Internal:
		return core.ReasonInternal
	default:
		return core.ReasonUpstreamTLS
	}
}

var errTimeout = errors.New("the handshake took too long")

// Explain says what an error of the first read means, when it is the origin's late
// answer to the handshake: an alert. Any other error gives nil.
func Explain(host string, err error) *Error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == remote {
		return explain(host, err, false)
	}
	return nil
}

func explain(host string, err error, asked bool) *Error {
	kind, detail := classify(err, asked)
	return &Error{Kind: kind, Detail: host + ": " + detail, Err: err}
}

func classify(err error, asked bool) (Kind, string) {
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return verification(v.Err)
	}
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout, "the TLS handshake was not complete in time"
	case errors.Is(err, context.Canceled):
		return Stopped, "the connection was ended during the TLS handshake"
	case notTLS:
		return NotTLS, "the origin does not speak TLS on this port"
	case isOp && op.Op == remote:
		return alerted(op.Err.Error(), asked)
	case closed(err):
		return Closed, "the origin closed the connection during the TLS handshake"
	default:
		return Refused, "the TLS handshake failed"
	}
}

// closed is how crypto/tls and the kernel say that the other end is gone.
func closed(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func verification(err error) (Kind, string) {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, wrongHost := errors.AsType[x509.HostnameError](err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired && invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore):
		return Expired, "the origin's certificate is not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateOnly)
	case isInvalid && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return Expired, "the origin's certificate expired on " + invalid.Cert.NotAfter.UTC().Format(time.DateOnly)
	case unknown:
		return UnknownAuthority, "the origin's certificate is signed by an authority that is not trusted here"
	case wrongHost:
		return WrongHost, "the origin's certificate is for another host"
	default:
		return BadCertificate, "the origin's certificate is not valid"
	}
}

// remote is what crypto/tls calls an alert of the other side.
const remote = "remote error"

// Alerts (RFC 8446 section 6.2). crypto/tls has a type of its own for those that
// arrive; the text of a number is the same.
const (
	alertHandshakeFailure    tls.AlertError = 40
	alertBadCertificate      tls.AlertError = 42
	alertProtocolVersion     tls.AlertError = 70
	alertUnrecognizedName    tls.AlertError = 112
	alertCertificateRequired tls.AlertError = 116
	alertNoProtocol          tls.AlertError = 120
)

// alerted explains an alert. Only TLS 1.3 has one for a certificate that is missing;
// before, whoever asked for one means it with a general refusal.
func alerted(text string, asked bool) (Kind, string) {
	switch {
	case text == alertCertificateRequired.Error(), asked && (text == alertHandshakeFailure.Error() || text == alertBadCertificate.Error()):
		return ClientCert, "the origin demands a client certificate, which this sandbox does not have"
	case text == alertProtocolVersion.Error():
		return Version, "the origin does not speak TLS 1.2 or 1.3"
	case text == alertUnrecognizedName.Error():
		return Refused, "the origin does not serve this host"
	case text == alertNoProtocol.Error():
		return NoProtocol, "the origin speaks none of the protocols that were offered"
	default:
		return Refused, "the origin refused the TLS handshake (" + text + ")"
	}
}
