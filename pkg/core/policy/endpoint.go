package policy

import (
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
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
	strictyaml.Object
	e     *Endpoint
	rules *ruleSet
}

func (n *network) endpoint(v strictyaml.Value) Endpoint {
	e := Endpoint{At: v.At()}
	o, ok := v.Object(slices.Concat(endpointKeys, internal)...)
	if !ok {
		return e
	}
	e.AdvisorProposed = n.proposed(o)
	before := v.Errors()
	er := endpointReader{o, &e, &ruleSet{}}
	er.destination()
	er.inspection()
	er.credentials()
	er.options() // before the rules, which are checked against them
	er.readRules()
	er.checkProtocol()
	if n.composed {
		er.checkCredentialed()
	}
	if v.Errors() == before {
		er.checkRuleSet()
	}
	p := placed{Endpoint: e, Value: v, host: n.hosts.compile(e.Host), scope: glob.CompileScope(e.PathScope)}
	if v.Errors() == before && p.host != nil {
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
	er.e.AllowedIPs = readAllowedIPs(er.Object)
	er.readHost()
	er.readPorts()
}

func (er endpointReader) readHost() {
	raw := er.Text("host")
	if raw == "" {
		v, ok := er.Fields["host"]
		switch {
		case ok && !v.IsEmptyText(): // not text, which is reported
		case !er.Has("allowed_ips") || er.Fields["allowed_ips"].IsEmptyList():
			er.FailKey("host", "the host is missing; write a host, or allowed_ips for any name on these addresses")
		}
		return
	}
	er.e.Host = strings.ToLower(raw)
	v := er.Fields["host"]
	if checkHost(v, er.e.Host) {
		checkInside(v, er.e)
	}
}

// checkInside refuses an address as host that the endpoint's own allowed_ips
// leave out.
func checkInside(v strictyaml.Value, e *Endpoint) {
	p, err := parsePrefix(e.Host)
	if err != nil || len(e.AllowedIPs) == 0 {
		return
	}
	for _, a := range e.AllowedIPs {
		if a.Prefix.Contains(p.Addr()) {
			return
		}
	}
	v.Fail("%s is not inside allowed_ips and would never be reached; add it there", strictyaml.Quoted(e.Host))
}

// controlPorts are the ports of a cluster's control plane.
var controlPorts = []uint16{2379, 2380, 6443, 10250, 10255}

func (er endpointReader) readPorts() {
	single, hasPort := er.Fields["port"]
	_, hasPorts := er.Fields["ports"]
	var vs []strictyaml.Value
	switch {
	case hasPort && hasPorts:
		single.Fail("port and ports are both set; keep ports")
		return
	case hasPort:
		vs = []strictyaml.Value{single}
	case hasPorts:
		var ok bool
		if vs, ok = er.Fields["ports"].List(); ok && len(vs) == 0 {
			er.Fields["ports"].Fail("the list is empty; write at least one port")
		}
	default:
		er.FailKey("port", "the port is missing; write port or ports")
	}
	for _, v := range vs {
		n, ok := v.Number(1, 65535)
		port := uint16(n)
		switch {
		case !ok:
		case slices.Contains(er.e.Ports, port):
			v.Warn("port %d is listed twice", port)
		default:
			if slices.Contains(controlPorts, port) {
				v.Warn("port %d belongs to a cluster's control plane and is refused at connect", port)
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
	er.e.Enforce = er.Word("enforcement", "audit", "enforce") == "enforce"
	er.e.Access = er.Word("access", "read-only", "read-write", "full")
	er.e.AllowEncodedSlash = er.Flag("allow_encoded_slash", false)
}

// protocolNames are other names for protocols, and the words of the schema for them.
var protocolNames = map[string]string{
	"http": "rest for HTTP requests", "https": "rest for HTTP requests", "grpc": "rest, gRPC methods are paths",
	"ws": "websocket", "wss": "websocket", "postgres": "tcp", "postgresql": "tcp", "mysql": "tcp", "redis": "tcp",
}

func (er endpointReader) readProtocol() {
	v := er.Fields["protocol"]
	if word := v.Literal(); protocolNames[word] != "" {
		v.Fail("unknown word %s; write %s", strictyaml.Quoted(word), protocolNames[word])
		return
	}
	words := make([]string, len(protocols))
	for i, p := range protocols {
		words[i] = string(p)
	}
	er.e.Protocol = Protocol(er.Word("protocol", words...))
}

// flagged reports whether a key holds true. What is wrong with it is reported elsewhere.
func (er endpointReader) flagged(key string) bool {
	v, ok := er.Fields[key]
	return ok && v.Literal() == "true"
}

func (er endpointReader) readTLS() {
	v, ok := er.Fields["tls"]
	if !ok {
		return
	}
	switch word := v.Word("skip", "terminate", "passthrough"); word {
	case "skip":
		er.e.TLS = word
	case "terminate", "passthrough":
		v.Warn("%s is deprecated and means the default; remove the key", word)
	}
}

func (er endpointReader) readPath() {
	scope := er.Text("path")
	if scope == "" {
		return
	}
	er.e.PathScope = scope
	v := er.Fields["path"]
	prefix, subtree := strings.CutSuffix(scope, "/**")
	err := glob.CompileScope(scope).Err()
	switch {
	case scope != "**" && scope[0] != '/':
		v.Fail("%s does not start with /; write a path, or ** for all", strictyaml.Quoted(scope))
	case err != nil:
		v.Fail("%s is not a valid pattern: %v", strictyaml.Quoted(scope), err)
	case subtree && strings.ContainsAny(prefix, "*?["):
		v.Fail("%s would never match, in front of a final /** everything is literal; leave out the final /**, here * crosses / as well", strictyaml.Quoted(scope))
	case scope != "**":
		checkCanonical(v, scope, er.flagged("allow_encoded_slash"))
	}
}

// options reads the blocks that belong to single protocols.
func (er endpointReader) options() {
	er.e.GraphQLMaxBodyBytes = defaultBody
	if v, ok := er.Fields["graphql_max_body_bytes"]; ok {
		er.e.GraphQLMaxBodyBytes = bodyLimit(v)
	}
	er.e.PersistedQueries = "deny"
	if w := er.Word("persisted_queries", "deny", "allow_registered"); w != "" {
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

func bodyLimit(v strictyaml.Value) uint32 {
	n, ok := v.Number(1, 1<<32-1)
	if !ok {
		return defaultBody
	}
	return uint32(n)
}

func maxBodyBytes(o strictyaml.Object) uint32 {
	if v, ok := o.Fields["max_body_bytes"]; ok {
		return bodyLimit(v)
	}
	return defaultBody
}

func (er endpointReader) jsonRPC() {
	v, ok := er.Fields["json_rpc"]
	if !ok {
		return
	}
	o, _ := v.Object("max_body_bytes")
	opts := JSONRPCOptions{MaxBodyBytes: maxBodyBytes(o)}
	if er.e.JSONRPC == nil {
		v.Fail("json_rpc is read with protocol: json-rpc only; remove it")
		return
	}
	*er.e.JSONRPC = opts
}

func (er endpointReader) mcp() {
	v, ok := er.Fields["mcp"]
	if !ok {
		return
	}
	o, _ := v.Object("max_body_bytes", "strict_tool_names", "allow_all_known_mcp_methods")
	opts := MCPOptions{
		MaxBodyBytes:            maxBodyBytes(o),
		StrictToolNames:         o.Flag("strict_tool_names", true),
		AllowAllKnownMCPMethods: o.Flag("allow_all_known_mcp_methods", false),
	}
	if er.e.MCP == nil {
		v.Fail("mcp is read with protocol: mcp only; remove it")
		return
	}
	*er.e.MCP = opts
}

func (er endpointReader) persistedQueries() {
	v, ok := er.Fields["graphql_persisted_queries"]
	if !ok {
		return
	}
	es, _ := v.Entries()
	er.e.GraphQLPersistedQueries = map[string]PersistedQuery{}
	for _, e := range es {
		if e.Name == "" {
			e.Key.Fail("the id is empty; write the id that clients send")
		}
		o, _ := e.Object("operation_type", "operation_name", "fields")
		q := PersistedQuery{
			OperationType: o.Word("operation_type", "query", "mutation", "subscription"),
			OperationName: o.Text("operation_name"),
		}
		if !o.Has("operation_type") {
			o.FailKey("operation_type", "the operation type is missing; write query, mutation or subscription")
		}
		for _, t := range o.Texts("fields") {
			q.Fields = append(q.Fields, t.S)
		}
		er.e.GraphQLPersistedQueries[e.Name] = q
	}
}
