package mint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a Server. Zero fields take their defaults.
type Options struct {
	Hosts          int           // hosts whose leaves are remembered, default 4096
	MintsPerSecond int           // new leaves, default 1000: a sixth of one processor
	MintBurst      int           // new leaves at once, default 1024
	MintWait       time.Duration // the longest that a new name is held back, default 1 s
}

func (o *Options) defaults() {
	for _, n := range []struct {
		field *int
		value int
	}{{&o.Hosts, 4096}, {&o.MintsPerSecond, 1000}, {&o.MintBurst, 1024}} {
		if *n.field <= 0 {
			*n.field = n.value
		}
	}
	if o.MintWait <= 0 {
		o.MintWait = time.Second
	}
}

// Server ends the workload's TLS with our own leaves. Make it with NewServer. Safe
// for concurrent use.
//
// One configuration lives as long as the daemon and holds the keys of the session
// tickets, which the standard library makes, changes every day and forgets after a
// week; nothing of them is stored. Each host has one configuration derived from it,
// kept with the host's leaf.
type Server struct {
	leaves *leaves
	base   *tls.Config
	refuse *tls.Config
}

// NewServer makes a Server that signs with ca.
func NewServer(ca *CA, o Options) (*Server, error) {
	o.defaults()
	l, err := newLeaves(ca, o)
	if err != nil {
		return nil, err
	}
	s := &Server{leaves: l}
	s.base = &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Without the post-quantum groups, which cost a third more: the way between
		// the workload and this daemon is one pod's loopback.
		CurvePreferences:   []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		GetConfigForClient: s.choose,
	}
	// Without a certificate and without tickets no client gets through: what has no
	// alert of its own ends in unrecognized_name.
	s.refuse = &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
	return s, nil
}

// attempt is one handshake: what it was permitted for, and why it was refused.
type attempt struct {
	host    string
	protos  []string
	refused *Error // by check
	failed  error  // no leaf
}

type attemptKey struct{}

// Handshake ends the client's TLS on conn as host, which is the host of the permit in
// its canonical form: a lower-case name, or an address without brackets. protos are
// the protocols offered by ALPN, the preferred one first; a client that offers none
// of them is refused, one that says nothing gets none. It fails with *Error, after
// the client was sent an alert where TLS has one; the caller closes conn on every
// way. The caller bounds it by the deadlines of conn, and sets them when ctx ends, which
// is only asked for the reason: a context with a time of its own took 6 % of all that a
// resumed connection costs.
//
// A client that encrypts its hello (ECH) is served like any other: we have no key of
// the origin's, so only the outer hello counts, its name has to be host, and the
// inner one is neither read nor forwarded. Refusing would not be safer, and browsers
// send the extension filled with noise to everybody.
func (s *Server) Handshake(ctx context.Context, conn net.Conn, host string, protos []string) (*tls.Conn, error) {
	a := &attempt{host: host, protos: protos}
	c := tls.Server(conn, s.base)
	if err := c.HandshakeContext(context.WithValue(context.WithoutCancel(ctx), attemptKey{}, a)); err != nil {
		return nil, a.explain(ctx, err)
	}
	return c, nil
}

// choose runs once the ClientHello is read and before anything depends on it, a
// resumption included.
func (s *Server) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	a, ok := hello.Context().Value(attemptKey{}).(*attempt)
	if !ok {
		return nil, errors.New("BUG: a handshake that nobody asked for")
	}
	if a.refused = a.check(hello); a.refused != nil {
		c := s.refuse.Clone()
		c.NextProtos = a.protos // so that crypto/tls finds the same fault, and its alert
		return c, nil
	}
	l, err := s.leaves.get(a.host)
	if err != nil {
		a.failed = err
		return nil, err
	}
	return l.config(s.base, a), nil
}

// check judges what the client says by what the tunnel is permitted for.
func (a *attempt) check(hello *tls.ClientHelloInfo) *Error {
	_, notAddress := netip.ParseAddr(a.host)
	switch name := hello.ServerName; {
	case name == "" && notAddress != nil:
		return a.fail(NoSNI, nil, "the ClientHello names no host; the tunnel is for %s", a.host)
	case name != "" && notAddress == nil:
		return a.fail(SNIMismatch, nil, "the ClientHello names a host; the tunnel is for the address %s, and addresses do not stand there", a.host)
	case name != "" && !equalFold(name, a.host) && slices.Contains(hello.Extensions, extensionECH):
		return a.fail(SNIMismatch, nil, "the ClientHello names another host than the tunnel's, %s, and hides the real one (ECH)", a.host)
	case name != "" && !equalFold(name, a.host):
		return a.fail(SNIMismatch, nil, "the ClientHello names another host than the tunnel's, %s", a.host)
	case !slices.ContainsFunc(hello.SupportedVersions, supported):
		return a.fail(Version, nil, "the client offers no TLS 1.2 or 1.3")
	case slices.Contains(hello.Extensions, extensionEarlyData):
		return a.fail(EarlyData, nil, "the client sends data before the handshake (0-RTT)")
	case len(hello.SupportedProtos) > 0 && len(a.protos) > 0 && !overlap(hello.SupportedProtos, a.protos):
		return a.fail(ALPN, nil, "the client speaks none of the protocols %s", strings.Join(a.protos, ", "))
	}
	return nil
}

// Extensions that crypto/tls has no field for.
const (
	extensionEarlyData = 42     // RFC 8446 section 4.2.10
	extensionECH       = 0xfe0d // RFC 9849 section 5
)

func supported(v uint16) bool { return v == tls.VersionTLS12 || v == tls.VersionTLS13 }

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// equalFold compares ASCII only: to strings.EqualFold the Kelvin sign is a k.
func equalFold(name, host string) bool {
	if len(name) != len(host) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != host[i] {
			return false
		}
	}
	return true
}

// maxConfigs is how many lists of protocols one host is remembered with; the daemon
// offers two.
const maxConfigs = 4

// configs are the configurations of one leaf, one for each list of protocols.
type configs struct {
	mu    sync.Mutex
	known []*tls.Config
}

func (l *leaf) config(base *tls.Config, a *attempt) *tls.Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.known {
		if slices.Equal(c.NextProtos, a.protos) {
			return c
		}
	}
	c := base.Clone()
	c.GetConfigForClient = nil
	c.Certificates = []tls.Certificate{l.cert}
	c.NextProtos = slices.Clone(a.protos)
	bind(c, base, a.host)
	if len(l.known) < maxConfigs {
		l.known = append(l.known, c)
	}
	return c
}

// bound starts the entry of a session that says which host it is for.
const bound = "splitpod/host/1 "

// bind writes the permitted host into every session ticket and opens no ticket of
// another host. The tickets are sealed with base's keys, so the host cannot be changed.
// A ticket of another host is no error: it leads to a full handshake.
func bind(c, base *tls.Config, host string) {
	entry := bound + host
	c.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, []byte(entry))
		return base.EncryptTicket(state, session)
	}
	c.UnwrapSession = func(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		session, err := base.DecryptTicket(ticket, state)
		if err != nil || session == nil {
			return nil, err
		}
		for _, e := range session.Extra {
			if string(e) == entry {
				return session, nil
			}
		}
		return nil, nil
	}
}

func (a *attempt) fail(k Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: k, Detail: fmt.Sprintf(format, args...), Err: cause}
}
