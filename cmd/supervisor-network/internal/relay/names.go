package relay

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

const (
	// namesLast is how long the addresses of a name are used again: for the connections
	// that a client opens together. Whatever is used is judged again.
	namesLast = time.Second
	// maxNames bounds the names that are remembered; with one more all are forgotten.
	maxNames = 1024
	// maxKnown bounds the addresses of one: an answer can have thousands.
	maxKnown = 64
)

// names asks the resolver, and for a moment remembers what it said. What failed is not
// remembered.
type names struct {
	resolver Resolver
	last     time.Duration // namesLast; tests change it

	mu    sync.Mutex
	known map[string]known // guarded by mu
}

type known struct {
	addrs []netip.Addr // not changed any more
	until time.Time
}

func newNames(r Resolver) *names {
	return &names{resolver: r, last: namesLast, known: make(map[string]known)}
}

// lookup returns the addresses of a host, without IPv4 in IPv6. The caller does not
// change them.
func (n *names) lookup(ctx context.Context, host string, timeout time.Duration) ([]netip.Addr, error) {
	now := time.Now()
	n.mu.Lock()
	k, ok := n.known[host]
	n.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.addrs, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := n.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return nil, err
	}
	k = known{make([]netip.Addr, len(addrs)), now.Add(n.last)}
	for i, a := range addrs {
		k.addrs[i] = a.Unmap()
	}
	if len(addrs) > maxKnown {
		return k.addrs, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	n.known[host] = k
	return k.addrs, nil
}

// forget makes the next lookup of a host ask again: it could not be reached.
func (n *names) forget(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, host)
}
