package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// comparisons bounds the work of comparing endpoints, in steps of comparing two
// short patterns.
const comparisons = 1_000_000

// ambiguities refuses endpoints that can be about the same request and disagree
// about what to do with it: which of the two counts would depend on their order.
func (n *network) ambiguities(top strictyaml.Object) {
	a := ambiguity{budget: comparisons, told: make([]bool, len(n.endpoints))}
	byPort := map[uint16][]int{}
	var ports []uint16
	for i := range n.endpoints {
		p := &n.endpoints[i]
		a.connection = append(a.connection, connectionTerms(&p.Endpoint))
		a.request = append(a.request, requestTerms(&p.Endpoint))
		for _, port := range p.Ports {
			if byPort[port] == nil {
				ports = append(ports, port)
			}
			byPort[port] = append(byPort[port], i)
		}
	}
	a.endpoints = n.endpoints
	for _, port := range ports {
		a.port(byPort[port])
	}
	if a.budget <= 0 {
		v := top.Fields["network_policies"]
		v.Fail("there are too many endpoints with wildcards and different settings to compare them; use fewer wildcards on one port")
	}
}

// ambiguity is one comparison of all endpoints.
type ambiguity struct {
	endpoints  []placed
	connection []terms // by endpoint
	request    []terms
	told       []bool // endpoints that were reported
	budget     int
}

// term is a setting and its value as text.
type term struct{ key, value string }

type terms []term

// differ names the settings in which two lists of the same keys differ.
func (t terms) differ(o terms) []string {
	var out []string
	for i := range t {
		if t[i] != o[i] {
			out = append(out, t[i].key)
		}
	}
	return out
}

// connectionTerms are the settings that a connection takes from its endpoint
// before any request is seen.
func connectionTerms(e *Endpoint) terms {
	ips := make([]string, len(e.AllowedIPs))
	for i, a := range e.AllowedIPs {
		ips[i] = a.Prefix.String()
	}
	slices.Sort(ips)
	return terms{
		{"tls", e.TLS},
		{"allowed_ips", strings.Join(slices.Compact(ips), " ")},
		{"protocol: tcp", fmt.Sprint(e.Protocol == ProtocolTCP)},
	}
}

// requestTerms are the settings that a request takes from its endpoint; nil if
// requests are not looked at.
func requestTerms(e *Endpoint) terms {
	if !e.Protocol.Inspected() {
		return nil
	}
	var rpc, mcp string
	if e.JSONRPC != nil {
		rpc = fmt.Sprint(*e.JSONRPC)
	}
	if e.MCP != nil {
		mcp = fmt.Sprint(*e.MCP)
	}
	return terms{
		{"protocol", string(e.Protocol)},
		{"enforcement", fmt.Sprint(e.Enforce)},
		{"allow_encoded_slash", fmt.Sprint(e.AllowEncodedSlash)},
		{"websocket_credential_rewrite", fmt.Sprint(e.WebSocketCredentialRewrite)},
		{"request_body_credential_rewrite", fmt.Sprint(e.RequestBodyCredentialRewrite)},
		{"GraphQL rules", fmt.Sprint(e.Protocol == ProtocolWebSocket && e.hasGraphQLRules())},
		{"credential_signing", e.CredentialSigning},
		{"signing_service", e.SigningService},
		{"signing_region", e.SigningRegion},
		{"credential_binding", e.CredentialBindingProvider},
		{"persisted_queries", e.PersistedQueries},
		{"graphql_persisted_queries", fmt.Sprint(e.GraphQLPersistedQueries)},
		{"graphql_max_body_bytes", fmt.Sprint(e.GraphQLMaxBodyBytes)},
		{"json_rpc", rpc},
		{"mcp", mcp},
	}
}

// port compares the endpoints of one port. Endpoints are put into groups of equal
// settings and hosts first, so that a policy without contradictions costs little.
func (a *ambiguity) port(on []int) {
	type group struct{ host, path, settings string }
	seen := map[group]bool{}
	var heads []int
	for _, i := range on {
		p := &a.endpoints[i]
		g := group{p.Host, "", fmt.Sprint(a.connection[i], a.request[i])}
		if p.Protocol.Inspected() {
			g.path = p.PathScope
		}
		if !seen[g] {
			seen[g] = true
			heads = append(heads, i)
		}
	}
	a.compare(heads)
}

// compare compares every endpoint with those before it that can share a host:
// those of the same name, and those with wildcards.
func (a *ambiguity) compare(heads []int) {
	byName := map[string][]int{}
	var exact, wild []int
	for _, i := range heads {
		if _, ok := a.endpoints[i].host.Exact(); ok {
			for _, j := range slices.Concat(byName[a.endpoints[i].Host], wild) {
				a.pair(j, i)
			}
			byName[a.endpoints[i].Host] = append(byName[a.endpoints[i].Host], i)
			exact = append(exact, i)
			continue
		}
		for _, list := range [][]int{exact, wild} {
			for _, j := range list {
				a.pair(j, i)
			}
		}
		wild = append(wild, i)
	}
}

// pair reports the later of two endpoints if they contradict each other.
func (a *ambiguity) pair(i, j int) {
	if a.told[j] || a.budget <= 0 {
		return
	}
	connection := a.connection[i].differ(a.connection[j])
	var request []string
	if a.request[i] != nil && a.request[j] != nil {
		request = a.request[i].differ(a.request[j])
	}
	if len(connection)+len(request) == 0 {
		return
	}
	first, second := &a.endpoints[i], &a.endpoints[j]
	a.budget -= hostCost(first, second)
	if !first.host.Overlaps(second.host) {
		return
	}
	switch {
	case len(connection) > 0:
		a.tell(i, j, connection, "")
	case a.samePaths(first, second):
		a.tell(i, j, request, " and paths")
	}
}

// hostCost is what a comparison of two hosts takes from the budget.
func hostCost(first, second *placed) int {
	_, one := first.host.Exact()
	_, other := second.host.Exact()
	if one || other {
		return 1
	}
	return 1 + len(first.Host)*len(second.Host)/128
}

// samePaths reports whether a request can belong to two endpoints equally well.
func (a *ambiguity) samePaths(first, second *placed) bool {
	if first.scope.Specificity() != second.scope.Specificity() {
		return false
	}
	a.budget -= len(first.PathScope) * len(second.PathScope) / 128
	return first.scope.Overlaps(second.scope)
}

func (a *ambiguity) tell(i, j int, keys []string, paths string) {
	a.told[j] = true
	first, second := &a.endpoints[i], &a.endpoints[j]
	second.Fail("this endpoint and the one on line %d share hosts%s on a port and differ in %s; make them agree, or keep their hosts%s apart",
		first.Value.At().Line, paths, strings.Join(keys, ", "), paths)
}
