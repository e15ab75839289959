package exchange

import (
	"context"
	"strings"
	"sync"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// identity is what the grant proves who asks with: a JWT-SVID, or a key's value.
func (e *Exchange) identity(ctx context.Context, s *credentials.Snapshot, g *credentials.Grant) (secret.Value, error) {
	if g.SubjectKey != "" {
		return s.Subject(g)
	}
	client, err := e.identities.client(ctx, g.WorkloadAPI)
	if err != nil {
		return secret.Value{}, err
	}
	audience := g.SVIDAudience
	if audience == "" {
		audience = audienceOf(g.TokenEndpoint)
	}
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return secret.Value{}, err
	}
	return secret.New(svid.Marshal()), nil
}

// audienceOf is whom a JWT-SVID is for, where the grant does not say it: the realm of
// the token endpoint, or else the endpoint.
func audienceOf(endpoint string) string {
	const realms = "/realms/"
	i := strings.Index(endpoint, realms)
	if i < 0 {
		return endpoint
	}
	rest := endpoint[i+len(realms):]
	realm, _, _ := strings.Cut(rest, "/")
	if realm == "" {
		return endpoint
	}
	return endpoint[:i+len(realms)+len(realm)]
}

// identities holds one connection to each Workload API.
type identities struct {
	mu      sync.Mutex // guards clients
	clients map[string]*workloadapi.Client
}

func (i *identities) client(ctx context.Context, address string) (*workloadapi.Client, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.clients[address]; c != nil {
		return c, nil
	}
	c, err := workloadapi.New(ctx, workloadapi.WithAddr(address))
	if err != nil {
		return nil, err
	}
	if i.clients == nil {
		i.clients = map[string]*workloadapi.Client{}
	}
	i.clients[address] = c
	return c, nil
}

func (i *identities) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for address, c := range i.clients {
		_ = c.Close()
		delete(i.clients, address)
	}
}
