package exchange

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
)

// maxInterim bounds the interim responses of one exchange.
const maxInterim = 16

// receive passes on interim responses and then the final one.
func (x *running) receive() error {
	for range maxInterim + 1 {
		resp, err := x.readHead()
		if err != nil {
			return err
		}
		if resp.Status == 101 {
			return x.switched(resp)
		}
		if resp.Status >= 200 {
			return x.respond(resp)
		}
		if x.Request.Minor == 0 {
			continue // HTTP/1.0 knows no interim responses
		}
		if err := x.writeHead(resp, http1.Outgoing{}); err != nil {
			return err
		}
		if x.Client.W.Flush() != nil {
			return errClientGone
		}
	}
	return invalid("too many interim responses")
}

func (x *running) switched(resp *http1.Response) error {
	if !x.Upgrades {
		return invalid("it switches protocols, which nobody asked for")
	}
	kept := *resp
	kept.Fields = slices.Clone(resp.Fields)
	x.result.Status, x.result.Switched, x.result.Origin = resp.Status, &kept, x.Exchange.Origin
	return nil
}

func (x *running) readHead() (*http1.Response, error) {
	if _, err := x.Origin.R.Peek(1); err != nil {
		return nil, x.upstream(err)
	}
	x.result.Heard = true // whatever it is, and however it ends
	head, err := http1.ReadHead(x.Origin.R, http1.MaxResponseHead)
	if err != nil {
		return nil, x.upstream(err)
	}
	x.response.Fields = x.fields[:0]
	resp, err := http1.ParseResponseIn(&x.response, head, x.Request.Method)
	if err != nil {
		return nil, x.upstream(err)
	}
	if cap(resp.Fields) <= maxKeptFields {
		x.fields = resp.Fields
	}
	if x.Clean != nil {
		x.Clean.Head(resp)
	}
	return resp, nil
}

func (x *running) writeHead(resp *http1.Response, out http1.Outgoing) error {
	buf := heads.Get().(*[]byte)
	b := http1.AppendResponse((*buf)[:0], resp, out)
	_, err := x.Client.W.Write(b)
	*buf = b[:0]
	heads.Put(buf)
	if err != nil {
		return errClientGone
	}
	return nil
}

// respond passes the final response on.
func (x *running) respond(resp *http1.Response) error {
	whole := x.whole()
	x.result.Status = resp.Status
	cleaned, framing, err := x.cleaned(resp)
	if err != nil {
		return err
	}
	out := http1.Outgoing{Framing: framing}
	if x.Request.Minor == 0 && out.Framing.Kind == http1.Chunked {
		out.Framing.Kind = http1.UntilClose // HTTP/1.0 knows no chunks
	}
	x.result.Unframed = out.Framing.Kind == http1.UntilClose
	goesOn := whole && !x.result.Unframed && keepsAlive(x.Request) && !x.Last()
	out.Close = !goesOn
	if out.Framing.Kind == http1.NoBody && resp.Status != 204 {
		// The answer to HEAD, and 304, tell the length of what they do not carry.
		if length, stated := http1.ContentLength(resp.Fields); stated {
			out.ZeroLength, out.Framing.Length = true, length
		}
	}
	if x.trails {
		out.Add = http1.Announce(resp.Fields.Trailing())
	}
	heed(x.Origin, resp.Fields)
	x.responding.Store(true)
	if err := x.writeHead(resp, out); err != nil {
		return err
	}
	n, err := x.copyContent(resp, cleaned, out.Framing.Kind == http1.Chunked)
	x.result.Down = n
	if err != nil {
		return err
	}
	x.result.ClientGoesOn = goesOn
	x.result.OriginGoesOn = whole && !x.last && !resp.Close && resp.Framing.Kind != http1.UntilClose
	return nil
}

// heed takes an origin at its word that it ends the connection when that is not used for
// some time (RFC 2068 section 19.7.1.1). Clients that do, and get no word of it from us,
// would lose what they ask for in that moment.
func heed(origin *pool.Conn, fields http1.Fields) {
	value, n := fields.Get("Keep-Alive")
	if n == 0 {
		return
	}
	for parameter := range strings.SplitSeq(value, ",") {
		name, seconds, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if n, err := strconv.ParseUint(seconds, 10, 16); err == nil && strings.EqualFold(name, "timeout") {
			origin.KeptFor = time.Duration(n) * time.Second
		}
	}
}

// copyContent passes the content on. What is wrong with it is the origin's fault, unless
// the client does not take it.
func (x *running) copyContent(resp *http1.Response, cleaned io.Reader, chunks bool) (n int64, err error) {
	switch {
	case cleaned != nil:
		n, err = pump(x.Client.W, cleaned, chunks, x.trailers)
	case x.result.Unframed:
		n, err = http1.CopyContent(x.Client.W, x.Origin.R, resp.Framing)
	default:
		n, err = http1.CopyBody(x.Client.W, x.Origin.R, resp.Framing)
	}
	if _, toClient := errors.AsType[*http1.WriteError](err); err != nil && !toClient {
		err = x.upstream(err)
	}
	return n, err
}

// keepsAlive reports whether the client's connection goes on after its request.
func keepsAlive(r *http1.Request) bool {
	return r.Minor == 1 && !r.Fields.Has("Connection", "close")
}
