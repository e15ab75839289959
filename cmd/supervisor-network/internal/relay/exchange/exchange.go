// Package exchange carries one HTTP/1.1 request to its origin and the response back,
// on connections that go on afterwards.
//
// It answers the threats of a second request hidden behind the first (nothing
// behind the framed body is ever sent), of a response that the client takes for
// another request's (every interim response is told apart, and a connection that is
// out of step is closed), of fields that belong to one hop, and of an upgrade nobody
// asked for. It does not decide and does not dial; both are done when it is called.
//
// Invariant: an origin connection is used again only after exactly one request and
// one response; a client connection only when its request was read to the end.
//
// Source: RFC 9110 sections 7.6, 10.1.1, 15.2; RFC 9112 sections 3.2.2, 6, 9.
package exchange

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// Client is the workload's end of the exchange.
type Client struct {
	R *bufio.Reader // just behind the request's head
	W *bufio.Writer // empty
	// Interrupt makes a blocked read of R fail with os.ErrDeadlineExceeded, and
	// Resume takes that back.
	Interrupt, Resume func()
}

// Exchange is one request and its response.
type Exchange struct {
	Client      *Client
	Request     *http1.Request
	Target      http1.Target
	DefaultPort uint16 // of the scheme: left out of the Host field
	// Content is the whole body when it was read already; Read says so.
	Content []byte
	Read    bool
	// From is the client's body when something is announced behind it, which is passed on;
	// nil: nothing is.
	From *http1.BodyReader
	Via  string       // this proxy's Via entry; empty: none
	Omit []string     // request fields to leave out, lower-case
	Add  http1.Fields // request fields to add
	// Upgrades says that Add asks the origin to switch protocols.
	Upgrades bool
	Origin   *pool.Conn
	Watch    *relay.Watch
	// Body, when set, is put between the client's body and the origin. The caller knows
	// why its reader fails; the origin sees a request that is not complete.
	Body func(io.Reader) io.Reader
	// Clean, when set, changes what the origin answers.
	Clean Cleaner
	// Last makes the response say that the connection ends with it.
	Last func() bool
}

// Cleaner changes responses. It sees each head before anything of it is passed on.
type Cleaner interface {
	Head(*http1.Response)
	// Body returns what is read in the place of the content, and whether it is as long;
	// nil leaves the content as it is. An error, which is a *http1.SyntaxError, is the
	// answer instead. Body is asked before the head is passed on, in which it may change
	// the fields of the content's coding.
	Body(r *http1.Response, content io.Reader) (cleaned io.Reader, asLong bool, err error)
	// Trailers returns what is passed on of the fields behind the body.
	Trailers(http1.Fields) http1.Fields
}

// Result is what an exchange did.
type Result struct {
	Up, Down int64 // content bytes
	Status   int   // of the final response; 0: none came
	// Answered says that the client may have got a part of the final response, so
	// that no other answer may be written.
	Answered bool
	// Unframed says that only the end of the connection ends the response: when it is
	// cut, nothing but a reset tells it from a complete one.
	Unframed bool
	// Heard says that the origin sent something. When it has not, a kept connection
	// may just have been closed by it.
	Heard bool
	// ClientGoesOn and OriginGoesOn say whether the connections can carry another
	// exchange.
	ClientGoesOn, OriginGoesOn bool
	// Switched is the origin's 101 to an upgrade. It was not passed on, and Origin is
	// the connection, which goes on.
	Switched *http1.Response
	Origin   *pool.Conn
}

// running is an Exchange under way.
type running struct {
	Exchange
	result     Result
	up         atomic.Int64
	responding atomic.Bool // the final response has begun
	last       bool        // the origin is asked to close
	sending    *sending    // nil: the request was sent as a whole
	response   http1.Response
	content    *http1.BodyReader // of response; nil: it is copied as it is
	trails     bool              // the client reads what is behind that
	fields     http1.Fields      // memory for those of response
}

// maxKeptFields is how many fields of responses there is memory for between exchanges.
const maxKeptFields = 64

// runnings are those that are over: nothing of one is left behind its Result.
var runnings = sync.Pool{New: func() any { return new(running) }}

// heads are scratch for message heads.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// Do runs the exchange. Its error is a *http1.SyntaxError whose status can be
// answered while Result.Answered is false. The caller closes the origin's connection
// unless OriginGoesOn.
func Do(exchange *Exchange) (Result, error) {
	x := runnings.Get().(*running)
	defer func() {
		clear(x.fields[:cap(x.fields)]) // before others have it
		*x = running{fields: x.fields}
		runnings.Put(x)
	}()
	x.Exchange = *exchange
	x.Origin.Watch(x.Watch)
	if err := x.send(); err != nil {
		return x.result, x.sendFault(err)
	}
	err := x.receive()
	sendErr := x.settle(err != nil)
	x.result.Up = x.up.Load()
	x.result.Answered = x.responding.Load()
	if err != nil {
		return x.result, x.fault(err, sendErr)
	}
	if sendErr != nil {
		x.result.ClientGoesOn, x.result.OriginGoesOn = false, false
	}
	return x.result, nil
}

// sending is a body on its way to the origin.
type sending struct {
	done chan struct{}
	err  error // valid when done is closed
}

// sendFault is a request that could not be handed to the origin at all.
func (x *running) sendFault(err error) error {
	if x.Watch.Expired() {
		return timeout()
	}
	if _, err := x.Origin.R.Peek(1); origin.Explain(x.Target.Host, err) != nil { // it was said before the connection ended
		return x.upstream(err)
	}
	return &http1.SyntaxError{Status: 502, Reason: core.ReasonUpstreamUnreachable, Detail: "the origin closed the connection before the request was sent"}
}

// send writes the head anew and the body behind it. A body that is here already goes
// with the head in one write, if it is short; another one is copied by a goroutine.
func (x *running) send() error {
	buf := heads.Get().(*[]byte)
	out := http1.Outgoing{Framing: x.Request.Framing, Via: x.Via, Omit: x.Omit, Add: x.Add}
	if x.Request.TakesTrailers() && !x.Upgrades {
		out.Add = append(slices.Clip(x.Add), takesTrailers...)
	}
	if x.From != nil {
		out.Add = append(slices.Clip(out.Add), http1.Announce(x.Request.Trailer)...)
	} else if x.Read && out.Framing.Kind != http1.NoBody {
		out.Framing = http1.Framing{Kind: http1.Length, Length: int64(len(x.Content))}
	}
	out.ZeroLength = out.Framing.Kind == http1.NoBody && hasLength(x.Request.Fields)
	out.Close = http1.Last(x.Request.Method, out.Framing)
	x.last = out.Close
	b := http1.AppendRequest((*buf)[:0], x.Request, x.Target, x.DefaultPort, out)
	whole, here := x.body()
	large := len(whole) > maxScratch // held already, and not a second time
	if !large {
		b = append(b, whole...)
	}
	_, err := x.Origin.Write(b)
	if large && err == nil {
		_, err = x.Origin.Write(whole)
	}
	if cap(b) <= maxScratch {
		*buf = b[:0]
		heads.Put(buf)
	}
	if err != nil {
		return err
	}
	x.up.Store(int64(len(whole)))
	if here {
		if !x.Read {
			_, _ = x.Client.R.Discard(len(whole))
		}
		return nil
	}
	x.sending = &sending{done: make(chan struct{})}
	go func() {
		x.sending.err = x.copyBody()
		close(x.sending.done)
	}()
	return nil
}

// takesTrailers tell an origin that its trailers are read (RFC 9110 section 10.1.4).
var takesTrailers = http1.Fields{{Name: "TE", Value: "trailers"}, {Name: "Connection", Value: "TE"}}

// maxScratch is the largest head that is worth keeping the memory of.
const maxScratch = 64 << 10

// body is the whole body when it needs no waiting.
func (x *running) body() ([]byte, bool) {
	switch f := x.Request.Framing; {
	case x.From != nil:
		return nil, false
	case x.Read:
		return x.Content, true
	case f.Kind == http1.NoBody:
		return nil, true
	case x.Body == nil && f.Kind == http1.Length && f.Length <= int64(x.Client.R.Buffered()):
		part, err := x.Client.R.Peek(int(f.Length))
		return part, err == nil
	default:
		return nil, false
	}
}

func hasLength(f http1.Fields) bool {
	_, n := f.Get("Content-Length")
	return n > 0
}

func (x *running) copyBody() error {
	w := writers.Get().(*bufio.Writer)
	w.Reset(x.Origin)
	n, err := x.copyContentUp(w)
	w.Reset(nil)
	writers.Put(w)
	x.up.Store(n)
	if blamesClient(err) && !x.responding.Load() {
		x.Origin.Abort() // the origin waits for the rest; a reset tells it that none comes
	}
	return err
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4096) }}

// early is how long the rest of a request is awaited when its response is there
// already.
const early = 20 * time.Millisecond

// whole reports whether the request was sent as a whole, and waits a moment for it.
func (x *running) whole() bool {
	if x.sending == nil {
		return true
	}
	timer := time.NewTimer(early)
	defer timer.Stop()
	select {
	case <-x.sending.done:
		return x.sending.err == nil
	case <-timer.C:
		return false
	}
}

// settle ends the sending when the response is over, or failed: what the client
// still sends goes nowhere.
func (x *running) settle(failed bool) error {
	if x.sending == nil {
		return nil
	}
	select {
	case <-x.sending.done:
		if !failed {
			return x.sending.err
		}
	default:
	}
	x.Origin.Abort()
	x.Client.Interrupt()
	<-x.sending.done
	x.Client.Resume()
	return x.sending.err
}

// blamesClient reports whether the request ended before its framing did.
func blamesClient(sendErr error) bool {
	_, toOrigin := errors.AsType[*http1.WriteError](sendErr)
	return sendErr != nil && !toOrigin
}

// fault says what to answer: when the request was never complete, that is why there
// is no response.
func (x *running) fault(err, sendErr error) error {
	if x.responding.Load() || !blamesClient(sendErr) {
		return err
	}
	if why := BodyFault(sendErr, x.Watch.Expired()); why != nil {
		return why
	}
	return err // the response failed first, and ended the sending
}

// BodyFault is what a client is told, and why, whose request's body ended with err and
// not with its last byte; nil when whoever read it ended that. late says that the time
// for it was over.
func BodyFault(err error, late bool) error {
	switch {
	case errors.Is(err, http1.ErrBody):
		return &http1.SyntaxError{Status: 400, Reason: core.ReasonBadRequest, Detail: err.Error()}
	case late:
		return &http1.SyntaxError{Status: 408, Reason: core.ReasonRequestTimeout, Detail: "the request body did not arrive in time"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	default:
		return errClientGone
	}
}

var errClientGone = &http1.SyntaxError{Status: 400, Reason: core.ReasonClientClosed, Detail: "the connection ended before the exchange was over"}

func timeout() error {
	return &http1.SyntaxError{Status: 504, Reason: core.ReasonUpstreamTimeout, Detail: "the origin did not answer in time"}
}

func invalid(detail string) error {
	return &http1.SyntaxError{Status: 502, Reason: core.ReasonUpstreamInvalid, Detail: "the origin's response is malformed: " + detail}
}

// upstream turns what went wrong with the origin into an answer.
func (x *running) upstream(err error) error {
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok && e.Reason == core.ReasonUninspectedResponse {
		return e // of Clean, which says what it is
	} else if ok {
		return invalid(e.Detail)
	}
	if x.Watch.Expired() || errors.Is(err, os.ErrDeadlineExceeded) {
		return timeout()
	}
	if late := origin.Explain(x.Target.Host, err); late != nil && !x.result.Heard { // to the handshake, as of TLS 1.3
		return &http1.SyntaxError{Status: 502, Reason: late.Reason(), Detail: late.Detail}
	}
	return errBrokenOff
}

var errBrokenOff = &http1.SyntaxError{Status: 502, Reason: core.ReasonUpstreamInvalid, Detail: "the origin closed the connection without a complete response"}
