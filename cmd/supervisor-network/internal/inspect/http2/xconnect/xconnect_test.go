package xconnect

import "testing"

func TestWhatAnOperatorSetStays(t *testing.T) {
	for settings, want := range map[string]string{
		"":                             "http2xconnect=1",
		"netdns=go":                    "netdns=go,http2xconnect=1",
		"http2xconnect=0":              "http2xconnect=0",
		"http2xconnect=1":              "http2xconnect=1",
		"netdns=go,http2xconnect=0":    "netdns=go,http2xconnect=0",
		"netdns=go,tlsmlkem=0,panic=1": "netdns=go,tlsmlkem=0,panic=1,http2xconnect=1",
	} {
		if got := with(settings); got != want {
			t.Errorf("%q becomes %q, want %q", settings, got, want)
		}
	}
}
