package hello

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// size8 and size16 put the length before what a hello is made of.
func size8(b []byte) []byte  { return append([]byte{byte(len(b))}, b...) }
func size16(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func ext(id uint16, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), size16(data)...)
}

func names(list ...string) []byte {
	var b []byte
	for _, n := range list {
		b = append(append(b, 0), size16([]byte(n))...)
	}
	return ext(serverName, size16(b))
}

func alpns(list ...string) []byte {
	var b []byte
	for _, n := range list {
		b = append(b, size8([]byte(n))...)
	}
	return ext(alpn, size16(b))
}

// message is a ClientHello with extensions.
func message(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, size8(make([]byte, 32))...)
	body = append(body, size16([]byte{0x13, 1, 0xc0, 0x2b})...)
	body = append(body, 1, 0)
	body = append(body, size16(slices.Concat(extensions...))...)
	return whole(body)
}

func whole(body []byte) []byte {
	return append([]byte{1, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// records cuts a message into records of n bytes.
func records(message []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(message, n) {
		out = append(append(out, 22, 3, 1), size16(part)...)
	}
	return out
}

// captured is what a client of the standard library sends first.
func captured(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		tls.Client(near, cfg).Handshake()
		near.Close()
	}()
	var out []byte
	for {
		if _, err := Parse(out); !errors.Is(err, ErrMore) {
			return out
		}
		b := make([]byte, 32<<10)
		n, err := far.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b[:n]...)
	}
}

var tls13 = ext(supportedVersions, size8([]byte{3, 4, 3, 3}))

var hellos = []struct {
	rule   string
	stream []byte
	want   *Hello
	err    string
}{
	{"the ordinary", records(message(names("ok.test"), alpns("h2", "http/1.1"), tls13), maxRecord),
		&Hello{Name: "ok.test", Protocols: []string{"h2", "http/1.1"}, Versions: []uint16{0x304, 0x303}}, ""},
	{"upper case", records(message(names("OK.Test")), maxRecord), &Hello{Name: "ok.test", Versions: []uint16{0x303}}, ""},
	{"underscores", records(message(names("a_b.test")), maxRecord), &Hello{Name: "a_b.test", Versions: []uint16{0x303}}, ""},
	{"no name", records(message(), maxRecord), &Hello{Versions: []uint16{0x303}}, ""},
	{"no extensions at all", records(whole(append(append([]byte{3, 1}, make([]byte, 32)...), 0, 0, 2, 0, 5, 1, 0)), maxRecord), &Hello{Versions: []uint16{0x301}}, ""},
	{"ECH", records(message(names("ok.test"), ext(ech, []byte{0, 1})), maxRecord), &Hello{Name: "ok.test", Versions: []uint16{0x303}, ECH: true}, ""},
	{"its draft", records(message(ext(esni, nil)), maxRecord), &Hello{Versions: []uint16{0x303}, ECH: true}, ""},
	{"early data, and the data", append(records(message(ext(earlyData, nil)), maxRecord), "\x17\x03\x03\x00\x01x"...), &Hello{Versions: []uint16{0x303}, EarlyData: true}, ""},
	{"unknown extensions and versions", records(message(ext(0x0a0a, nil), ext(supportedVersions, size8([]byte{0x0a, 0x0a, 3, 4}))), maxRecord), &Hello{Versions: []uint16{0x0a0a, 0x304}}, ""},
	{"records of a byte", records(message(names("ok.test")), 1), &Hello{Name: "ok.test", Versions: []uint16{0x303}}, ""},
	{"more than 16 KiB", records(message(ext(21, make([]byte, 40000)), names("ok.test")), maxRecord), &Hello{Name: "ok.test", Versions: []uint16{0x303}}, ""},
	{"the longest name", records(message(names(strings.Repeat("a.", 126)+"a")), maxRecord), &Hello{Name: strings.Repeat("a.", 126) + "a", Versions: []uint16{0x303}}, ""},

	{"a longer name", records(message(names(strings.Repeat("a.", 126)+"aa")), maxRecord), nil, "1 to 253"},
	{"two names", records(message(names("ok.test", "evil.test")), maxRecord), nil, "more than one"},
	{"two extensions with names", records(message(names("ok.test"), names("evil.test")), maxRecord), nil, "twice"},
	{"an unknown extension twice", records(message(ext(999, nil), ext(999, nil)), maxRecord), nil, "twice"},
	{"an address", records(message(names("127.0.0.1")), maxRecord), nil, "an address"},
	{"a long address", records(message(names("2001:db8::1")), maxRecord), nil, "letters"},
	{"a zero", records(message(names("ok.test\x00.evil.test")), maxRecord), nil, "letters"},
	{"not ASCII", records(message(names("o\u212a.test")), maxRecord), nil, "letters"},
	{"not UTF-8", records(message(names("\xff.test")), maxRecord), nil, "letters"},
	{"a last dot", records(message(names("ok.test.")), maxRecord), nil, "empty label"},
	{"a first dot", records(message(names(".ok.test")), maxRecord), nil, "empty label"},
	{"two dots", records(message(names("ok..test")), maxRecord), nil, "empty label"},
	{"an empty name", records(message(names("")), maxRecord), nil, "1 to 253"},
	{"no list of names", records(message(ext(serverName, nil)), maxRecord), nil, "server_name"},
	{"an empty list of names", records(message(names()), maxRecord), nil, "server_name"},
	{"a name of another type", records(message(ext(serverName, size16(append([]byte{1}, size16([]byte("ok.test"))...)))), maxRecord), nil, "not the name of a host"},
	{"a byte behind the names", records(message(ext(serverName, append(size16(append([]byte{0}, size16([]byte("ok.test"))...)), 0))), maxRecord), nil, "server_name"},
	{"an empty protocol", records(message(alpns("h2", "")), maxRecord), nil, "protocol"},
	{"no protocols", records(message(alpns()), maxRecord), nil, "protocol"},
	{"half a version", records(message(ext(supportedVersions, size8([]byte{3, 4, 3}))), maxRecord), nil, "versions"},
	{"no versions", records(message(ext(supportedVersions, size8(nil))), maxRecord), nil, "versions"},
	{"early data with contents", records(message(ext(earlyData, []byte{0})), maxRecord), nil, "early_data"},
	{"a message behind it in its record", records(append(message(), 1, 0, 0, 0), maxRecord), nil, "behind it"},
	{"a byte behind its extensions", records(whole(append(message()[4:], 0)), maxRecord), nil, "length of its extensions"},
	{"another message", records(append([]byte{2}, message()[1:]...), maxRecord), nil, "not a ClientHello"},
	{"a record of another type inside", slices.Concat(records(message()[:20], 20), []byte("\x17\x03\x03\x00\x01x")), nil, "not of a TLS handshake"},
	{"an empty record", []byte("\x16\x03\x01\x00\x00"), nil, "empty"},
	{"a long session id", records(whole(slices.Concat([]byte{3, 3}, make([]byte, 32), size8(make([]byte, 33)), []byte{0, 2, 0x13, 1, 1, 0})), maxRecord), nil, "session"},
	{"no cipher suite", records(whole(slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 0, 1, 0})), maxRecord), nil, "suites"},
	{"compressed only", records(whole(slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 2, 0x13, 1, 1, 1})), maxRecord), nil, "compression"},
	{"not TLS", []byte("GET / HTTP/1.1\r\n"), nil, "not of a TLS handshake"},
}

func TestParse(t *testing.T) {
	for _, c := range hellos {
		got, err := Parse(c.stream)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %v %s", c.rule, err, diff)
		}
		if c.err == "" && err != nil || c.err != "" && (!errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.rule, err, c.err)
		}
		sameWhereverCut(t, c.stream)
		agrees(t, c.stream)
	}
}

// TestLimitsHoldAtTheirEdge: at the limit it is read, one beyond it is refused, and
// before the bytes are there.
func TestLimitsHoldAtTheirEdge(t *testing.T) {
	padded := func(total int) []byte {
		empty := len(message(ext(21, nil))) - messageHeader
		return message(ext(21, make([]byte, total-empty)))
	}
	protos := func(n int) []byte { return message(alpns(slices.Repeat([]string{"x"}, n)...)) }
	cut := func(n int) []byte { // a message in n records
		m := padded(4096)
		return append(records(m[:n-1], 1), records(m[n-1:], maxRecord)...)
	}
	long := whole(make([]byte, MaxHello+1))
	for _, c := range []struct {
		rule         string
		good, beyond []byte
	}{
		{"records", cut(MaxRecords), cut(MaxRecords + 1)},
		{"a record", records(padded(maxRecord-messageHeader), maxRecord), records(padded(maxRecord-messageHeader+1), maxRecord+1)},
		{"protocols", records(protos(maxProtocols), maxRecord), records(protos(maxProtocols+1), maxRecord)},
	} {
		if _, err := Parse(c.good); err != nil {
			t.Errorf("%s at the limit: %v", c.rule, err)
		}
		if _, err := Parse(c.beyond); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s beyond the limit: %v", c.rule, err)
		}
	}
	if _, err := Parse(records(whole(make([]byte, MaxHello)), maxRecord)[:9]); err != ErrMore {
		t.Errorf("the longest message: %v", err)
	}
	if _, err := Parse(records(long, maxRecord)[:9]); !errors.Is(err, ErrMalformed) {
		t.Errorf("a longer message: %v", err)
	}
}

// TestParseReadsRealClients: what the standard library sends is read, and as the
// standard library reads it.
func TestParseReadsRealClients(t *testing.T) {
	long := []string{"h2"}
	for i := range 100 {
		long = append(long, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 200)))
	}
	for rule, cfg := range map[string]*tls.Config{
		"ordinary":         {ServerName: "ok.test", NextProtos: []string{"h2", "http/1.1"}},
		"post-quantum":     {ServerName: "ok.test", CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
		"TLS 1.2":          {ServerName: "ok.test", MaxVersion: tls.VersionTLS12},
		"TLS 1.0":          {ServerName: "ok.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"an address":       {ServerName: "127.0.0.1"},
		"more than 16 KiB": {ServerName: "ok.test", NextProtos: long},
	} {
		stream := captured(t, cfg)
		got, err := Parse(stream)
		if err != nil {
			t.Errorf("%s: %v", rule, err)
			continue
		}
		if want := strings.TrimPrefix(cfg.ServerName, "127.0.0.1"); got.Name != want || !slices.Equal(got.Protocols, cfg.NextProtos) {
			t.Errorf("%s: %+v", rule, got)
		}
		if !agrees(t, stream) {
			t.Errorf("%s: crypto/tls refuses what its client sends", rule)
		}
		if len(stream) < 4096 {
			sameWhereverCut(t, stream)
		}
	}
}

// sameWhereverCut: a part of a stream is answered like the whole, or asks for more.
func sameWhereverCut(t *testing.T, stream []byte) {
	t.Helper()
	want, wantErr := Parse(stream)
	step := 1 + len(stream)/512
	decided := false
	for i := 0; i <= len(stream); i += step {
		got, err := Parse(stream[:i])
		if errors.Is(err, ErrMore) {
			if decided {
				t.Fatalf("after %d bytes it asks for more again", i)
			}
			continue
		}
		decided = true
		if !cmp.Equal(got, want) || (err == nil) != (wantErr == nil) {
			t.Fatalf("after %d bytes: %+v, %v; in the end %+v, %v", i, got, err, want, wantErr)
		}
		if _, more := Classify(stream[:i]); err == nil && more {
			t.Fatal("a hello is not classified")
		}
	}
	if errors.Is(wantErr, ErrMore) && len(stream) >= MaxBytes {
		t.Fatalf("%d bytes are not enough", len(stream))
	}
}

// wire is a connection on which stream arrives and nothing can be sent.
type wire struct{ io.Reader }

func (wire) Write(p []byte) (int, error)      { return len(p), nil }
func (wire) Close() error                     { return nil }
func (wire) LocalAddr() net.Addr              { return nil }
func (wire) RemoteAddr() net.Addr             { return nil }
func (wire) SetDeadline(time.Time) error      { return nil }
func (wire) SetReadDeadline(time.Time) error  { return nil }
func (wire) SetWriteDeadline(time.Time) error { return nil }

var errSeen = errors.New("seen")

// agrees compares what Parse accepts with what crypto/tls reads, and says whether
// both accept it.
func agrees(t *testing.T, stream []byte) bool {
	t.Helper()
	got, err := Parse(stream)
	if err != nil {
		return false
	}
	var info *tls.ClientHelloInfo
	err = tls.Server(wire{bytes.NewReader(stream)}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		info = i
		return nil, errSeen
	}}).HandshakeContext(context.Background())
	if info == nil {
		if err == nil {
			t.Fatal("a handshake without a hello")
		}
		return false // crypto/tls reads more extensions, and refuses them
	}
	if !strings.EqualFold(info.ServerName, got.Name) || !slices.Equal(info.SupportedProtos, got.Protocols) ||
		slices.Contains(info.Extensions, ech) && !got.ECH || slices.Contains(info.Extensions, earlyData) != got.EarlyData {
		t.Fatalf("crypto/tls reads %q, %q, %v; this package %+v", info.ServerName, info.SupportedProtos, info.Extensions, got)
	}
	if slices.Contains(info.Extensions, supportedVersions) && !slices.Equal(info.SupportedVersions, got.Versions) {
		t.Fatalf("crypto/tls reads the versions %x, this package %x", info.SupportedVersions, got.Versions)
	}
	return true
}

// FuzzParse: no panic; one of three answers; the same answer wherever the stream or
// its records are cut; and what is accepted, crypto/tls reads the same way.
func FuzzParse(f *testing.F) {
	for _, c := range hellos {
		if len(c.stream) < 4096 {
			f.Add(c.stream)
		}
	}
	f.Add(captured(f, &tls.Config{ServerName: "ok.test", NextProtos: []string{"h2"}}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		h, err := Parse(stream)
		if (h == nil) == (err == nil) || err != nil && !errors.Is(err, ErrMore) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%+v, %v", h, err)
		}
		sameWhereverCut(t, stream)
		agrees(t, stream)
		if err != nil {
			return
		}
		m, _ := collect(stream)
		for _, n := range []int{1, 7, maxRecord} {
			if len(m) > n*MaxRecords {
				continue
			}
			if again, err := Parse(records(m, n)); err != nil || !cmp.Equal(h, again) {
				t.Fatalf("in records of %d bytes: %+v, %v; want %+v", n, again, err, h)
			}
		}
	})
}

// BenchmarkParse is an ordinary hello.
func BenchmarkParse(b *testing.B) {
	stream := captured(b, &tls.Config{ServerName: "ok.test", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(stream); err != nil {
			b.Fatal(err)
		}
	}
}
