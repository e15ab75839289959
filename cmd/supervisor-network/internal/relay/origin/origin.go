// Package origin is the daemon's TLS towards origins.
//
// It answers the threats of an origin that is not the permitted host (its
// certificate has to be that host's, by a root that the operator trusts; there is no
// way to turn that off), of one that is slow or speaks in fragments, and of an error
// that tells the workload what is none of its business. It dials nothing and does
// not look at what is carried. It does not ask whether a certificate was revoked.
//
// Invariant: a connection that Handshake returns was verified for the host it was
// called with, in TLS 1.2 or newer. Our own interception CA is not among the roots
// unless the operator puts it there.
//
// Sources: RFC 6125 section 6 and RFC 9525 through crypto/x509; RFC 8446 sections
// 4.3.2 and 6.2; RFC 7301.
package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// Config configures a Client. Zero fields take their defaults.
type Config struct {
	Roots    []string      // PEM files of roots besides the system's
	Timeout  time.Duration // one handshake, default 10 s
	Sessions int           // origins whose sessions are remembered, default 1024
	// Groups are the key exchanges offered. Default: the standard library's, a
	// post-quantum one among them, which costs a third more processor time on both
	// sides where the origin takes it.
	Groups []tls.CurveID
}

// Client makes TLS connections to origins. Make it with New. Safe for concurrent use.
type Client struct {
	base    *tls.Config
	timeout time.Duration
}

// New reads the roots. It fails when one of the files cannot be read, holds no
// certificate or something else than certificates, and names every such file.
func New(cfg Config) (*Client, error) {
	roots, err := loadRoots(cfg.Roots)
	if err != nil {
		return nil, err
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Sessions <= 0 {
		cfg.Sessions = 1024
	}
	return &Client{timeout: cfg.Timeout, base: &tls.Config{
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		CurvePreferences:   cfg.Groups,
		ClientSessionCache: tls.NewLRUClientSessionCache(cfg.Sessions),
	}}, nil
}

// Config is the TLS configuration for connections that others make: same roots, same
// versions.
func (c *Client) Config() *tls.Config {
	out := c.base.Clone()
	out.ClientSessionCache = nil
	return out
}

// Handshake speaks TLS on conn with host, which is the host of the permit in its
// canonical form: a lower-case name, or an address without brackets. protos are
// offered by ALPN; none are when it is empty, and an origin that takes none of them
// leaves the connection without one. It fails with *Error; the caller closes conn on
// every way. It takes no longer than the Client's timeout.
//
// A TLS 1.3 origin says that it wants a client certificate only after the handshake:
// its refusal comes from the first read. Explain makes an *Error of that too.
func (c *Client) Handshake(ctx context.Context, conn net.Conn, host string, protos []string) (*tls.Conn, error) {
	if host == "" {
		return nil, &Error{Kind: Internal, Detail: "no host to verify", Err: errors.New("BUG: a handshake for no host")}
	}
	asked := false
	cfg := c.base.Clone()
	cfg.ServerName = host
	cfg.NextProtos = protos
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return &tls.Certificate{}, nil // many origins ask and do without
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	t := tls.Client(conn, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, explain(host, err, asked)
	}
	return t, nil
}
