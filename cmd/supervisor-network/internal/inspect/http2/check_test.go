package http2

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// with is a well-formed request whose named field is replaced, or removed by "".
func with(name, value string) []field { return instead(get(), name, value) }

// connect is a well-formed extended CONNECT, with more fields behind it.
func connect(protocol string, more ...string) []field {
	return append(append(fields(":protocol", protocol), with(":method", "CONNECT")...), fields(more...)...)
}

// instead is a list whose named field is replaced, or removed by "".
func instead(list []field, name, value string) []field {
	var out []field
	for _, f := range list {
		if f.Name != name {
			out = append(out, f)
		} else if value != "" {
			out = append(out, field{Name: name, Value: value})
		}
	}
	return out
}

// many are n fields.
func many(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("x-%d", i), "v")
	}
	return out
}

// names are n of those fields'.
func names(n int) (out []string) {
	for i := range n {
		out = append(out, many(n)[2*i])
	}
	return out
}

func TestOnlyStreamsWithOneReadingReachTheHandler(t *testing.T) {
	for _, c := range []struct {
		rule string
		send []field
		want string // a status
	}{
		{"a plain request passes", get(), "200"},
		{"a port of its own scheme passes", with(":authority", host+":443"), "200"},
		{"the authority's case does not matter", with(":authority", "Origin.TEST"), "200"},
		{"a Host field that says the same passes", get("host", host), "200"},
		{"without :authority the Host field is the authority", append(with(":authority", ""), field{Name: "host", Value: host}), "200"},
		{"TE trailers passes", get("te", "trailers"), "200"},
		{"200 fields pass", get(many(200)...), "200"},

		{"another authority is misdirected", with(":authority", "evil.test"), "421"},
		{"another port is misdirected", with(":authority", host+":8443"), "421"},
		{"a name that only starts alike is misdirected", with(":authority", host+".evil.test"), "421"},
		{"user information in the authority", with(":authority", "user@"+host), "400"},
		{"an empty authority", append(with(":authority", ""), field{Name: "x", Value: "y"}), "421"},
		{"a Host field that says something else", get("host", "evil.test"), "400"},
		{"a Host field that spells it otherwise", get("host", "ORIGIN.test"), "400"},
		{"two Host fields", get("host", host, "host", host), "400"},

		{"no :method", with(":method", ""), "400"},
		{"no :scheme", with(":scheme", ""), "400"},
		{"no :path", with(":path", ""), "400"},
		{"two :method", append(fields(":method", "GET"), get()...), "400"},
		{"two :path", append(fields(":path", "/other"), get()...), "400"},
		{"two :authority", append(fields(":authority", host), get()...), "400"},
		{"an unknown pseudo-field", append(fields(":user", "me"), get()...), "400"},
		{"a response's pseudo-field", append(fields(":status", "200"), get()...), "400"},
		{"a pseudo-field behind a field", get(":path", "/other"), "400"},
		{"the scheme http", with(":scheme", "http"), "400"},
		{"another scheme", with(":scheme", "ftp"), "400"},

		{"a method with a space", with(":method", "GET /x"), "400"},
		{"a method of 32 characters passes", with(":method", strings.Repeat("A", 32)), "200"},
		{"a method of 33 characters", with(":method", strings.Repeat("A", 33)), "400"},
		{"CONNECT", fields(":method", "CONNECT", ":authority", "evil.test:443"), "403"},
		{"CONNECT to the tunnel's host", fields(":method", "CONNECT", ":authority", host+":443"), "403"},
		{"CONNECT with a path", with(":method", "CONNECT"), "400"},
		{"extended CONNECT that ends with its fields", connect("websocket"), "400"},
		{"extended CONNECT for UDP", connect("connect-udp"), "501"},
		{"extended CONNECT for another spelling of websocket", connect("WebSocket"), "501"},
		{"extended CONNECT for nothing", connect(""), "400"},
		{"extended CONNECT for two protocols", append(fields(":protocol", "websocket"), connect("websocket")...), "400"},
		{"extended CONNECT for another host", instead(connect("websocket"), ":authority", "evil.test"), "421"},
		{"extended CONNECT without TLS", instead(connect("websocket"), ":scheme", "http"), "400"},
		{"extended CONNECT without a path", instead(connect("websocket"), ":path", ""), "400"},
		{"extended CONNECT to the asterisk", instead(connect("websocket"), ":path", "*"), "400"},
		{"extended CONNECT with Upgrade", append(connect("websocket"), fields("upgrade", "websocket")...), "400"},
		{"a protocol without CONNECT", append(fields(":protocol", "websocket"), get()...), "400"},

		{"the asterisk", with(":path", "*"), "400"},
		{"OPTIONS for the asterisk", fields(":method", "OPTIONS", ":scheme", "https", ":authority", host, ":path", "*"), "400"},
		{"a path without a slash", with(":path", "admin"), "400"},
		{"an absolute path", with(":path", "https://evil.test/"), "400"},
		{"a path above its root", with(":path", "/../etc"), "400"},
		{"an encoded slash", with(":path", "/a%2fb"), "400"},
		{"a fragment", with(":path", "/a#b"), "400"},
		{"a space in the path", with(":path", "/a b"), "400"},
		{"bytes beyond ASCII in the path", with(":path", "/\u00e9"), "400"},
		{"a target of 4096 bytes passes", with(":path", "/"+strings.Repeat("a", 4095)), "200"},
		{"a target of 4097 bytes", with(":path", "/"+strings.Repeat("a", 4096)), "414"},

		{"a name in upper case", get("X-Upper", "v"), "400"},
		{"a name with a space", get("x y", "v"), "400"},
		{"a name with a colon", get("x:y", "v"), "400"},
		{"an empty name", get("", "v"), "400"},
		{"a line break in a value", get("x", "a\r\nb: c"), "400"},
		{"a NUL in a value", get("x", "a\x00b"), "400"},
		{"DEL in a value", get("x", "a\x7f"), "400"},
		{"a value that starts with a space", get("x", " a"), "400"},
		{"a value that ends with a tab", get("x", "a\t"), "400"},
		{"a value that is no UTF-8", get("x", "a\xff"), "400"},
		{"framing behind underscores", get("content_length", "3"), "400"},
		{"framing behind a dot", get("content.length", "3"), "400"},
		{"a trailer that says something of the body passes", get("trailer", "x-sum, digest"), "200"},
		{"a trailer that authorizes", get("trailer", "authorization"), "400"},
		{"a trailer that addresses, beside another", get("trailer", "x-sum, host"), "400"},
		{"a trailer that frames, behind underscores", get("trailer", "transfer_encoding"), "400"},
		{"a trailer with the length, behind an underscore", get("trailer", "content_length"), "400"},
		{"a trailer with a session", get("trailer", "x-sum", "trailer", "COOKIE"), "400"},
		{"a trailer that overrides the method", get("trailer", "x-http-method-override"), "400"},
		{"a trailer with another target", get("trailer", "x-original-url"), "400"},
		{"a trailer with another target, behind underscores", get("trailer", "x_rewrite_url"), "400"},
		{"a trailer with a part of the target", get("trailer", "script_name"), "400"},
		{"a trailer with another target, behind dots", get("trailer", "x.rewrite.url"), "400"},
		{"a trailer with a name that is none", get("trailer", "x@sum"), "400"},
		{"a trailer of a proxy", get("trailer", "x-forwarded-for"), "400"},
		{"a trailer that is a condition", get("trailer", "if-match"), "400"},
		{"a trailer without a name", get("trailer", "x-sum,,a b"), "400"},
		{"32 trailers pass", get("trailer", strings.Join(names(32), ",")), "200"},
		{"33 trailers", get("trailer", strings.Join(names(33), ",")), "400"},
		{"201 fields", get(many(201)...), "431"},
		{"Connection", get("connection", "x-secret"), "400"},
		{"Proxy-Connection", get("proxy-connection", "keep-alive"), "400"},
		{"Keep-Alive", get("keep-alive", "1"), "400"},
		{"Transfer-Encoding", get("transfer-encoding", "chunked"), "400"},
		{"Upgrade", get("upgrade", "h2c"), "400"},
		{"HTTP2-Settings", get("http2-settings", "AAMAAABkAAQAAP__"), "400"},
		{"TE that lists more", get("te", "trailers, deflate"), "400"},
		{"two TE", get("te", "trailers", "te", "trailers"), "400"},

		{"a length without a body", get("content-length", "5"), "400"},
		{"a length of zero without a body passes", get("content-length", "0"), "200"},
		{"two lengths", get("content-length", "0", "content-length", "0"), "400"},
		{"a length with a sign", get("content-length", "+0"), "400"},
		{"a length that is a list", get("content-length", "0, 0"), "400"},
		{"a length beyond 63 bits", get("content-length", "9223372036854775808"), "400"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			f := serve(t, Options{}, hello)
			r := dial(t, f).hello()
			r.headers(1, true, c.send)
			a := r.answer(1)
			if a.status != c.want || a.reset != 0 {
				t.Fatalf("got %+v, want %s", a, c.want)
			}
		})
	}
}

// TestOnlyTrailersThatWereAnnouncedPass: what is announced was looked at with the head.
func TestOnlyTrailersThatWereAnnouncedPass(t *testing.T) {
	for _, c := range []struct {
		announced string
		sent      []field
		want      string // what the origin gets, or "reset"
	}{
		{"x-sum", fields("x-sum", "3"), "map[X-Sum:[3]]"},
		{"x-sum", fields("x-sum", "3", "x-http-method-override", "DELETE", "cookie", "a=b"), "map[X-Sum:[3]]"},
		{"", fields("x-sum", "3", "authorization", "x"), "map[]"},
		{"x-sum", fields("x-sum", "3", "authorization", "x"), "reset"},
		{"x-sum", fields("x-sum", "3", "content-length", "9"), "reset"},
		{"content-length", fields("content-length", "9"), "map[]"}, // the library leaves the announcement out
		{"x-sum", fields(":path", "/other"), "reset"},
	} {
		f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
			out := s.ToOrigin(ctx)
			if _, err := io.ReadAll(out.Body); err == nil {
				_ = s.Respond(ctx, response(fmt.Sprint(out.Trailer)))
			}
		})
		r := dial(t, f).hello()
		head := get()
		if c.announced != "" {
			head = get("trailer", c.announced)
		}
		r.headers(1, false, instead(head, ":method", "POST"))
		r.ok(r.fr.WriteData(1, false, []byte("abc")))
		r.headers(1, true, c.sent)
		a := r.answer(1)
		if got := a.body; got != c.want && (c.want != "reset" || a.reset == 0) {
			t.Errorf("announced %q, sent %v: %+v, want %s", c.announced, c.sent, a, c.want)
		}
	}
}

func TestARefusalIsJSONWithItsRequestID(t *testing.T) {
	var told []string
	f := serve(t, Options{Refused: func(method string, status int, err error) string {
		told = append(told, fmt.Sprint(method, " ", status, " ", err))
		return "id-1"
	}}, hello)
	r := dial(t, f).hello()
	r.headers(1, true, with(":authority", "evil.test"))
	a := r.answer(1)
	want := reply{status: "421", body: `{"error":"request_authority_mismatch","detail":"the request names another host than the tunnel it came through","message":"the request names another host than the tunnel it came through","request_id":"id-1"}`,
		fields: map[string]string{"content-type": "application/json", "content-length": "129", "x-splitpod-request-id": "id-1"}}
	want.fields["content-length"] = fmt.Sprint(len(want.body))
	if diff := cmp.Diff(want, a, cmp.AllowUnexported(reply{})); diff != "" {
		t.Error(diff)
	}
	r.alive(3)
	if diff := cmp.Diff([]string{"GET 421 request_authority_mismatch: the request names another host than the tunnel it came through"}, told); diff != "" {
		t.Error(diff)
	}
}

func TestABodyHasTheLengthThatWasDeclared(t *testing.T) {
	for _, c := range []struct {
		rule   string
		length string
		data   []string
		want   string
	}{
		{"as declared", "5", []string{"12", "345"}, "read 5"},
		{"undeclared", "", []string{"12", "345"}, "read 5"},
		{"more than declared", "5", []string{"123456"}, "reset"},
		{"less than declared", "5", []string{"1234"}, "failed"},
		{"a body where none was declared", "0", []string{"1"}, "reset"},
		{"a length that is no number", "5x", []string{"12345"}, "reset"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
				b, err := io.ReadAll(s.Body)
				text := fmt.Sprintf("read %d", len(b))
				if err != nil {
					text = "failed"
				}
				_ = s.Respond(ctx, response(text))
			})
			r := dial(t, f).hello()
			send := fields(":method", "POST", ":scheme", "https", ":authority", host, ":path", "/")
			if c.length != "" {
				send = append(send, field{Name: "content-length", Value: c.length})
			}
			r.headers(1, false, send)
			for i, d := range c.data {
				r.ok(r.fr.WriteData(1, i == len(c.data)-1, []byte(d)))
			}
			a := r.answer(1)
			got := a.body
			switch {
			case a.reset != 0 && a.reset != http2.ErrCodeNo:
				got = "reset"
			case a.status == "400", c.length == "0" && a.body == "read 0":
				got = "reset" // or answered before the body was seen
			}
			if got != c.want {
				t.Fatalf("got %+v, want %s", a, c.want)
			}
		})
	}
}

// FuzzTarget: a target that passes has a canonical path that passes unchanged, and
// keeps its query.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b?x=1", "/a%2fb", "//a;b/c?", "/%41", "*", "/a?b#c"} {
		f.Add(seed)
	}
	o := Options{Host: host, Port: 443}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, err := o.checkPath(target)
		if err != nil {
			return
		}
		if again, err := http1.CanonicalPath(path, false); err != nil || again != path {
			t.Errorf("%q gives %q, which gives %q, %v", target, path, again, err)
		}
		if i := strings.IndexByte(target, '?'); i < 0 && query != "" || i >= 0 && target[i:] != query {
			t.Errorf("%q gives the query %q", target, query)
		}
		u := (&Stream{server: &server{o: o, meter: &meter{}}, r: &http.Request{Host: host}, Path: path, Query: query}).ToOrigin(context.Background()).URL
		if u.RequestURI() != path+query {
			t.Errorf("%q is sent as %q, and was judged as %q", target, u.RequestURI(), path+query)
		}
	})
}
