// Package relay reaches the destination of a permitted connection and moves its
// bytes.
//
// It answers the threats of a permitted name that leads to a forbidden address, of
// an answer that changes between the check and the connection, of a destination
// that never answers, and of a tunnel that is held open for nothing. For each attempt it
// resolves once, or uses an answer of the last second, judges every address, and dials
// only what it judged. It does not look at what is carried.
//
// Invariant: this package holds the only dialer of the daemon, and it takes a
// decide.Permit.
//
// Sources: RFC 8305 for staggered dialling; splice(2) through net.TCPConn.ReadFrom.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
	"github.com/splitpod/splitpod/pkg/core"
)

// Error is a destination that is refused or cannot be reached. Detail may be shown
// to the workload.
type Error struct {
	Reason core.Reason // ssrf_denied, upstream_unreachable, upstream_timeout or too_many_connections
	Detail string
	Err    error // the cause, for the log; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Reason, e.Detail)
	}
	return fmt.Sprintf("%s: %s: %v", e.Reason, e.Detail, e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// Resolver is the part of net.Resolver that is used.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config configures a Dialer. Zero fields take their defaults.
type Config struct {
	Resolver   Resolver      // default: the system's, in pure Go
	Timeout    time.Duration // resolving and dialling together, default 30 s
	DNSTimeout time.Duration // default 20 s: a resolver waits 5 s for each datagram (resolv.conf(5))
	Attempt    time.Duration // one address, default 10 s
	Stagger    time.Duration // until the next address is tried beside it, default 250 ms
	// Dialled is told how long each attempt to reach a destination took, and how it
	// went. It may be nil.
	Dialled func(time.Duration, error)
}

// maxAddresses bounds the answers of one name that are tried. All of them are judged.
const maxAddresses = 16

// Dialer makes every outgoing connection of this daemon. Make it with New. Safe for
// concurrent use.
type Dialer struct {
	cfg      Config
	names    *names
	restarts *restarts
	classify func(netip.Addr) (address.Class, string) // tests only replace it
}

// New makes a Dialer.
func New(cfg Config) *Dialer {
	if cfg.Resolver == nil {
		cfg.Resolver = &net.Resolver{PreferGo: true}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&cfg.Timeout, 30 * time.Second}, {&cfg.DNSTimeout, 20 * time.Second}, {&cfg.Attempt, 10 * time.Second}, {&cfg.Stagger, 250 * time.Millisecond}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return &Dialer{cfg: cfg, names: newNames(cfg.Resolver), restarts: newRestarts(), classify: address.Classify}
}

// destination is what a Permit says about addresses.
type destination struct {
	host     string
	port     uint16
	mode     decide.AddressMode
	prefixes []netip.Prefix
	local    bool // loopback is meant
}

// Dial connects to the host of a Permit. It fails with *Error, which wraps the
// context's error when that has ended. The caller closes the connection.
func (d *Dialer) Dial(ctx context.Context, p decide.Permit) (*net.TCPConn, error) {
	if !p.Valid() || p.Inference() {
		return nil, &Error{Reason: core.ReasonInternal, Detail: "the connection was not permitted"}
	}
	began := time.Now()
	c, err := d.dial(ctx, destination{host: p.Host(), port: p.Port(), mode: p.AddressMode(), prefixes: p.Prefixes()})
	if d.cfg.Dialled != nil {
		d.cfg.Dialled(time.Since(began), err)
	}
	return c, err
}

// Operator dials what the operator's own configuration names: the token endpoints of
// grants. Such a destination needs no Permit, because nothing of it comes from the
// workload; it may be in this pod or the cluster, but is no metadata service and no
// control plane. listed says whether the configuration names host and port; nothing
// else is dialled.
func (d *Dialer) Operator(listed func(host string, port uint16) bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		host, portText, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if host = strings.ToLower(host); err != nil || !listed(host, uint16(port)) {
			return nil, &Error{Reason: core.ReasonInternal, Detail: "the destination is not configured"}
		}
		return d.dial(ctx, destination{host: host, port: uint16(port), mode: decide.AddressDeclared, local: true})
	}
}

// dial tries again what restarts. Each attempt resolves and judges anew.
func (d *Dialer) dial(ctx context.Context, to destination) (*net.TCPConn, error) {
	end, at := time.Now().Add(d.cfg.Timeout), place{to.host, to.port}
	for attempt := 0; ; attempt++ {
		c, err := d.once(ctx, to, end)
		if err == nil {
			d.restarts.reached(at)
		} else if d.restarts.again(ctx, at, err, attempt, end) {
			continue
		}
		return c, err
	}
}

func (d *Dialer) once(ctx context.Context, to destination, end time.Time) (*net.TCPConn, error) {
	if address.ControlPlanePort(to.port) {
		return nil, refuse(to, "port %d belongs to the cluster's control plane", to.port)
	}
	addrs, err := d.resolve(ctx, to)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if err := d.check(to, a); err != nil {
			return nil, err
		}
	}
	var c *net.TCPConn
	if len(addrs) == 1 {
		c, err = d.connect(ctx, to, addrs[0], end)
	} else {
		addrs = interleave(addrs)
		c, err = d.race(ctx, to, addrs[:min(len(addrs), maxAddresses)], end)
	}
	if err != nil {
		d.names.forget(to.host)
		return nil, failed(ctx, to, err)
	}
	return c, nil
}

func refuse(to destination, format string, args ...any) *Error {
	return &Error{Reason: core.ReasonSSRFDenied, Detail: fmt.Sprintf("%s:%d blocked: %s", to.host, to.port, fmt.Sprintf(format, args...))}
}

// resolve finds every address once. The workload's own hosts file plays no part.
func (d *Dialer) resolve(ctx context.Context, to destination) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(to.host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	addrs, err := d.names.lookup(ctx, to.host, min(d.cfg.DNSTimeout, d.cfg.Timeout))
	switch dns, ok := errors.AsType[*net.DNSError](err); {
	case lacking(err):
		return nil, noDescriptor(err)
	case err == nil && len(addrs) == 0:
		return nil, &Error{Reason: core.ReasonUpstreamUnreachable, Detail: to.host + " has no address"}
	case ok && dns.IsNotFound:
		return nil, &Error{Reason: core.ReasonUpstreamUnreachable, Detail: to.host + " does not exist", Err: err}
	case err != nil:
		return nil, &Error{Reason: core.ReasonUpstreamTimeout, Detail: to.host + " could not be resolved", Err: err}
	}
	return addrs, nil
}

// check judges one address; one that is refused refuses the whole destination.
func (d *Dialer) check(to destination, a netip.Addr) error {
	class, why := d.classify(a)
	switch {
	case to.local && a.IsLoopback():
		return nil
	case class == address.Blocked:
		return refuse(to, "%s is never reachable (%s)", a, why)
	case to.mode == decide.AddressListed:
		for _, p := range to.prefixes {
			if p.Contains(a) {
				return nil
			}
		}
		return refuse(to, "allowed_ips check failed: %s is not in the endpoint's allowed_ips", a)
	case class == address.Internal && to.mode != decide.AddressDeclared:
		return refuse(to, "internal address: %s is %s; name the host exactly, or list it in allowed_ips", a, why)
	default:
		return nil
	}
}

// interleave orders addresses as RFC 8305 section 4 does: families in turn,
// starting with the first answer's.
func interleave(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

type attempt struct {
	conn *net.TCPConn
	err  error
}

// race tries the addresses one after the other, the next one as soon as the one
// before failed or took longer than the stagger, and keeps the first that answers.
func (d *Dialer) race(ctx context.Context, to destination, addrs []netip.Addr, end time.Time) (*net.TCPConn, error) {
	ctx, cancel := context.WithDeadline(ctx, end)
	results := make(chan attempt)
	started, pending := 0, 0
	defer func() {
		cancel()
		go discard(results, pending)
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for {
		select {
		case <-next.C:
			if started < len(addrs) {
				a := addrs[started]
				go func() {
					c, err := d.connect(ctx, to, a, end)
					results <- attempt{c, err}
				}()
				started++
				pending++
				next.Reset(d.cfg.Stagger)
			}
		case r := <-results:
			pending--
			if r.err == nil {
				return r.conn, nil
			}
			errs = append(errs, r.err)
			if pending == 0 && started == len(addrs) {
				return nil, errors.Join(errs...)
			}
			next.Reset(0)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// discard closes what answers too late.
func discard(results <-chan attempt, pending int) {
	for range pending {
		if r := <-results; r.conn != nil {
			r.conn.Close()
		}
	}
}

// connect dials one address, and checks again at the last moment that it is that
// one and no other.
func (d *Dialer) connect(ctx context.Context, to destination, a netip.Addr, end time.Time) (*net.TCPConn, error) {
	want := netip.AddrPortFrom(a, to.port)
	nd := net.Dialer{
		ControlContext: func(_ context.Context, _, addr string, _ syscall.RawConn) error {
			if got, err := netip.ParseAddrPort(addr); err != nil || got != want {
				return fmt.Errorf("BUG: about to dial %s instead of %s", addr, want)
			}
			return nil
		},
	}
	if attempt := time.Now().Add(d.cfg.Attempt); attempt.Before(end) {
		end = attempt
	}
	// Not DialTCP, which binds the socket first and so needs a port that is free for all
	// destinations together.
	c, err := nd.DialContext(timely{ctx, end}, "tcp", want.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// timely is a context with a deadline, and without a timer of its own: for a dialer,
// which sets one on the connection.
type timely struct {
	context.Context
	end time.Time
}

// Deadline implements context.Context.
func (t timely) Deadline() (time.Time, bool) { return t.end, true }

// lacking reports whether this process, or the machine, had no descriptor left. A resolver
// passes on no more of that than its words.
func lacking(err error) bool {
	return err != nil && (strings.Contains(err.Error(), syscall.EMFILE.Error()) || strings.Contains(err.Error(), syscall.ENFILE.Error()))
}

// noDescriptor does not blame the destination.
func noDescriptor(err error) *Error {
	return &Error{Reason: core.ReasonTooManyConnections, Detail: "the network daemon has no file descriptor left; close some connections and try again", Err: err}
}

func failed(ctx context.Context, to destination, err error) error {
	if lacking(err) {
		return noDescriptor(err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Reason: core.ReasonUpstreamTimeout, Detail: fmt.Sprintf("%s:%d did not answer in time", to.host, to.port), Err: err}
	}
	return &Error{Reason: core.ReasonUpstreamUnreachable, Detail: fmt.Sprintf("connection to %s:%d failed", to.host, to.port), Err: err}
}
