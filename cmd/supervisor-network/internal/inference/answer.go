package inference

import (
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference/usage"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/pkg/core"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 32 << 20

// Answer is a provider's answer. Its body ends within limits: one of events that is broken
// off ends with an event that says so, which is what a client can read, any other one with
// an error. The caller closes it.
type Answer struct {
	*http.Response
	Route  *Route
	Sealed *seal.Sealed // what was found of the key
	Sent   bool         // nothing of the call's body is kept any more

	ctx    context.Context
	cancel context.CancelCauseFunc
	late   *time.Timer
	stall  time.Duration // zero: late is for the whole answer
	events bool
	body   io.ReadCloser
	left   int64
	tail   []byte // what is left of the last event
	failed error
	tokens *usage.Meter

	once sync.Once
}

// newAnswer follows an answer whose head has come. late is what ends the call; one that
// streams is kept going by what comes of it instead.
func newAnswer(ctx context.Context, cancel context.CancelCauseFunc, late *time.Timer, stall time.Duration, from *http.Response, route *Route) *Answer {
	resp := new(*from) // or trailers would still come into it
	a := &Answer{Response: resp, Route: route, ctx: ctx, cancel: cancel, late: late, stall: stall, body: resp.Body, left: maxAnswer}
	if stall > 0 {
		late.Stop()
		a.late = time.AfterFunc(stall, func() { cancel(errStalled) })
		a.late.Stop()
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	a.events = media == "text/event-stream"
	a.tokens = usage.New(resp.Header.Get("Content-Type"))
	delete(resp.Header, "Set-Cookie") // those of one hop end with whoever writes the answer
	maps.DeleteFunc(resp.Header, func(name string, _ []string) bool {
		return !httpguts.ValidHeaderFieldName(name) // net/http lets them pass
	})
	if a.events { // it may end with one of ours
		resp.ContentLength = -1
		delete(resp.Header, "Content-Length")
	}
	resp.Trailer, resp.Body = nil, a
	return a
}

// Read implements io.Reader.
func (a *Answer) Read(p []byte) (int, error) {
	if a.failed != nil {
		return a.rest(p)
	}
	if a.stall > 0 { // how long the client takes is not the provider's doing
		a.late.Reset(a.stall)
	}
	n, err := a.body.Read(p)
	if a.stall > 0 {
		a.late.Stop()
	}
	if a.left -= int64(n); a.left < 0 {
		n, err = n+int(a.left), errTooLarge
	}
	_, _ = a.tokens.Write(p[:n]) // it does not fail
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	a.end(err)
	if n > 0 {
		return n, nil
	}
	return a.rest(p)
}

// What an answer of events says at its end, if that is not the provider's.
var (
	errTooLarge = errors.New("response size limit exceeded")
	errBroken   = errors.New("the provider's answer broke off")
	errEnded    = errors.New("the call was ended before its answer")
)

// end notes why the answer is over before its end.
func (a *Answer) end(err error) {
	switch cause := context.Cause(a.ctx); {
	case errors.Is(err, errTooLarge):
		a.failed = errTooLarge
	case errors.Is(cause, errStalled), errors.Is(cause, errLate):
		a.failed = cause
	case a.ctx.Err() != nil:
		a.failed = errEnded
	default:
		a.failed = errBroken
	}
	a.cancel(a.failed)
	a.tail = []byte("\n\ndata: {\"error\":{\"message\":\"" + a.failed.Error() + "\",\"type\":\"proxy_stream_error\"}}\n\n") // if it is of events
}

// rest is what comes behind the end.
func (a *Answer) rest(p []byte) (int, error) {
	if !a.events {
		return 0, a.failed
	}
	n := copy(p, a.tail)
	if a.tail = a.tail[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close implements io.Closer.
func (a *Answer) Close() error {
	a.once.Do(func() {
		a.late.Stop()
		_ = a.body.Close()
		a.cancel(nil)
	})
	return nil
}

// Failed says why the answer ended before its end, if it did: Read has told the client.
func (a *Answer) Failed() *Error {
	if a.failed == nil {
		return nil
	}
	e := &Error{Status: http.StatusBadGateway, Reason: core.ReasonUpstreamInvalid, Failed: true, Detail: "inference route " + a.Route.Name + ": " + a.failed.Error()}
	if errors.Is(a.failed, errStalled) || errors.Is(a.failed, errLate) {
		e.Reason = core.ReasonUpstreamTimeout
	}
	return e
}

// Tokens are what the provider has counted so far; 0: it did not say.
func (a *Answer) Tokens() (in, out uint64) {
	in, out, _ = a.tokens.Tokens()
	return in, out
}
