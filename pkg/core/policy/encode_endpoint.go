package policy

import (
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

func endpointNode(e *Endpoint) *yaml.Node {
	m := newMapping()
	m.text("host", e.Host)
	var ports []*yaml.Node
	for _, p := range e.Ports {
		ports = append(ports, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(int(p))})
	}
	if len(ports) == 1 {
		m.add("port", ports[0])
	} else {
		m.add("ports", sequence(ports))
	}
	var ips []string
	for _, a := range e.AllowedIPs {
		ips = append(ips, a.Prefix.String())
	}
	m.texts("allowed_ips", ips)
	m.word("protocol", string(e.Protocol))
	m.word("tls", e.TLS)
	m.text("path", e.PathScope)
	if e.Protocol.Inspected() {
		m.word("enforcement", map[bool]string{true: "enforce", false: "audit"}[e.Enforce])
	}
	m.word("access", e.Access)
	m.endpointOptions(e)
	m.endpointCredentials(e)
	m.matchers("rules", e.Allow, true)
	m.matchers("deny_rules", e.Deny, false)
	return m.node
}

func (m mapping) endpointOptions(e *Endpoint) {
	m.flag("allow_encoded_slash", e.AllowEncodedSlash, false)
	if e.PersistedQueries != "deny" {
		m.word("persisted_queries", e.PersistedQueries)
	}
	if len(e.GraphQLPersistedQueries) > 0 {
		qs := newMapping()
		for _, id := range slices.Sorted(maps.Keys(e.GraphQLPersistedQueries)) {
			q := newMapping()
			q.word("operation_type", e.GraphQLPersistedQueries[id].OperationType)
			q.text("operation_name", e.GraphQLPersistedQueries[id].OperationName)
			q.texts("fields", e.GraphQLPersistedQueries[id].Fields)
			qs.add(id, q.node)
		}
		m.add("graphql_persisted_queries", qs.node)
	}
	m.bodyLimit("graphql_max_body_bytes", e.GraphQLMaxBodyBytes)
	if o := e.JSONRPC; o != nil && o.MaxBodyBytes != defaultBody {
		b := newMapping()
		b.bodyLimit("max_body_bytes", o.MaxBodyBytes)
		m.add("json_rpc", b.node)
	}
	if o := e.MCP; o != nil && *o != (MCPOptions{MaxBodyBytes: defaultBody, StrictToolNames: true}) {
		b := newMapping()
		b.bodyLimit("max_body_bytes", o.MaxBodyBytes)
		b.flag("strict_tool_names", o.StrictToolNames, true)
		b.flag("allow_all_known_mcp_methods", o.AllowAllKnownMCPMethods, false)
		m.add("mcp", b.node)
	}
}

func (m mapping) bodyLimit(key string, n uint32) {
	if n != 0 && n != defaultBody {
		m.number(key, int64(n))
	}
}

func (m mapping) endpointCredentials(e *Endpoint) {
	m.flag("websocket_credential_rewrite", e.WebSocketCredentialRewrite, false)
	m.flag("request_body_credential_rewrite", e.RequestBodyCredentialRewrite, false)
	m.flag("allow_uninspected_credentials", e.AllowUninspectedCredentials, false)
	m.text("credential_signing", e.CredentialSigning)
	m.text("signing_service", e.SigningService)
	m.text("signing_region", e.SigningRegion)
	if e.CredentialBindingProvider != "" {
		b := newMapping()
		b.text("provider", e.CredentialBindingProvider)
		m.add("credential_binding", b.node)
	}
}

func (m mapping) matchers(key string, list []Matcher, wrapped bool) {
	var out []*yaml.Node
	for i := range list {
		n := matcherNode(&list[i])
		if wrapped {
			allow := newMapping()
			allow.add("allow", n)
			n = allow.node
		}
		out = append(out, n)
	}
	if len(out) > 0 {
		m.add(key, sequence(out))
	}
}

func matcherNode(r *Matcher) *yaml.Node {
	m := newMapping()
	m.text("method", r.Method)
	m.text("path", r.Path)
	m.text("command", r.Command)
	if len(r.Query) > 0 {
		q := newMapping()
		for _, key := range slices.Sorted(maps.Keys(r.Query)) {
			q.add(key, globsNode(r.Query[key]))
		}
		m.add("query", q.node)
	}
	m.text("operation_type", r.OperationType)
	m.text("operation_name", r.OperationName)
	m.texts("fields", r.Fields)
	m.text("tool", r.Tool)
	if len(r.Params) > 0 {
		p := newMapping()
		for _, key := range slices.Sorted(maps.Keys(r.Params)) {
			p.add(key, strictyaml.TextNode(r.Params[key]))
		}
		m.add("params", p.node)
	}
	return m.node
}

// globsNode is a query pattern: one as a text, several as a choice.
func globsNode(list []string) *yaml.Node {
	if len(list) == 1 {
		return strictyaml.TextNode(list[0])
	}
	m := newMapping()
	m.texts("any", list)
	return m.node
}
