package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// endpointKeys are the keys of an endpoint.
var endpointKeys = []string{
	"host", "port", "ports", "path", "protocol", "tls", "enforcement", "access", "rules", "deny_rules",
	"allowed_ips", "allow_encoded_slash", "websocket_credential_rewrite", "request_body_credential_rewrite",
	"allow_uninspected_credentials", "persisted_queries", "graphql_persisted_queries",
	"graphql_max_body_bytes", "credential_signing", "signing_service", "signing_region",
	"credential_binding", "json_rpc", "mcp",
}

var protocols = []Protocol{
	ProtocolTCP, ProtocolREST, ProtocolWebSocket, ProtocolGraphQL, ProtocolSQL, ProtocolJSONRPC, ProtocolMCP,
}

// endpointReader fills one endpoint.
type endpointReader struct {
	object
	e     *Endpoint
	rules *ruleSet
}

func (n *network) endpoint(v value) Endpoint {
	e := Endpoint{At: v.at()}
	o, ok := v.object(slices.Concat(endpointKeys, internal)...)
	if !ok {
		return e
	}
	o.withoutInternal()
	before := v.r.errors
	er := endpointReader{o, &e, &ruleSet{}}
	er.destination()
	er.inspection()
	er.credentials()
	er.options() // before the rules, which are checked against them
	er.readRules()
	er.checkProtocol()
	if v.r.errors == before {
		er.checkRuleSet()
	}
	p := placed{Endpoint: e, value: v, host: n.hosts.compile(e.Host), scope: glob.CompileScope(e.PathScope)}
	if v.r.errors == before && p.host != nil {
		n.endpoints = append(n.endpoints, p)
	}
	return e
}

// compile returns a host pattern, nil if it is not valid.
func (h hosts) compile(pattern string) *glob.Host {
	if c, ok := h[pattern]; ok {
		return c
	}
	c, err := glob.CompileHost(pattern)
	if err != nil {
		c = nil
	}
	h[pattern] = c
	return c
}

// destination reads where the endpoint is.
func (er endpointReader) destination() {
	er.e.AllowedIPs = er.allowedIPs()
	er.readHost()
	er.readPorts()
}

func (er endpointReader) readHost() {
	raw := er.text("host")
	if raw == "" {
		v, ok := er.fields["host"]
		switch {
		case ok && !v.emptyText(): // not text, which is reported
		case !er.has("allowed_ips") || er.fields["allowed_ips"].emptyList():
			er.missing("host", "the host is missing; write a host, or allowed_ips for any name on these addresses")
		}
		return
	}
	er.e.Host = strings.ToLower(raw)
	v := er.fields["host"]
	if v.checkHost(er.e.Host) {
		v.checkInside(er.e)
	}
}

// emptyList reports whether the value is a list without entries.
func (v value) emptyList() bool { return v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 }

// checkInside refuses an address as host that the endpoint's own allowed_ips
// leave out.
func (v value) checkInside(e *Endpoint) {
	p, err := parsePrefix(e.Host)
	if err != nil || len(e.AllowedIPs) == 0 {
		return
	}
	for _, a := range e.AllowedIPs {
		if a.Prefix.Contains(p.Addr()) {
			return
		}
	}
	v.fail("%s is not inside allowed_ips and would never be reached; add it there", quoted(e.Host))
}

// controlPorts are the ports of a cluster's control plane.
var controlPorts = []uint16{2379, 2380, 6443, 10250, 10255}

func (er endpointReader) readPorts() {
	single, hasPort := er.fields["port"]
	_, hasPorts := er.fields["ports"]
	var vs []value
	switch {
	case hasPort && hasPorts:
		single.fail("port and ports are both set; keep ports")
		return
	case hasPort:
		vs = []value{single}
	case hasPorts:
		var ok bool
		if vs, ok = er.fields["ports"].list(); ok && len(vs) == 0 {
			er.fields["ports"].fail("the list is empty; write at least one port")
		}
	default:
		er.missing("port", "the port is missing; write port or ports")
	}
	for _, v := range vs {
		n, ok := v.number(1, 65535)
		port := uint16(n)
		switch {
		case !ok:
		case slices.Contains(er.e.Ports, port):
			v.warn("port %d is listed twice", port)
		default:
			if slices.Contains(controlPorts, port) {
				v.warn("port %d belongs to a cluster's control plane and is refused at connect", port)
			}
			er.e.Ports = append(er.e.Ports, port)
		}
	}
}

// inspection reads what decides about single requests, except the rules.
func (er endpointReader) inspection() {
	er.readProtocol()
	er.readTLS()
	er.readPath()
	er.e.Enforce = er.word("enforcement", "audit", "enforce") == "enforce"
	er.e.Access = er.word("access", "read-only", "read-write", "full")
	er.e.AllowEncodedSlash = er.flag("allow_encoded_slash", false)
}

// protocolNames are other names for protocols, and the words of the schema for them.
var protocolNames = map[string]string{
	"http": "rest for HTTP requests", "https": "rest for HTTP requests", "grpc": "rest, gRPC methods are paths",
	"ws": "websocket", "wss": "websocket", "postgres": "tcp", "postgresql": "tcp", "mysql": "tcp", "redis": "tcp",
}

func (er endpointReader) readProtocol() {
	v := er.fields["protocol"]
	if v.node != nil && protocolNames[v.node.Value] != "" {
		v.fail("unknown word %s; write %s", quoted(v.node.Value), protocolNames[v.node.Value])
		return
	}
	words := make([]string, len(protocols))
	for i, p := range protocols {
		words[i] = string(p)
	}
	er.e.Protocol = Protocol(er.word("protocol", words...))
}

// flagged reports whether a key holds true. What is wrong with it is reported elsewhere.
func (er endpointReader) flagged(key string) bool {
	v, ok := er.fields[key]
	return ok && v.node.Value == "true"
}

func (er endpointReader) readTLS() {
	v, ok := er.fields["tls"]
	if !ok {
		return
	}
	switch word := v.word("skip", "terminate", "passthrough"); word {
	case "skip":
		er.e.TLS = word
	case "terminate", "passthrough":
		v.warn("%s is deprecated and means the default; remove the key", word)
	}
}

func (er endpointReader) readPath() {
	scope := er.text("path")
	if scope == "" {
		return
	}
	er.e.PathScope = scope
	v := er.fields["path"]
	prefix, subtree := strings.CutSuffix(scope, "/**")
	err := glob.CompileScope(scope).Err()
	switch {
	case scope != "**" && scope[0] != '/':
		v.fail("%s does not start with /; write a path, or ** for all", quoted(scope))
	case err != nil:
		v.fail("%s is not a valid pattern: %v", quoted(scope), err)
	case subtree && strings.ContainsAny(prefix, "*?["):
		v.fail("%s would never match, in front of a final /** everything is literal; leave out the final /**, here * crosses / as well", quoted(scope))
	case scope != "**":
		v.checkCanonical(scope, er.flagged("allow_encoded_slash"))
	}
}

// options reads the blocks that belong to single protocols.
func (er endpointReader) options() {
	er.e.GraphQLMaxBodyBytes = defaultBody
	if v, ok := er.fields["graphql_max_body_bytes"]; ok {
		er.e.GraphQLMaxBodyBytes = v.bodyLimit()
	}
	er.e.PersistedQueries = "deny"
	if w := er.word("persisted_queries", "deny", "allow_registered"); w != "" {
		er.e.PersistedQueries = w
	}
	er.persistedQueries()
	switch er.e.Protocol {
	case ProtocolJSONRPC:
		er.e.JSONRPC = &JSONRPCOptions{MaxBodyBytes: defaultBody}
	case ProtocolMCP:
		er.e.MCP = &MCPOptions{MaxBodyBytes: defaultBody, StrictToolNames: true}
	}
	er.jsonRPC()
	er.mcp()
}

// defaultBody is how many bytes of a request body are inspected by default.
const defaultBody = 65536

func (v value) bodyLimit() uint32 {
	n, ok := v.number(1, 1<<32-1)
	if !ok {
		return defaultBody
	}
	return uint32(n)
}

func (o object) bodyLimit(key string) uint32 {
	if v, ok := o.fields[key]; ok {
		return v.bodyLimit()
	}
	return defaultBody
}

func (er endpointReader) jsonRPC() {
	v, ok := er.fields["json_rpc"]
	if !ok {
		return
	}
	o, _ := v.object("max_body_bytes")
	opts := JSONRPCOptions{MaxBodyBytes: o.bodyLimit("max_body_bytes")}
	if er.e.JSONRPC == nil {
		v.fail("json_rpc is read with protocol: json-rpc only; remove it")
		return
	}
	*er.e.JSONRPC = opts
}

func (er endpointReader) mcp() {
	v, ok := er.fields["mcp"]
	if !ok {
		return
	}
	o, _ := v.object("max_body_bytes", "strict_tool_names", "allow_all_known_mcp_methods")
	opts := MCPOptions{
		MaxBodyBytes:            o.bodyLimit("max_body_bytes"),
		StrictToolNames:         o.flag("strict_tool_names", true),
		AllowAllKnownMCPMethods: o.flag("allow_all_known_mcp_methods", false),
	}
	if er.e.MCP == nil {
		v.fail("mcp is read with protocol: mcp only; remove it")
		return
	}
	*er.e.MCP = opts
}

func (er endpointReader) persistedQueries() {
	v, ok := er.fields["graphql_persisted_queries"]
	if !ok {
		return
	}
	es, _ := v.entries()
	er.e.GraphQLPersistedQueries = map[string]PersistedQuery{}
	for _, e := range es {
		if e.name == "" {
			e.key.fail("the id is empty; write the id that clients send")
		}
		o, _ := e.object("operation_type", "operation_name", "fields")
		q := PersistedQuery{
			OperationType: o.word("operation_type", "query", "mutation", "subscription"),
			OperationName: o.text("operation_name"),
		}
		if !o.has("operation_type") {
			o.missing("operation_type", "the operation type is missing; write query, mutation or subscription")
		}
		for _, t := range o.texts("fields") {
			q.Fields = append(q.Fields, t.s)
		}
		er.e.GraphQLPersistedQueries[e.name] = q
	}
}
