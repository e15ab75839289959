package exchange

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// through runs one exchange with hooks: the request is text, the origin answers reply
// when it has read the head.
func through(t *testing.T, text, reply string, change func(*Exchange)) (toOrigin, toClient string, err error) {
	t.Helper()
	origin, up := pair(t)
	client, proxy := pair(t)
	kept, err := pool.New(pool.Config{}).Destination(decide.Permit{}, false).Wrap(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(strings.NewReader(text))
	head, err := http1.ReadHead(r, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http1.ParseRequest(head)
	if err != nil {
		t.Fatal(err)
	}
	target, err := req.Absolute()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		in := bufio.NewReader(io.TeeReader(origin, &b))
		head, err := http1.ReadHead(in, 1<<16)
		if err == nil {
			if req, err := http1.ParseRequest(head); err == nil {
				_, _ = io.Copy(io.Discard, http1.NewBodyReader(in, req.Framing))
			}
		}
		_, _ = io.WriteString(origin, reply)
		_ = origin.CloseWrite()
		_, _ = io.Copy(io.Discard, in)
		got <- b.String()
	}()
	watch := relay.NewWatch(patience, func() {})
	x := &Exchange{Client: &Client{R: r, W: bufio.NewWriter(proxy), Interrupt: func() {}, Resume: func() {}}, Request: req, Target: target, DefaultPort: 80, Origin: kept, Watch: watch, Last: func() bool { return false }}
	change(x)
	_, err = Do(x)
	watch.Stop()
	up.Close()
	proxy.Close()
	answer, _ := io.ReadAll(client)
	return <-got, string(answer), err
}

// upper changes a body as it passes.
type upper struct{ r io.Reader }

func (u upper) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	copy(p, bytes.ToUpper(p[:n]))
	return n, err
}

var errStop = errors.New("stop")

func TestABodyGoesThroughWhatIsPutBetween(t *testing.T) {
	for name, body := range map[string]string{"a length": "Content-Length: 5\r\n\r\nhello", "chunks": "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"} {
		toOrigin, _, err := through(t, "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"+body, emptyReply, func(x *Exchange) {
			x.Body = func(r io.Reader) io.Reader { return upper{r} }
		})
		if err != nil || !strings.Contains(strings.ReplaceAll(toOrigin, "\r\n2\r\n", ""), "HELLO") {
			t.Errorf("%s: %q, %v", name, toOrigin, err)
		}
		toOrigin, _, err = through(t, "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"+body, "", func(x *Exchange) {
			x.Body = func(r io.Reader) io.Reader { return io.MultiReader(io.LimitReader(r, 3), failing{}) }
		})
		if err == nil || strings.Contains(toOrigin, "lo") || strings.HasSuffix(toOrigin, "0\r\n\r\n") {
			t.Errorf("%s that fails: the origin got %q, %v", name, toOrigin, err)
		}
		if _, _, err := through(t, "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", "", func(x *Exchange) {
			x.Body = func(r io.Reader) io.Reader { return io.LimitReader(r, 3) }
		}); err == nil {
			t.Error("a body that became shorter than it says was sent as complete")
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errStop }

// cleaning is a Cleaner that replaces SECRET.
type cleaning struct{ bodies, asLong, refuse bool }

func (cleaning) Head(r *http1.Response) {
	for i := range r.Fields {
		r.Fields[i].Value = strings.ReplaceAll(r.Fields[i].Value, "SECRET", "placeholder")
	}
}

func (c cleaning) Trailers(f http1.Fields) http1.Fields {
	r := http1.Response{Fields: f}
	c.Head(&r)
	return r.Fields
}

func (c cleaning) Body(resp *http1.Response, r io.Reader) (io.Reader, bool, error) {
	switch {
	case c.refuse:
		return nil, false, errUnread
	case c.asLong:
		return upper{r}, true, nil
	case !c.bodies:
		return nil, false, nil
	}
	resp.Fields = resp.Fields.Without("content-encoding")
	data, err := io.ReadAll(r)
	if err != nil {
		return io.MultiReader(bytes.NewReader(data), failing{}), false, nil
	}
	return strings.NewReader(strings.ReplaceAll(string(data), "SECRET", "placeholder")), false, nil
}

var errUnread = &http1.SyntaxError{Status: 502, Reason: core.ReasonUninspectedResponse, Detail: "it cannot be read"}

// TestWhatIsAsLongKeepsItsFraming however that says where a body ends.
func TestWhatIsAsLongKeepsItsFraming(t *testing.T) {
	for name, tc := range map[string]struct{ version, reply, want string }{
		"a length":           {"1.1", "Content-Length: 6\r\n\r\nsecret", "Content-Length: 6\r\n\r\nSECRET"},
		"chunks":             {"1.1", "Transfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n6\r\nSECRET\r\n0\r\n\r\n"},
		"until close":        {"1.1", "\r\nsecret", "Connection: close\r\n\r\nSECRET"},
		"HTTP/1.0":           {"1.0", "Content-Length: 6\r\n\r\nsecret", "Content-Length: 6\r\nConnection: close\r\n\r\nSECRET"},
		"HTTP/1.0 of chunks": {"1.0", "Transfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n", "Connection: close\r\n\r\nSECRET"},
	} {
		_, got, err := through(t, "GET http://a.test/ HTTP/"+tc.version+"\r\nHost: a.test\r\n\r\n", "HTTP/1.1 200 OK\r\n"+tc.reply, func(x *Exchange) { x.Clean = cleaning{asLong: true} })
		if want := "HTTP/1.1 200 OK\r\n" + tc.want; err != nil || got != want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, want)
		}
	}
}

// TestAnAnswerThatIsRefusedIsNotBegun, and says why.
func TestAnAnswerThatIsRefusedIsNotBegun(t *testing.T) {
	_, got, err := through(t, getHead, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET", func(x *Exchange) { x.Clean = cleaning{refuse: true} })
	if got != "" || !errors.Is(err, errUnread) {
		t.Errorf("the client got %q, %v", got, err)
	}
}

func TestResponsesAreCleaned(t *testing.T) {
	interim := "HTTP/1.1 103 Early Hints\r\nLink: SECRET\r\n\r\n"
	for name, tc := range map[string]struct{ version, reply, want string }{
		"a length":    {"1.1", interim + "HTTP/1.1 200 OK\r\nX: SECRET\r\nContent-Length: 6\r\n\r\nSECRET", "HTTP/1.1 103 Early Hints\r\nLink: placeholder\r\n\r\nHTTP/1.1 200 OK\r\nX: placeholder\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nplaceholder\r\n0\r\n\r\n"},
		"chunks":      {"1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nSEC\r\n3\r\nRET\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nplaceholder\r\n0\r\n\r\n"},
		"a coding":    {"1.1", "HTTP/1.1 200 OK\r\nContent-Encoding: x\r\nContent-Length: 6\r\n\r\nSECRET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nplaceholder\r\n0\r\n\r\n"},
		"until close": {"1.1", "HTTP/1.1 200 OK\r\n\r\nSECRET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nplaceholder\r\n0\r\n\r\n"},
		"HTTP/1.0":    {"1.0", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nplaceholder"},
		"no body":     {"1.1", "HTTP/1.1 204 No Content\r\nX: SECRET\r\n\r\n", "HTTP/1.1 204 No Content\r\nX: placeholder\r\n\r\n"},
	} {
		_, got, err := through(t, "GET http://a.test/ HTTP/"+tc.version+"\r\nHost: a.test\r\n\r\n", tc.reply, func(x *Exchange) { x.Clean = cleaning{bodies: true} })
		if err != nil || got != tc.want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, tc.want)
		}
	}
	_, got, err := through(t, getHead, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET", func(x *Exchange) { x.Clean = cleaning{} })
	if err != nil || !strings.HasSuffix(got, "Content-Length: 6\r\n\r\nSECRET") {
		t.Errorf("a body that is not cleaned: %q, %v", got, err)
	}
	_, got, err = through(t, getHead, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nSECRET", func(x *Exchange) { x.Clean = cleaning{bodies: true} })
	if err == nil || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("a cut body looks complete: %q, %v", got, err)
	}
}

// TestTrailersAreForWhoTakesThem: cleaned, and without those that a client might take for
// fields of the head. What breaks the framing of chunks ends the answer.
func TestTrailersAreForWhoTakesThem(t *testing.T) {
	const head, takes = "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n", "TE: gzip, trailers\r\n"
	reply := func(trailers string) string {
		return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n" + trailers + "\r\n"
	}
	for name, tc := range map[string]struct {
		head, trailers string
		want           string // behind the last chunk
		bad            bool
	}{
		"nobody":              {head, "X: 1\r\n", "", false},
		"somebody":            {head + takes, "X: 1\r\ny:\t2 \r\nX: 3\r\n", "X: 1\r\ny: 2\r\nX: 3\r\n", false},
		"HTTP/1.0":            {"GET http://a.test/ HTTP/1.0\r\nHost: a.test\r\n" + takes, "X: 1\r\n", "", false},
		"cleaned":             {head + takes, "X: a SECRET\r\n", "X: a placeholder\r\n", false},
		"what frames":         {head + takes, "Content-Length: 5\r\ntransfer_encoding: chunked\r\nTrailer: X\r\nX: 1\r\n", "X: 1\r\n", false},
		"what is of one hop":  {head + takes, "Connection: X\r\nKeep-Alive: 1\r\nUpgrade: h2c\r\nTE: x\r\nProxy-Authenticate: Basic\r\n", "", false},
		"what is of the head": {head + takes, "Set-Cookie: a=1\r\nWWW-Authenticate: Basic\r\nAlt-Svc: h3\r\nContent-Type: x\r\nHost: x\r\n", "", false},
		"no field":            {head + takes, "nothing\r\n", "", true},
		"a bare line feed":    {head + takes, "X: a\nSet-Cookie: b\r\n", "", true},
		"a bare return":       {head + takes, "X: a\rSet-Cookie: b\r\n", "", true},
		"without end":         {head + takes, strings.Repeat("X: 1\r\n", 2000), "", true},
	} {
		for _, clean := range []Cleaner{nil, cleaning{}, cleaning{bodies: true}} {
			if clean == nil && name == "cleaned" {
				continue
			}
			_, got, err := through(t, tc.head+"\r\n", reply(tc.trailers), func(x *Exchange) { x.Clean = clean })
			_, end, ended := strings.Cut(got, "abc\r\n0\r\n")
			switch {
			case (err != nil || !strings.Contains(got, "abc")) != tc.bad && clean != (cleaning{bodies: true}):
				t.Errorf("%s, %v: %v\n%q", name, clean, err, got)
			case tc.bad && ended, !tc.bad && !strings.Contains(tc.head, "1.0") && end != tc.want+"\r\n":
				t.Errorf("%s, %v: %q behind the body, want %q", name, clean, end, tc.want)
			}
		}
	}
}
