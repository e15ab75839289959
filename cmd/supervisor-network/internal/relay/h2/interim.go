package h2

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
)

// maxInterim bounds the interim responses to one request; the fields of all of them are
// no more than those of an answer may be.
const maxInterim = 16

// errInterim ends a request whose origin does not keep to that.
var errInterim = errors.New("the origin's interim responses are too many, or switch protocols")

// Interim is given an interim response, without what belongs to one hop, while the answer
// is awaited. A leave to send the body, 100, is net/http's, and not given.
type Interim func(status int, h http.Header) error

// interims tells somebody of interim responses. net/http has them on the goroutine that
// reads the connection for all its requests, and none of these shall wait for the client
// of another one; so that is told on a goroutine of its own, which the first of them
// begins.
type interims struct {
	tell Interim

	mu      sync.Mutex
	came    int // in number
	size    int // in bytes, as RFC 9113 section 6.5.2 counts them
	waiting []interim
	telling chan struct{} // closed when nobody tells any more; nil: nobody does
	over    bool          // the answer is there, or none comes
}

type interim struct {
	status int
	fields http.Header
}

func (i *interims) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{Got1xxResponse: i.got}
}

// got is called by net/http, with fields that are the callee's.
func (i *interims) got(status int, fields textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.came++
	for name, values := range fields {
		for _, v := range values {
			i.size += len(name) + len(v) + 32
		}
	}
	if i.came > maxInterim || i.size > maxResponseHead || status == http.StatusSwitchingProtocols {
		return errInterim
	}
	if i.over || status == http.StatusContinue {
		return nil
	}
	h := http.Header(fields)
	delete(h, "Content-Length") // of nothing
	i.waiting = append(i.waiting, interim{status, h})
	if i.telling == nil {
		i.telling = make(chan struct{})
		go i.run()
	}
	return nil
}

// run tells what waits, in its order. Whoever is told and fails will not get the answer
// either.
func (i *interims) run() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.waiting) > 0 {
		next := i.waiting[0]
		i.waiting = i.waiting[1:]
		i.mu.Unlock()
		err := i.tell(next.status, next.fields)
		i.mu.Lock()
		if err != nil {
			i.waiting, i.over = nil, true
		}
	}
	close(i.telling)
	i.telling = nil
}

// settle returns when everything that came is told; nothing is behind it.
func (i *interims) settle() {
	i.mu.Lock()
	i.over = true
	telling := i.telling
	i.mu.Unlock()
	if telling != nil {
		<-telling
	}
}
