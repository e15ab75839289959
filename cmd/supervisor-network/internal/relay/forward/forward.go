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

// Stats is what an exchange moved.
type Stats struct {
	Up, Down int64 // body bytes
	// Answered says that the client got at least a status line, so that no other
	// answer may be written.
	Answered bool
}

// Do runs the exchange. Its error is a *http1.SyntaxError whose status can be
// answered while Stats.Answered is false.
func Do(ctx context.Context, x Exchange) (Stats, error) {
	stop := context.AfterFunc(ctx, func() {
		x.Client.Close()
		x.Upstream.Close()
	})
	defer stop()
	var stats Stats
	sent := make(chan error, 1)
	watch := newIdle(x)
	defer watch.stop()
	go func() {
		n, err := x.send(watch)
		stats.Up = n
		sent <- err
	}()
	down, answered, err := x.receive(watch)
	// The response is over, or failed: whatever the client still sends goes nowhere.
	_ = x.Upstream.Close()
	_ = x.Client.SetReadDeadline(time.Unix(1, 0))
	sendErr := <-sent
	stats.Down, stats.Answered = down, answered
	if err != nil && !answered && errors.Is(sendErr, http1.ErrBody) {
		return stats, &http1.SyntaxError{Status: 400, Reason: core.ReasonBadRequest, Detail: sendErr.Error()}
	}
	return stats, err
}

// send writes the head anew and exactly the body behind it.
func (x Exchange) send(watch *idle) (int64, error) {
	w := bufio.NewWriterSize(watch.writer(x.Upstream), 4096)
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
	if _, err := w.WriteString("\r\n"); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
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

// receive passes on interim responses and then the final one.
func (x Exchange) receive(watch *idle) (n int64, answered bool, err error) {
	r := bufio.NewReaderSize(watch.reader(x.Upstream), 4096)
	w := bufio.NewWriterSize(watch.writer(x.Client), 4096)
	for range 16 { // interim responses of one exchange
		head, err := http1.ReadHead(r, http1.MaxResponseHead)
		if err != nil {
			return 0, answered, upstreamError(err, watch)
		}
		resp, err := http1.ParseResponse(head, x.Request.Method)
		if err != nil {
			return 0, answered, invalid(err)
		}
		if resp.Status == 101 {
			return 0, answered, invalid(errors.New("the origin switches protocols, which nobody asked for"))
		}
		x.writeHead(w, resp)
		answered = true
		if resp.Status < 200 {
			if err := w.Flush(); err != nil {
				return 0, true, err
			}
			continue
		}
		n, err = http1.CopyBody(w, r, resp.Framing)
		if err == nil {
			err = w.Flush()
		}
		return n, true, err
	}
	return 0, answered, invalid(errors.New("too many interim responses"))
}

func (x Exchange) writeHead(w io.Writer, resp *http1.Response) {
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", resp.Status, resp.Phrase)
	drop := append(resp.Fields.Hop(), "content-length")
	if resp.Framing.Kind == http1.NoBody {
		drop = resp.Fields.Hop() // HEAD and 304 tell the length of what they do not carry
	}
	for _, f := range resp.Fields.Without(drop...) {
		fmt.Fprintf(w, "%s: %s\r\n", f.Name, f.Value)
	}
	if resp.Status >= 200 {
		if resp.Framing.Kind != http1.NoBody {
			writeFraming(w, resp.Framing, false)
		}
		fmt.Fprint(w, "Connection: close\r\n")
	}
	fmt.Fprint(w, "\r\n")
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
