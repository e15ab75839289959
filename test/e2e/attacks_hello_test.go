package e2e_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	wire "encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
)

// TestHellosThatHideANameOrHaveSeveral (B13): a client that encrypts its hello is served
// by the name that can be read, or not at all, and what it hides is never asked for; a
// hello with two names has none.
func TestHellosThatHideANameOrHaveSeveral(t *testing.T) {
	a := newSiege(t)
	const host, mismatch = "api.demo.test", "request_authority_mismatch"
	for name, tc := range map[string]struct {
		cover, inside string
		reason        string
		rejected      bool // the client reads our certificate, and goes away because nobody has the key
	}{
		"ECH, a denied host behind the tunnel's":       {host, "evil.test", "", true},
		"ECH, the tunnel's host behind itself":         {host, host, "", true},
		"ECH, a denied host behind an allowed one":     {"git.demo.test", "evil.test", mismatch, false},
		"ECH, the tunnel's host behind a public name":  {"cover.demo.test", host, mismatch, false},
		"ECH, an allowed host behind one that is none": {"evil.test", "git.demo.test", mismatch, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := connect(t, host+":7002")
			hidden := tls.Client(c, &tls.Config{ServerName: tc.inside, RootCAs: a.roots, EncryptedClientHelloConfigList: echConfigs(t, tc.cover)})
			err := hidden.Handshake()
			rejection, rejected := errors.AsType[*tls.ECHRejectionError](err)
			if rejected != tc.rejected || rejected && len(rejection.RetryConfigList) > 0 || err == nil {
				t.Errorf("the client ends with %v", err)
			}
			c.Close()
			a.oracle(t, nil, tc.reason)
		})
	}
	nameless := clientHello(t)
	named := withExtension(nameless, 0, serverNames(host))
	for name, tc := range map[string]struct {
		hello  []byte
		want   byte // the first byte of the answer: a handshake (22) or an alert (21)
		reason string
	}{
		"one name, made by hand":              {named, 22, "client_closed"},
		"two names":                           {withExtension(nameless, 0, serverNames(host, "evil.test")), 21, "bad_request"},
		"two names, the tunnel's last":        {withExtension(nameless, 0, serverNames("evil.test", host)), 21, "bad_request"},
		"the same name twice":                 {withExtension(nameless, 0, serverNames(host, host)), 21, "bad_request"},
		"two extensions with names":           {withExtension(named, 0, serverNames("evil.test")), 21, "bad_request"},
		"two extensions, the tunnel's first":  {withExtension(withExtension(nameless, 0, serverNames("evil.test")), 0, serverNames(host)), 21, "bad_request"},
		"two extensions with the same name":   {withExtension(named, 0, serverNames(host)), 21, "bad_request"},
		"a name and one of an unknown kind":   {withExtension(nameless, 0, append(serverNames(host), 1, 0, 1, 'x')), 21, "bad_request"},
		"no name beside an encrypted hello":   {withExtension(nameless, 0xfe0d, make([]byte, 64)), 21, mismatch},
		"a name that ends with a zero byte":   {withExtension(nameless, 0, serverNames(host+"\x00.evil.test")), 21, mismatch},
		"the name in an extension of no size": {withExtension(nameless, 0, nil), 21, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := connect(t, host+":7002")
			_, err := c.Write(tc.hello)
			must(t, err)
			must(t, c.CloseWrite())
			if got, _ := io.ReadAll(c); len(got) == 0 || got[0] != tc.want {
				t.Errorf("the client is sent % x", got[:min(len(got), 16)])
			}
			a.oracle(t, nil, tc.reason)
		})
	}
	a.settled(t)
}

// echConfigs is what a client would find in the DNS for an origin behind cover.
func echConfigs(t *testing.T, cover string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	body := append([]byte{7, 0, 0x20, 0, 32}, key.PublicKey().Bytes()...) // X25519 and its KEM
	body = append(body, 0, 4, 0, 1, 0, 1, 64, byte(len(cover)))           // HKDF-SHA256, AES-128-GCM
	body = append(append(body, cover...), 0, 0)
	config := wire.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(body)))
	config = append(config, body...)
	return append(wire.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}

// clientHello is the first record of a client that names no host.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		_ = tls.Client(near, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}).Handshake() // it is cut
	}()
	head := make([]byte, 5)
	_, err := io.ReadFull(far, head)
	must(t, err)
	record := append(head, make([]byte, wire.BigEndian.Uint16(head[3:]))...)
	_, err = io.ReadFull(far, record[5:])
	must(t, err)
	return record
}

// withExtension puts an extension first, and corrects the lengths around it.
func withExtension(hello []byte, id uint16, data []byte) []byte {
	out := slices.Clone(hello)
	at := 5 + 4 + 2 + 32                           // record, message, version, random
	at += 1 + int(out[at])                         // session
	at += 2 + int(wire.BigEndian.Uint16(out[at:])) // suites
	at += 1 + int(out[at])                         // compression
	ext := wire.BigEndian.AppendUint16(nil, id)
	ext = append(wire.BigEndian.AppendUint16(ext, uint16(len(data))), data...)
	for _, length := range []int{3, 7, at} {
		wire.BigEndian.PutUint16(out[length:], wire.BigEndian.Uint16(out[length:])+uint16(len(ext)))
	}
	return slices.Insert(out, at+2, ext...)
}

// serverNames is the content of a server_name extension.
func serverNames(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(wire.BigEndian.AppendUint16(append(list, 0), uint16(len(n))), n...)
	}
	return append(wire.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
}
