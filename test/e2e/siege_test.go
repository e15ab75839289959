package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/splitpod/splitpod/test/world"
)

// attackPolicy allows GET and POST below /ok of two origins that are inspected, one
// plain and one inside TLS, and bytes of any kind to one that is not. The requests to one more are seen, and no rule reads their paths.
const attackPolicy = "version: 1\n" + who + `network_policies:
  ok:
    endpoints:
      - {host: api.demo.test, ports: [7001, 7002], protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/ok/**"}}, {allow: {method: POST, path: "/ok/**"}}]}
      - {host: git.demo.test, ports: [7001, 7002], protocol: rest, enforcement: enforce, allow_encoded_slash: true, access: read-only}
      - {host: api.demo.test, port: 7004, protocol: tcp}
      - {host: a.wild.demo.test, ports: [7001, 7002]}
    binaries: [{path: /usr/bin/curl}]
`

// siege is the standalone daemon under attack, with origins that keep every byte.
type siege struct {
	*pair
	t        *testing.T
	plain    *keeper // port 7001
	secure   *keeper // port 7002
	denied   *keeper // port 7001 and others of an address that no rule names
	lookups  chan string
	roots    *x509.CertPool
	baseline int    // descriptors of the daemon at rest
	records  int    // looked at so far
	said     answer // the last one
}

func newSiege(t *testing.T, args ...string) *siege {
	t.Helper()
	cert, err := origins.Certificate(nil)
	must(t, err)
	a := &siege{t: t, plain: watch(t, 7001, nil), secure: watch(t, 7002, &tls.Config{Certificates: []tls.Certificate{cert}}), denied: watch(t, 7009, nil), lookups: make(chan string, 100)}
	a.countLookups()
	a.pair = standalone(t, attackPolicy, args...)
	a.roots = a.interceptionRoots()
	a.plainRequestWorks(t)
	eventually(t, "the record of standalone's look at the listener", func() bool {
		return slices.ContainsFunc(a.connectionRecords(), func(r record) bool { return r.Unmapped.Reason == "client_closed" })
	})
	a.rest()
	a.baseline = a.descriptors()
	a.records = len(a.connectionRecords())
	return a
}

// countLookups is the name server of the world, which knows nothing.
func (a *siege) countLookups() {
	l, err := net.ListenPacket("udp", net.JoinHostPort(world.Address, "53"))
	must(a.t, err)
	a.t.Cleanup(func() { l.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, _, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			a.lookups <- fmt.Sprintf("%q", buf[:n])
		}
	}()
}

// interceptionRoots reads the daemon's CA out of its state.
func (p *pair) interceptionRoots() *x509.CertPool {
	p.t.Helper()
	pool := x509.NewCertPool()
	data, err := os.ReadFile(p.caFile())
	must(p.t, err)
	if !pool.AppendCertsFromPEM(data) {
		p.t.Fatal("no certificate")
	}
	return pool
}

func (p *pair) caFile() string { return p.dir + "/state/out.pem" }

func (p *pair) connectionRecords() []record {
	p.t.Helper()
	return slices.DeleteFunc(parseRecords(p.t, p.network.out.String()), func(r record) bool { return r.Unmapped.Kind != "connection" })
}

// descriptors counts what the daemon holds, without the connections to origins that it
// keeps for a minute. What belongs to a client is counted on the client's side.
func (p *pair) descriptors() int {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d", p.network.cmd.Process.Pid)
	kept := map[string]bool{}
	for _, file := range []string{"/net/tcp", "/net/tcp6"} {
		table, err := os.ReadFile(dir + file)
		must(p.t, err)
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line)
			if strings.HasPrefix(f[2], originHex+":") || strings.HasPrefix(f[2], originHex6+":") {
				kept["socket:["+f[9]+"]"] = true
			}
		}
	}
	entries, err := os.ReadDir(dir + "/fd")
	must(p.t, err)
	n := 0
	for _, e := range entries {
		if to, _ := os.Readlink(dir + "/fd/" + e.Name()); !kept[to] {
			n++
		}
	}
	return n
}

// The world's addresses as /proc/net/tcp and tcp6 have them.
const (
	originHex  = "01004D0A"
	originHex6 = "770000FD000000000000000001000000"
)

// rest makes the origins hang up, so that the daemon keeps no connection to them.
func (a *siege) rest() {
	for _, c := range []*keeper{a.plain, a.secure, a.denied} {
		c.hangUp()
		c.seen()
	}
}

// plainRequestWorks is the last line of the oracle.
func (a *siege) plainRequestWorks(t *testing.T) {
	t.Helper()
	for _, e := range []entry{inTLS, absolute} {
		if got := a.ask(t, e, "GET", "/ok/plain", ""); got.status != 200 {
			t.Errorf("a plain allowed request (%s) is answered %d %s", e, got.status, got.reason)
		}
	}
}

// denials are the records since the last look that do not say allowed. It waits for as
// many as the test knows of.
func (a *siege) denials(t *testing.T, want int) []record {
	t.Helper()
	var out []record
	deadline := time.Now().Add(generous)
	for {
		all := a.connectionRecords()
		out = slices.DeleteFunc(slices.Clone(all[a.records:]), func(r record) bool { return r.Unmapped.Reason == "allowed" })
		if len(out) >= want || time.Now().After(deadline) {
			a.records = len(all)
			return out
		}
		time.Sleep(2 * time.Millisecond) // records are written beside the answer
	}
}

// oracle checks what holds after every attack whatever came of it: only what was
// expected arrived, the refusal left one record, the daemon is well.
func (a *siege) oracle(t *testing.T, arrived []string, reason string) {
	t.Helper()
	want := 0
	if reason != "" {
		want = 1
	}
	found := a.denials(t, want)
	if len(found) != want || want == 1 && found[0].Unmapped.Reason != reason {
		t.Errorf("records of refusals %+v, want %d with reason %q", found, want, reason)
	}
	if a.said.reason == reason && want == 1 && len(found) == 1 && (a.said.id == "" || a.said.id != found[0].Unmapped.RequestID) {
		t.Errorf("the answer has the request id %q, the record %q", a.said.id, found[0].Unmapped.RequestID)
	}
	a.said = answer{}
	plain, raw, _ := a.plain.seen()
	secure, rawSecure, _ := a.secure.seen()
	if got := append(plain, secure...); !slices.Equal(got, arrived) {
		t.Errorf("the origin got %q, want %q; raw %q", got, arrived, raw+rawSecure)
	}
	if len(arrived) == 0 && raw+rawSecure != "" {
		t.Errorf("bytes arrived of what was refused: %q", raw+rawSecure)
	}
	if _, raw, n := a.denied.seen(); n > 0 {
		t.Errorf("%d connections to the denied origin, with %q", n, raw)
	}
	select {
	case q := <-a.lookups:
		t.Errorf("a name was looked up: %s", q)
	default:
	}
	select {
	case <-a.network.ended:
		t.Fatal("the daemon ended")
	default:
	}
}

// settled says that the daemon holds no more than it did before the attacks.
func (a *siege) settled(t *testing.T) {
	t.Helper()
	a.rest()
	deadline := time.Now().Add(generous)
	for a.descriptors() > a.baseline {
		if time.Now().After(deadline) {
			t.Errorf("%d descriptors, %d before the attacks", a.descriptors(), a.baseline)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	a.plainRequestWorks(t)
	a.records = len(a.connectionRecords())
	a.rest()
}

// entry is a way in which a request reaches the daemon.
type entry string

const (
	inTunnel entry = "CONNECT"
	inTLS    entry = "CONNECT and TLS"
	absolute entry = "absolute form"
	inHTTP2  entry = "CONNECT, TLS and HTTP/2"
)

var http1Entries = []entry{inTunnel, inTLS, absolute}

func (e entry) port() int {
	if e == inTLS || e == inHTTP2 {
		return 7002
	}
	return 7001
}

// write fills the places of a raw text in: {abs} before a target, {host} and {port}.
func (e entry) write(text string) string {
	host := fmt.Sprintf("api.demo.test:%d", e.port())
	abs := ""
	if e == absolute {
		abs = "http://" + host
	}
	return strings.NewReplacer("{abs}", abs, "{host}", host, "{port}", fmt.Sprint(e.port())).Replace(text)
}

// dial opens a connection to the daemon.
func dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", standaloneAddress)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(generous)))
	return c.(*net.TCPConn)
}

// connect opens a tunnel.
func connect(t *testing.T, target string) (*net.TCPConn, *http.Response) {
	t.Helper()
	c := dial(t)
	_, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(oneByOne{c}), &http.Request{Method: "CONNECT"})
	must(t, err)
	return c, resp
}

// oneByOne keeps a bufio.Reader from taking what follows.
type oneByOne struct{ io.Reader }

func (r oneByOne) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }

type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// open walks to where requests are read.
func (a *siege) open(t *testing.T, e entry) closeWriter {
	t.Helper()
	if e == absolute {
		return dial(t)
	}
	c, resp := connect(t, fmt.Sprintf("api.demo.test:%d", e.port()))
	if resp.StatusCode != 200 {
		t.Fatalf("no tunnel: %s", resp.Status)
	}
	if e == inTunnel {
		return c
	}
	config := &tls.Config{ServerName: "api.demo.test", RootCAs: a.roots}
	if e == inHTTP2 {
		config.NextProtos = []string{"h2"}
	}
	tc := tls.Client(c, config)
	must(t, tc.Handshake())
	return tc
}

// answer is what came of one request.
type answer struct {
	status int
	reason string // of a refusal
	id     string
	body   string
}

// say sends raw bytes by an entry and returns all answers.
func (a *siege) say(t *testing.T, e entry, text string) []answer {
	t.Helper()
	c := a.open(t, e)
	_, _ = io.WriteString(c, e.write(text)) // a daemon that has answered already may reset
	_ = c.CloseWrite()
	out, err := io.ReadAll(c)
	if err != nil && len(out) == 0 && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("no answer: %v", err)
	}
	got := answers(t, out, text)
	if len(got) > 0 {
		a.said = got[len(got)-1]
	}
	return got
}

// answers takes a stream of responses apart; method decides whether they have bodies.
func answers(t *testing.T, stream []byte, text string) []answer {
	t.Helper()
	var out []answer
	r := bufio.NewReader(bytes.NewReader(stream))
	for {
		if _, err := r.Peek(1); err != nil {
			return out
		}
		method, _, _ := strings.Cut(text, " ")
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Errorf("not a response (%v) in %q", err, stream)
			return out
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("a response without its body: %v", err)
		}
		out = append(out, answerOf(resp.StatusCode, resp.Header, body))
	}
}

func answerOf(status int, h http.Header, body []byte) answer {
	a := answer{status: status, body: string(body)}
	if status >= 400 {
		var said struct {
			Error     string `json:"error"`
			RequestID string `json:"request_id"`
		}
		_ = json.Unmarshal(body, &said) // an empty reason fails the test
		a.reason, a.id = said.Error, said.RequestID
	}
	return a
}

// ask makes one request, which any entry can carry.
func (a *siege) ask(t *testing.T, e entry, method, target, body string) answer {
	t.Helper()
	if e == inHTTP2 {
		return a.askHTTP2(t, []hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"},
			{Name: ":authority", Value: "api.demo.test:7002"}, {Name: ":path", Value: target}}, body)
	}
	text := method + " {abs}" + target + " HTTP/1.1\r\nHost: {host}\r\n"
	if body != "" {
		text += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	got := a.say(t, e, text+"\r\n"+body)
	if len(got) != 1 {
		t.Errorf("%d answers, want 1: %+v", len(got), got)
		return answer{}
	}
	return got[0]
}

// askHTTP2 sends the fields as they are in one stream. A stream that is reset has
// status 0 and the reset's name as reason.
func (a *siege) askHTTP2(t *testing.T, fields []hpack.HeaderField, body string) answer {
	t.Helper()
	c := a.open(t, inHTTP2)
	defer c.Close()
	a.said = stream(t, c, fields, body)
	return a.said
}

func stream(t *testing.T, c net.Conn, fields []hpack.HeaderField, body string) answer {
	t.Helper()
	_, err := io.WriteString(c, http2.ClientPreface)
	must(t, err)
	f := http2.NewFramer(c, c)
	must(t, f.WriteSettings())
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range fields {
		must(t, enc.WriteField(field))
	}
	must(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""}))
	if body != "" {
		must(t, f.WriteData(1, true, []byte(body)))
	}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h, status, content := http.Header{}, 0, []byte(nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return answer{reason: "closed"}
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			fmt.Sscan(frame.PseudoValue("status"), &status)
			for _, field := range frame.RegularFields() {
				h.Add(field.Name, field.Value)
			}
			if frame.StreamEnded() {
				return answerOf(status, h, content)
			}
		case *http2.DataFrame:
			content = append(content, frame.Data()...)
			if frame.StreamEnded() {
				return answerOf(status, h, content)
			}
		case *http2.RSTStreamFrame:
			return answer{reason: frame.ErrCode.String()}
		case *http2.GoAwayFrame:
			return answer{reason: "GOAWAY " + frame.ErrCode.String()}
		}
	}
}
