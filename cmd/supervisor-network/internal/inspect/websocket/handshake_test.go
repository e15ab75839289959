package websocket

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ==" // with its answer, RFC 6455 section 1.3
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// request makes a valid handshake and changes fields: "-Name" takes one out, "Name: v"
// sets it, "+Name: v" adds another.
func request(t *testing.T, line string, changes ...string) *http1.Request {
	t.Helper()
	fields := []string{"Host: ok.test", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: " + sampleKey, "Sec-WebSocket-Version: 13"}
	r, err := http1.ParseRequest([]byte(line + "\r\n" + strings.Join(changed(fields, changes), "\r\n") + "\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func changed(fields, changes []string) []string {
	for _, c := range changes {
		name, _, _ := strings.Cut(strings.TrimLeft(c, "-+"), ":")
		var out []string
		for _, f := range fields {
			if c[0] == '+' || !strings.HasPrefix(f, name+":") {
				out = append(out, f)
			}
		}
		if c[0] != '-' {
			out = append(out, strings.TrimPrefix(c, "+"))
		}
		fields = out
	}
	return fields
}

const line = "GET /chat HTTP/1.1"

func TestHandshakes(t *testing.T) {
	for _, c := range []struct {
		rule, line string
		changes    []string
		status     int // 0: valid
	}{
		{"the plainest", line, nil, 0},
		{"names without case", line, []string{"Upgrade: WebSocket", "Connection: keep-alive, upgrade"}, 0},
		{"websocket among others", line, []string{"Upgrade: h2c, websocket"}, 0},
		{"fields in two lines", line, []string{"Connection: keep-alive", "+Connection: Upgrade"}, 0},
		{"subprotocols in two lines", line, []string{"Sec-WebSocket-Protocol: a, b", "+Sec-WebSocket-Protocol: c"}, 0},
		{"a length of zero", line, []string{"Content-Length: 0"}, 0},
		{"POST", "POST /chat HTTP/1.1", nil, 400},
		{"HTTP/1.0", "GET /chat HTTP/1.0", nil, 400},
		{"a body", line, []string{"Content-Length: 1"}, 400},
		{"a chunked body", line, []string{"Transfer-Encoding: chunked"}, 400},
		{"no Upgrade", line, []string{"-Upgrade"}, 400},
		{"another protocol", line, []string{"Upgrade: websocket2"}, 400},
		{"no Connection", line, []string{"-Connection"}, 400},
		{"Connection without upgrade", line, []string{"Connection: keep-alive"}, 400},
		{"no key", line, []string{"-Sec-WebSocket-Key"}, 400},
		{"two keys", line, []string{"+Sec-WebSocket-Key: " + sampleKey}, 400},
		{"a key of 15 bytes", line, []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"}, 400},
		{"a key of 17 bytes", line, []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="}, 400},
		{"a key with spare bits", line, []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="}, 400},
		{"a key that is no base64", line, []string{"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="}, 400},
		{"no version", line, []string{"-Sec-WebSocket-Version"}, 426},
		{"version 8", line, []string{"Sec-WebSocket-Version: 8"}, 426},
		{"two versions", line, []string{"+Sec-WebSocket-Version: 13"}, 426},
		{"versions in a list", line, []string{"Sec-WebSocket-Version: 13, 8"}, 426},
		{"an answer in the request", line, []string{"Sec-WebSocket-Accept: " + sampleAccept}, 400},
		{"a subprotocol twice", line, []string{"Sec-WebSocket-Protocol: a, a"}, 400},
		{"a subprotocol that is no token", line, []string{"Sec-WebSocket-Protocol: a b"}, 400},
		{"a subprotocol of Kubernetes", line, []string{"Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io"}, 0},
		{"a subprotocol that is a slash", line, []string{"Sec-WebSocket-Protocol: /"}, 400},
		{"32 subprotocols", line, []string{"Sec-WebSocket-Protocol: " + numbered(32)}, 0},
		{"33 subprotocols", line, []string{"Sec-WebSocket-Protocol: " + numbered(33)}, 400},
		{"32 extensions", line, []string{"Sec-WebSocket-Extensions: " + numbered(32)}, 0},
		{"33 extensions", line, []string{"Sec-WebSocket-Extensions: " + numbered(33)}, 400},
		{"extensions without a name", line, []string{"Sec-WebSocket-Extensions: a,,b"}, 400},
		{"a parameter without a name", line, []string{"Sec-WebSocket-Extensions: a; =1"}, 400},
		{"a parameter without its value", line, []string{"Sec-WebSocket-Extensions: a; b="}, 400},
		{"a quoted value that is no token", line, []string{"Sec-WebSocket-Extensions: a; b=\"c d\""}, 400},
	} {
		t.Run(c.rule, func(t *testing.T) {
			h, err := Read(request(t, c.line, c.changes...))
			wantStatus(t, err, c.status)
			if (h == nil) != (c.status != 0) {
				t.Errorf("%+v with %v", h, err)
			}
		})
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ", p%d", i)
	}
	return b.String()[2:]
}

func wantStatus(t *testing.T, err error, status int) {
	t.Helper()
	e, ok := errors.AsType[*http1.SyntaxError](err)
	if (status == 0) != (err == nil) || err != nil && (!ok || e.Status != status || e.Detail == "") {
		t.Errorf("%v, want status %d", err, status)
	}
}

func TestWanted(t *testing.T) {
	for value, want := range map[string]bool{"websocket": true, "h2c, WebSocket": true, "h2c": false, "": false} {
		if got := Wanted(http1.Fields{{Name: "upgrade", Value: value}}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestOffersAreReducedWhereFramesAreParsed(t *testing.T) {
	const reduced = "permessage-deflate; client_no_context_takeover"
	for _, c := range []struct{ offer, want string }{
		{"", ""},
		{"permessage-deflate", ""},
		{"permessage-deflate; client_max_window_bits", ""}, // what browsers say
		{"permessage-deflate; client_no_context_takeover", reduced},
		{"permessage-deflate; client_no_context_takeover; client_max_window_bits", reduced},
		{"permessage-deflate; client_max_window_bits=15; client_no_context_takeover", reduced},
		{"Permessage-Deflate;Client_No_Context_Takeover", reduced},
		{"permessage-deflate; server_no_context_takeover; client_no_context_takeover", reduced + "; server_no_context_takeover"},
		{"permessage-deflate; server_no_context_takeover", ""},
		{"permessage-deflate; client_no_context_takeover=1", ""},
		{"permessage-deflate; client_no_context_takeover; server_no_context_takeover=1", ""},
		{"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
		{"permessage-deflate; client_no_context_takeover; client_max_window_bits=7", ""},
		{"permessage-deflate; client_no_context_takeover; server_max_window_bits=10", ""},
		{"permessage-deflate; client_no_context_takeover; unknown", ""},
		{"x-webkit-deflate-frame, permessage-deflate; client_no_context_takeover", reduced},
		{"permessage-deflate; unknown, permessage-deflate; client_no_context_takeover", reduced},
		{"permessage-bzip2; client_no_context_takeover", ""},
	} {
		var changes []string
		if c.offer != "" {
			changes = []string{"Sec-WebSocket-Extensions: " + c.offer, "Sec-WebSocket-Protocol: a,b"}
		}
		h, err := Read(request(t, line, changes...))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := h.Offer(true).Fields().Get("Sec-WebSocket-Extensions"); got != c.want {
			t.Errorf("%q is reduced to %q, want %q", c.offer, got, c.want)
		}
		if got, _ := h.Offer(false).Fields().Get("Sec-WebSocket-Extensions"); got != c.offer {
			t.Errorf("%q is not left alone: %q", c.offer, got)
		}
	}
}

// response makes a valid answer and changes fields as request does.
func response(t *testing.T, status string, changes ...string) *http1.Response {
	t.Helper()
	fields := []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: " + sampleAccept}
	r, err := http1.ParseResponse([]byte("HTTP/1.1 "+status+"\r\n"+strings.Join(changed(fields, changes), "\r\n")+"\r\n\r\n"), "GET")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnswers(t *testing.T) {
	const deflate = "permessage-deflate; client_no_context_takeover"
	for _, c := range []struct {
		rule, offer, status string
		changes             []string
		want                string // the extensions the client is told; "refused"
	}{
		{"the plainest", "", "101 Switching", nil, ""},
		{"an upgrade without case", "", "101 x", []string{"Upgrade: WebSocket", "Connection: upgrade"}, ""},
		{"a subprotocol that was offered", "", "101 x", []string{"Sec-WebSocket-Protocol: b"}, ""},
		{"a subprotocol in another case", "", "101 x", []string{"Sec-WebSocket-Protocol: B"}, "refused"},
		{"a subprotocol that was not offered", "", "101 x", []string{"Sec-WebSocket-Protocol: c"}, "refused"},
		{"both subprotocols", "", "101 x", []string{"Sec-WebSocket-Protocol: a, b"}, "refused"},
		{"a subprotocol twice", "", "101 x", []string{"Sec-WebSocket-Protocol: a", "+Sec-WebSocket-Protocol: b"}, "refused"},
		{"200", "", "200 OK", nil, "refused"},
		{"no Accept", "", "101 x", []string{"-Sec-WebSocket-Accept"}, "refused"},
		{"another key's Accept", "", "101 x", []string{"Sec-WebSocket-Accept: AAAALMBiTxaQ9kYGzzhZRbK+xOo="}, "refused"},
		{"two Accepts", "", "101 x", []string{"+Sec-WebSocket-Accept: " + sampleAccept}, "refused"},
		{"another protocol", "", "101 x", []string{"Upgrade: h2c"}, "refused"},
		{"two protocols", "", "101 x", []string{"Upgrade: websocket, h2c"}, "refused"},
		{"no Connection", "", "101 x", []string{"-Connection"}, "refused"},
		{"deflate that was not offered", "", "101 x", []string{"Sec-WebSocket-Extensions: " + deflate}, "refused"},
		{"deflate as offered", deflate, "101 x", []string{"Sec-WebSocket-Extensions: " + deflate}, deflate},
		{"deflate with memory, which the client does not use", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate"}, deflate},
		{"deflate in quotes", deflate, "101 x", []string{`Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="10"`}, deflate + "; server_max_window_bits=10"},
		{"a server without memory of its own accord", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"}, deflate + "; server_no_context_takeover"},
		{"a server with memory that was asked to have none", deflate + "; server_no_context_takeover", "101 x", []string{"Sec-WebSocket-Extensions: " + deflate}, "refused"},
		{"a server without memory as asked", deflate + "; server_no_context_takeover", "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"}, deflate + "; server_no_context_takeover"},
		{"no deflate although offered", deflate, "101 x", nil, ""},
		{"a window of 8", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8"}, deflate + "; server_max_window_bits=8"},
		{"a window of 15", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15"}, deflate + "; server_max_window_bits=15"},
		{"a window of 7", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7"}, "refused"},
		{"a window of 16", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16"}, "refused"},
		{"a window of 08", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=08"}, "refused"},
		{"a window of no size", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits"}, "refused"},
		{"a window for the client", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10"}, "refused"},
		{"an unknown parameter", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; x"}, "refused"},
		{"a parameter twice", deflate, "101 x", []string{"Sec-WebSocket-Extensions: " + deflate + "; client_no_context_takeover"}, "refused"},
		{"a value where none is", deflate, "101 x", []string{"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover=1"}, "refused"},
		{"deflate twice", deflate, "101 x", []string{"Sec-WebSocket-Extensions: " + deflate, "+Sec-WebSocket-Extensions: " + deflate}, "refused"},
		{"another extension", deflate, "101 x", []string{"Sec-WebSocket-Extensions: x"}, "refused"},
		{"no list", deflate, "101 x", []string{"Sec-WebSocket-Extensions: a,,"}, "refused"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			changes := []string{"Sec-WebSocket-Protocol: a, b"}
			if c.offer != "" {
				changes = append(changes, "Sec-WebSocket-Extensions: "+c.offer)
			}
			h, err := Read(request(t, line, changes...))
			if err != nil {
				t.Fatal(err)
			}
			a, err := h.Offer(true).Check(response(t, c.status, c.changes...))
			if c.want == "refused" {
				wantStatus(t, err, 502)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _ := a.Fields().Get("Sec-WebSocket-Extensions")
			if got != c.want || a.Deflate != (c.want != "") {
				t.Errorf("the client is told %q, deflate is %v", got, a.Deflate)
			}
			if accept, _ := a.Fields().Get("Sec-WebSocket-Accept"); accept != sampleAccept {
				t.Errorf("accept %q", accept)
			}
		})
	}
}

// A session that nobody parses may use any extension that the client offered.
func TestUnparsedAnswersKeepTheirExtensions(t *testing.T) {
	h, err := Read(request(t, line, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x"))
	if err != nil {
		t.Fatal(err)
	}
	const answer = "permessage-deflate; client_max_window_bits=10"
	a, err := h.Offer(false).Check(response(t, "101 x", "Sec-WebSocket-Extensions: "+answer))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := a.Fields().Get("Sec-WebSocket-Extensions"); got != answer || a.Deflate {
		t.Errorf("%q, %+v", got, a)
	}
	_, err = h.Offer(false).Check(response(t, "101 x", "Sec-WebSocket-Extensions: y"))
	wantStatus(t, err, 502)
}

func TestExtendedConnect(t *testing.T) {
	fields := http1.Fields{{Name: "sec-websocket-version", Value: "13"}, {Name: "sec-websocket-protocol", Value: "chat"}}
	h, err := ReadExtended(fields)
	if err != nil {
		t.Fatal(err)
	}
	want := http1.Fields{{Name: "Sec-WebSocket-Version", Value: "13"}, {Name: "Sec-WebSocket-Protocol", Value: "chat"}}
	if diff := cmp.Diff(want, h.Offer(true).Fields()[3:]); diff != "" {
		t.Error(diff)
	}
	key, n := h.Offer(true).Fields().Get("Sec-WebSocket-Key")
	if n != 1 || !validKey(key) {
		t.Errorf("towards HTTP/1.1 the key is %q", key)
	}
	a, err := h.Offer(true).Check(response(t, "101 x", "Sec-WebSocket-Accept: "+acceptOf(key), "Sec-WebSocket-Protocol: chat"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[1:], a.Fields()); diff != "" {
		t.Error(diff)
	}
	for _, extra := range []string{"upgrade", "connection", "sec-websocket-key", "sec-websocket-accept"} {
		_, err := ReadExtended(append(fields[:2:2], http1.Field{Name: extra, Value: "x"}))
		wantStatus(t, err, 400)
	}
	_, err = ReadExtended(nil)
	wantStatus(t, err, 426)
}
