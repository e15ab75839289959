package http2

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/pkg/core"
)

// code is a gRPC status.
type code int

const (
	cancelled         code = 1
	unknown           code = 2
	deadlineExceeded  code = 4
	permissionDenied  code = 7
	resourceExhausted code = 8
	unimplemented     code = 12
	internal          code = 13
	unavailable       code = 14
	unauthenticated   code = 16
)

// codeOf is the gRPC project's reading of HTTP statuses. The statuses with which a
// proxy says that it will not carry a request are denials.
func codeOf(status int) code {
	switch status {
	case http.StatusBadRequest:
		return internal
	case http.StatusUnauthorized:
		return unauthenticated
	case http.StatusForbidden, http.StatusMisdirectedRequest:
		return permissionDenied
	case http.StatusNotFound:
		return unimplemented
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return resourceExhausted
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return unavailable
	default:
		return unknown
	}
}

// failed is the status of a call that failed with c, where that is for err. An origin whose
// client's time is over resets the stream, often a moment before the client's own clock says
// so: that is no reason to call again. With what else an origin resets a stream, its clients
// have statuses for.
func (s *Stream) failed(c code, err error) code {
	if c != unavailable {
		return c
	}
	if limit, ok := timeout(s.r.Header.Get("Grpc-Timeout")); ok && time.Since(s.watch.start) >= limit {
		return deadlineExceeded
	}
	if reset, ok := errors.AsType[http2.StreamError](err); ok {
		return codeOfReset(reset.Code)
	}
	return c
}

// codeOfReset is the gRPC project's reading of resets.
func codeOfReset(c http2.ErrCode) code {
	switch c {
	case http2.ErrCodeRefusedStream:
		return unavailable
	case http2.ErrCodeCancel:
		return cancelled
	case http2.ErrCodeEnhanceYourCalm:
		return resourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return permissionDenied
	default:
		return internal
	}
}

// timeout reads a call's time: up to eight digits and a unit.
func timeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}[s[len(s)-1]]
	if ok && n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, ok
}

const grpcType, webType = "application/grpc", "application/grpc-web"

// isGRPC accepts what servers do: the type alone, with a codec, or with parameters.
func isGRPC(contentType string) bool {
	t := strings.ToLower(contentType)
	for _, known := range []string{grpcType, webType, webType + "-text"} {
		if rest, ok := strings.CutPrefix(t, known); ok && (rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == ' ') {
			return true
		}
	}
	return false
}

// isWeb tells gRPC-web from gRPC.
func isWeb(contentType string) bool {
	return isGRPC(contentType) && strings.HasPrefix(strings.ToLower(contentType), webType)
}

// denyCall answers with trailers only: the one form in which a gRPC client finds the
// reason.
func (s *Stream) denyCall(h http.Header, status int, reason core.Reason, detail string) {
	h.Set("Content-Type", grpcType)
	if s.Web {
		h.Set("Content-Type", webType+"+proto")
	}
	h.Set("Grpc-Status", strconv.Itoa(int(s.failed(codeOf(status), s.lost))))
	h.Set("Grpc-Message", percentEncode(string(reason)+": "+detail))
	s.w.WriteHeader(http.StatusOK)
}

// percentEncode writes a message as PROTOCOL-HTTP2.md wants it: printable ASCII
// stands for itself, but for the percent sign.
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
