package proxy

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestTLSThatIsNotReadNamesItsTunnelsHost: a client that speaks another protocol than HTTP
// gets its origin's own TLS, and no other host's that the origin may have as well.
func TestTLSThatIsNotReadNamesItsTunnelsHost(t *testing.T) {
	for name, tc := range map[string]struct {
		config *tls.Config
		reason string // empty: it is carried
	}{
		"its host":                   {&tls.Config{ServerName: "a.example.com"}, ""},
		"its host in another case":   {&tls.Config{ServerName: "A.Example.COM"}, ""},
		"another host":               {&tls.Config{ServerName: "b.example.com"}, "request_authority_mismatch"},
		"no host":                    {&tls.Config{}, "request_authority_mismatch"},
		"another host behind its":    {&tls.Config{ServerName: "b.example.com", EncryptedClientHelloConfigList: hiding(t, "a.example.com")}, "bad_request"},
		"another host behind others": {&tls.Config{ServerName: "b.example.com", EncryptedClientHelloConfigList: hiding(t, "c.example.com")}, "request_authority_mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
			hellos := make(chan *tls.ClientHelloInfo, 8)
			s := httptest.NewUnstartedServer(nil)
			s.TLS = &tls.Config{NextProtos: []string{"other"}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				hellos <- h
				return nil, nil
			}}
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			s.StartTLS()
			t.Cleanup(s.Close)
			w.lead("a.example.com", 443, s.Listener.Addr().String())
			tc.config.NextProtos = []string{"other"}
			if tc.config.EncryptedClientHelloConfigList == nil {
				tc.config.InsecureSkipVerify = true // it is not about certificates
			}
			err := tls.Client(w.tunnel("a.example.com", 443), tc.config).Handshake()
			if tc.reason == "" {
				if h := <-hellos; err != nil || !slices.Equal(h.SupportedProtos, tc.config.NextProtos) {
					t.Fatalf("the origin was offered %v; the client has %v", h.SupportedProtos, err)
				}
				return
			}
			if err == nil {
				t.Fatal("the client's handshake came to its end")
			}
			w.until("a record of the refusal", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), `"`+tc.reason+`"`) })
			for len(hellos) > 0 {
				if h := <-hellos; slices.Equal(h.SupportedProtos, tc.config.NextProtos) {
					t.Errorf("the origin got the client's own hello, for %q", h.ServerName)
				}
			}
		})
	}
}

// hiding is what a client would find in the DNS to hide a name behind another.
func hiding(t *testing.T, cover string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := append([]byte{7, 0, 0x20, 0, 32}, key.PublicKey().Bytes()...)
	body = append(body, 0, 4, 0, 1, 0, 1, 64, byte(len(cover)))
	body = append(append(body, cover...), 0, 0)
	config := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(body)))
	config = append(config, body...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}
