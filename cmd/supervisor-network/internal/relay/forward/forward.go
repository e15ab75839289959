// Package forward carries one absolute-form request to its origin and one response
// back, and then closes both.
//
// It answers the threats of a second request hidden behind the first (nothing
// behind the framed body is ever sent) and of fields that belong to one hop (they
// stay here, with every field that Connection names). It does not decide and does
// not dial; both are done when it is called.
//
// Source: RFC 9110 sections 7.6, 10.1.1, 15.2; RFC 9112 sections 3.2.2, 6, 9.
package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// via is how this proxy names itself to origins.
const via = "1.1 splitpod"

// Exchange is one request and its response.
type Exchange struct {
	Client   *net.TCPConn
	Reader   *bufio.Reader // of Client, just behind the request's head
	Request  *http1.Request
	Target   http1.Target
	Upstream *net.TCPConn
	// Idle ends an exchange in which nothing moved in either direction.
	Idle time.Duration
}

// running is an Exchange under way.
type running struct {
	Exchange
	watch      *idle
	responding atomic.Bool // the final response has begun
	closes     bool        // the response to the client ends with the connection
}

// Stats is what an exchange moved.
type Stats struct {
	Up, Down int64 // body bytes
	// Answered says that the client may have got a part of the final response, so
	// that no other answer may be written.
	Answered bool
}

// Do runs the exchange. Its error is a *http1.SyntaxError whose status can be
// answered while Stats.Answered is false. A complete response is followed by the
// end of the connection to the client.
func Do(ctx context.Context, exchange Exchange) (Stats, error) {
	x := &running{Exchange: exchange, watch: newIdle(exchange)}
	defer x.watch.stop()
	stop := context.AfterFunc(ctx, func() {
		_ = x.Client.SetLinger(0) // a cut response must not look like a complete one
		x.Client.Close()
		x.Upstream.Close()
	})
	defer stop()
	var stats Stats
	sent := make(chan error, 1)
	go func() {
		n, err := x.send()
		stats.Up = n
		if blameClient(err) && !x.responding.Load() {
			// The origin waits for the rest. A reset tells it that none comes.
			_ = x.Upstream.SetLinger(0)
			x.Upstream.Close()
		}
		sent <- err
	}()
	down, err := x.receive()
	// The response is over, or failed: whatever the client still sends goes nowhere.
	_ = x.Upstream.Close()
	_ = x.Client.SetReadDeadline(time.Unix(1, 0))
	sendErr := <-sent
	stats.Down, stats.Answered = down, x.responding.Load()
	x.watch.stop() // from here on the deadlines are set by others
	switch {
	case err == nil:
		linger(x.Client)
		return stats, nil
	case x.closes:
		_ = x.Client.SetLinger(0) // only a reset tells this response from a complete one
	}
	return stats, x.fault(err, sendErr)
}

var errClientGone = &http1.SyntaxError{Status: 400, Reason: core.ReasonClientClosed, Detail: "the connection ended before the exchange was over"}

// blameClient reports whether the request ended before its framing did.
func blameClient(sendErr error) bool {
	_, toOrigin := errors.AsType[*http1.WriteError](sendErr)
	return sendErr != nil && !toOrigin
}

// fault says what to answer: when the request was never complete, that is why there
// is no response.
func (x *running) fault(err, sendErr error) error {
	switch {
	case x.responding.Load() || !blameClient(sendErr):
		return err
	case errors.Is(sendErr, http1.ErrBody):
		return &http1.SyntaxError{Status: 400, Reason: core.ReasonBadRequest, Detail: sendErr.Error()}
	case x.watch.expired():
		return &http1.SyntaxError{Status: 408, Reason: core.ReasonRequestTimeout, Detail: "the request body did not arrive in time"}
	case errors.Is(sendErr, os.ErrDeadlineExceeded):
		return err // receive failed first, and ended the sending
	default:
		return errClientGone
	}
}

// linger ends the connection to the client so that the response arrives: a close
// with unread bytes is a reset, and a reset overtakes what the client has not read.
func linger(client *net.TCPConn) {
	if client.CloseWrite() != nil {
		return
	}
	_ = client.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 4096)
	for range 256 {
		if _, err := client.Read(buf); err != nil {
			return
		}
	}
}

// send writes the head anew and exactly the body behind it.
func (x *running) send() (int64, error) {
	w := bufio.NewWriterSize(x.watch.writer(x.Upstream), 4096)
	path := x.Target.Path + x.Target.Query
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: %s\r\n", x.Request.Method, path, x.Target.Authority(80))
	drop := append(x.Request.Fields.Hop(), "host", "content-length")
	passed := ""
	for _, f := range x.Request.Fields.Without(drop...) {
		if strings.EqualFold(f.Name, "Via") {
			passed += f.Value + ", "
			continue
		}
		fmt.Fprintf(w, "%s: %s\r\n", f.Name, f.Value)
	}
	fmt.Fprintf(w, "Via: %s%s\r\nConnection: close\r\n", passed, via)
	writeFraming(w, x.Request.Framing, hasLength(x.Request.Fields))
	fmt.Fprint(w, "\r\n")
	if err := w.Flush(); err != nil { // every write error comes back here
		return 0, &http1.WriteError{Err: err}
	}
	return http1.CopyBody(w, x.Reader, x.Request.Framing)
}

func hasLength(f http1.Fields) bool {
	_, n := f.Get("Content-Length")
	return n > 0
}

func writeFraming(w io.Writer, f http1.Framing, zero bool) {
	switch {
	case f.Kind == http1.Chunked:
		fmt.Fprint(w, "Transfer-Encoding: chunked\r\n")
	case f.Kind == http1.Length || zero:
		fmt.Fprintf(w, "Content-Length: %d\r\n", f.Length)
	}
}

// maxInterim bounds the interim responses of one exchange.
const maxInterim = 16

// receive passes on interim responses and then the final one, and returns how many
// bytes of content that had.
func (x *running) receive() (int64, error) {
	r := bufio.NewReaderSize(x.watch.reader(x.Upstream), 4096)
	w := bufio.NewWriterSize(x.watch.writer(x.Client), 4096)
	for range maxInterim + 1 {
		resp, err := x.readHead(r)
		if err != nil {
			return 0, err
		}
		if resp.Status >= 200 {
			x.responding.Store(true)
			return x.respond(w, r, resp)
		}
		if x.Request.Minor == 0 {
			continue // HTTP/1.0 knows no interim responses
		}
		writeHead(w, resp)
		if err := w.Flush(); err != nil {
			return 0, errClientGone
		}
	}
	return 0, invalid(errors.New("too many interim responses"))
}

func (x *running) readHead(r *bufio.Reader) (*http1.Response, error) {
	head, err := http1.ReadHead(r, http1.MaxResponseHead)
	if err != nil {
		return nil, upstreamError(err, x.watch)
	}
	resp, err := http1.ParseResponse(head, x.Request.Method)
	if err != nil {
		return nil, invalid(err)
	}
	if resp.Status == 101 {
		return nil, invalid(errors.New("the origin switches protocols, which nobody asked for"))
	}
	return resp, nil
}

// respond passes the final response on.
func (x *running) respond(w *bufio.Writer, r *bufio.Reader, resp *http1.Response) (int64, error) {
	framing := resp.Framing
	if x.Request.Minor == 0 && framing.Kind == http1.Chunked {
		resp.Framing.Kind = http1.UntilClose // HTTP/1.0 knows no chunks
	}
	x.closes = resp.Framing.Kind == http1.UntilClose
	writeHead(w, resp)
	if x.closes {
		return http1.CopyContent(w, r, framing)
	}
	return http1.CopyBody(w, r, framing)
}

func writeHead(w io.Writer, resp *http1.Response) {
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", resp.Status, resp.Phrase)
	// Alt-Svc would send the client to a protocol that does not pass here.
	drop := append(resp.Fields.Hop(), "content-length", "alt-svc")
	for _, f := range resp.Fields.Without(drop...) {
		fmt.Fprintf(w, "%s: %s\r\n", f.Name, f.Value)
	}
	if resp.Status >= 200 {
		writeLength(w, resp)
		fmt.Fprint(w, "Connection: close\r\n")
	}
	fmt.Fprint(w, "\r\n")
}

// writeLength writes the framing of a final response. The answer to HEAD, and 304,
// tell the length of what they do not carry; 204 never has one.
func writeLength(w io.Writer, resp *http1.Response) {
	if resp.Framing.Kind != http1.NoBody {
		writeFraming(w, resp.Framing, false)
		return
	}
	if length, n := resp.Fields.Get("Content-Length"); n > 0 && resp.Status != 204 {
		fmt.Fprintf(w, "Content-Length: %s\r\n", length)
	}
}

func invalid(err error) error {
	detail := "the origin's response is malformed"
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		detail += ": " + e.Detail
	} else {
		detail += ": " + err.Error()
	}
	return &http1.SyntaxError{Status: 502, Reason: core.ReasonUpstreamInvalid, Detail: detail}
}

func upstreamError(err error, watch *idle) error {
	if _, ok := errors.AsType[*http1.SyntaxError](err); ok {
		return invalid(err)
	}
	if watch.expired() || errors.Is(err, os.ErrDeadlineExceeded) {
		return &http1.SyntaxError{Status: 504, Reason: core.ReasonUpstreamTimeout, Detail: "the origin did not answer in time"}
	}
	return &http1.SyntaxError{Status: 502, Reason: core.ReasonUpstreamInvalid, Detail: "the origin closed the connection without a complete response"}
}
