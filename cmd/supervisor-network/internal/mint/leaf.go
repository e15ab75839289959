package mint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

// What a leaf is like.
const (
	leafLifetime = 24 * time.Hour // at most; never beyond the CA's end
	leafBackdate = time.Hour      // for clients whose clock is behind
	maxHostBytes = 253
)

// ErrBusy means that more new names are asked for than leaves may be signed.
var ErrBusy = errors.New("too many new host names at one time")

// leaf is the certificate of one host and what depends on it. It is replaced as a
// whole before the certificate runs out.
type leaf struct {
	cert        tls.Certificate
	from, renew time.Time // of the wall clock
	configs
}

// serves reports whether a client with this node's clock accepts the leaf now and for
// some time to come. Clients compare with the wall clock, which somebody may set either
// way and which goes on while a machine sleeps, so the monotonic clock does not help
// here.
func (l *leaf) serves(now time.Time) bool {
	now = now.Round(0)
	return now.After(l.from) && now.Before(l.renew)
}

// leaves signs and remembers the certificates of hosts. All of them share one key,
// made anew with every process, so that a new host costs one signature and no key.
// Safe for concurrent use.
type leaves struct {
	ca     *CA
	key    *ecdsa.PrivateKey
	cache  *lru.Cache[string, *leaf]
	flight singleflight.Group
	limit  *rate.Limiter
	wait   time.Duration // the longest that a new name is held back by the limit
	now    func() time.Time
}

func newLeaves(ca *CA, o Options) (*leaves, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the leaves: %w", err)
	}
	cache, err := lru.New[string, *leaf](o.Hosts)
	if err != nil {
		return nil, fmt.Errorf("make the cache of the leaves: %w", err)
	}
	return &leaves{
		ca: ca, key: key, cache: cache, now: time.Now, wait: o.MintWait,
		limit: rate.NewLimiter(rate.Limit(o.MintsPerSecond), o.MintBurst),
	}, nil
}

// get returns the host's leaf, signing it when there is none that lasts. It may wait
// for the limit, never longer than that allows; then it fails with ErrBusy.
func (l *leaves) get(host string) (*leaf, error) {
	if have, ok := l.cache.Get(host); ok && have.serves(l.now()) {
		return have, nil
	}
	made, err, _ := l.flight.Do(host, func() (any, error) {
		if have, ok := l.cache.Peek(host); ok && have.serves(l.now()) {
			return have, nil // another flight ended between our look and this one
		}
		if err := l.admit(); err != nil {
			return nil, err
		}
		return l.mint(host)
	})
	if err != nil {
		return nil, err
	}
	return made.(*leaf), nil
}

// admit takes one of the signatures that the limit gives out. Whoever would wait too
// long is sent away at once, so that only so many can wait.
func (l *leaves) admit() error {
	r := l.limit.Reserve()
	delay := r.Delay()
	if delay > l.wait {
		r.Cancel()
		return ErrBusy
	}
	time.Sleep(delay)
	return nil
}

func (l *leaves) mint(host string) (*leaf, error) {
	now := l.now().Round(0)
	if !now.Before(l.ca.cert.NotAfter) {
		return nil, fmt.Errorf("sign the certificate of %s: the CA expired at %s", host, l.ca.cert.NotAfter.Format(time.RFC3339))
	}
	template, err := l.template(host, now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, l.ca.cert, &l.key.PublicKey, l.ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", host, err)
	}
	parsed, err := x509.ParseCertificate(der) // once here, or else in every handshake
	if err != nil {
		return nil, fmt.Errorf("BUG: read the certificate just signed for %s: %w", host, err)
	}
	made := &leaf{
		// Without the CA, which its clients have (RFC 8446 section 4.4.2): those of Go would
		// check the signature against both copies.
		cert:  tls.Certificate{Certificate: [][]byte{der}, PrivateKey: l.key, Leaf: parsed},
		from:  parsed.NotBefore,
		renew: now.Add(parsed.NotAfter.Sub(now) / 4 * 3), // a part, so that it ends with the CA's own end
	}
	l.cache.Add(host, made)
	return made, nil
}

func (l *leaves) template(host string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Splitpod"}}, // the host stands in the SAN only: a common name holds 64 bytes
		NotBefore:             now.Add(-leafBackdate),
		NotAfter:              now.Add(leafLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if t.NotAfter.After(l.ca.cert.NotAfter) {
		t.NotAfter = l.ca.cert.NotAfter
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		t.IPAddresses = []net.IP{a.Unmap().AsSlice()}
		return t, nil
	}
	if !isName(host) {
		return nil, fmt.Errorf("sign a certificate for %q: neither a host name in its canonical form nor an address", host)
	}
	t.DNSNames = []string{host}
	return t, nil
}

// isName keeps out of certificates what two readers could take for different names:
// upper case, zeros, wildcards, anything but ASCII.
func isName(host string) bool {
	if host == "" || len(host) > maxHostBytes {
		return false
	}
	for i := range len(host) {
		c := host[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return host[0] != '.' && host[len(host)-1] != '.'
}
