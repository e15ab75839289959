package app

import (
	"strings"
	"testing"
)

func TestARefusalSaysWhatWouldWork(t *testing.T) {
	for name, tt := range map[string]struct {
		proto string
		port  uint16
		want  string
	}{
		"a resolver": {"udp", 53, "resolved by the proxy"}, "a resolver over TCP": {"tcp", 53, "resolved by the proxy"},
		"TCP": {"tcp", 443, "NODE_USE_ENV_PROXY"}, "QUIC": {"udp", 443, "QUIC"}, "another protocol": {"sctp", 53, "only TCP"}, "ping": {"icmp", 0, "only TCP"},
	} {
		if got := hint(tt.proto, tt.port); !strings.Contains(got, tt.want) || !strings.Contains(got, "prox") {
			t.Errorf("%s: %q does not say %q", name, got, tt.want)
		}
	}
}
