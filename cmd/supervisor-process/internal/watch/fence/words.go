package fence

import "github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"

// detail says what was refused and what would work in its place.
func detail(p nflog.Packet) string {
	if p.Reply {
		return "an answer to a connection from an address outside loopback was refused; let whoever connects to loopback bind to no address"
	}
	return "a direct connection was refused; " + hint(p.Proto, p.Dst.Port())
}

// hint says what would work in place of a direct connection.
func hint(proto string, port uint16) string {
	switch {
	case port == 53 && (proto == "udp" || proto == "tcp"):
		return "names are resolved by the proxy: give it the name (HTTPS_PROXY, HTTP_PROXY) in place of asking a resolver"
	case proto == "tcp":
		return "use the proxy (HTTPS_PROXY, HTTP_PROXY); node needs NODE_USE_ENV_PROXY=1, which is set here, and a version that knows it; clients of databases know no proxy and need a relay (policy-cookbook.md)"
	case proto == "udp":
		return "there is no UDP out of here, QUIC included; use TCP through the proxy (HTTPS_PROXY, HTTP_PROXY)"
	default:
		return "only TCP through the proxy (HTTPS_PROXY, HTTP_PROXY) leads out"
	}
}
