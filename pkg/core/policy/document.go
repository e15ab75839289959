package policy

import (
	"net/netip"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Document is one policy file, version 1. A Document that Parse returned is
// valid: every rule of the schema holds and defaults are filled in where the field
// says so.
type Document struct {
	Version     int                   // always 1
	Filesystem  Filesystem            // static: enforced by the process daemon
	Landlock    Landlock              // static
	Process     Process               // static
	Network     map[string]Rule       // network_policies, by map key
	Middlewares map[string]Middleware // network_middlewares, by map key
}

// Filesystem is filesystem_policy: which paths the workload may use.
type Filesystem struct {
	Present        bool // the section was in the file
	IncludeWorkdir bool // default true
	ReadOnly       []string
	ReadWrite      []string
}

// Landlock is the landlock section.
type Landlock struct {
	Compatibility Compatibility
}

// Compatibility says what happens when the kernel cannot enforce everything.
type Compatibility string

// The compatibility words. The zero value reads as BestEffort.
const (
	BestEffort      Compatibility = "best_effort"
	HardRequirement Compatibility = "hard_requirement"
)

// Process is the process section: names or decimal numbers, empty when absent.
// Names are looked up by the process daemon in the workload's own image.
type Process struct {
	RunAsUser  string
	RunAsGroup string
}

// Rule is one entry of network_policies.
type Rule struct {
	Name      string // default: the map key
	Endpoints []Endpoint
	Binaries  []Binary
	At        strictyaml.Position
}

// Binary is one entry of a rule's binaries.
type Binary struct {
	Path string // absolute path or glob
	// AdvisorProposed says that the entry comes from a proposal of the workload. Only
	// the network daemon sets it; no file can.
	AdvisorProposed bool
	At              strictyaml.Position
}

// Protocol is an endpoint's protocol word. The zero value is a layer 4 endpoint.
type Protocol string

// The protocols.
const (
	ProtocolL4        Protocol = ""
	ProtocolTCP       Protocol = "tcp"
	ProtocolREST      Protocol = "rest"
	ProtocolWebSocket Protocol = "websocket"
	ProtocolGraphQL   Protocol = "graphql"
	ProtocolSQL       Protocol = "sql"
	ProtocolJSONRPC   Protocol = "json-rpc"
	ProtocolMCP       Protocol = "mcp"
)

// Inspected reports whether requests of this protocol are judged one by one.
func (p Protocol) Inspected() bool { return p != ProtocolL4 && p != ProtocolTCP }

// Endpoint is one destination of a rule.
type Endpoint struct {
	Host      string   // lower-cased; exact or with wildcards; empty only with AllowedIPs
	Ports     []uint16 // never empty; port and ports merged
	PathScope string   // "" means any
	Protocol  Protocol
	TLS       string // "skip", or "" (also for the deprecated words)
	Enforce   bool   // enforcement: enforce; false is audit, the default
	Access    string // "", read-only, read-write, full
	Allow     []Matcher
	Deny      []Matcher
	// AllowedIPs are the prefixes of allowed_ips; single addresses are full-length prefixes.
	AllowedIPs        []AllowedIP
	AllowEncodedSlash bool

	WebSocketCredentialRewrite   bool
	RequestBodyCredentialRewrite bool
	AllowUninspectedCredentials  bool
	PersistedQueries             string // deny (default) or allow_registered
	GraphQLPersistedQueries      map[string]PersistedQuery
	GraphQLMaxBodyBytes          uint32 // default 65536
	CredentialSigning            string
	SigningService               string
	SigningRegion                string
	CredentialBindingProvider    string // credential_binding.provider
	JSONRPC                      *JSONRPCOptions
	MCP                          *MCPOptions

	// AdvisorProposed says that the endpoint comes from a proposal of the workload, so
	// that its host, however exact, stands for public addresses only. Only the network
	// daemon sets it; no file can.
	AdvisorProposed bool

	At strictyaml.Position
}

// JSONRPCOptions is an endpoint's json_rpc block.
type JSONRPCOptions struct {
	MaxBodyBytes uint32 // default 65536
}

// MCPOptions is an endpoint's mcp block.
type MCPOptions struct {
	MaxBodyBytes            uint32 // default 65536
	StrictToolNames         bool   // default true
	AllowAllKnownMCPMethods bool   // default false
}

// PersistedQuery is one entry of graphql_persisted_queries.
type PersistedQuery struct {
	OperationType string
	OperationName string
	Fields        []string
}

// Matcher is the object inside allow, or one deny rule.
type Matcher struct {
	Method        string
	Path          string
	Command       string              // sql
	Query         map[string][]string // key to globs; a plain string is one glob
	OperationType string
	OperationName string
	Fields        []string
	Tool          string
	Params        map[string]string
	At            strictyaml.Position
}

// Middleware is one entry of network_middlewares.
type Middleware struct {
	Name       string // default: the map key
	Middleware string
	Order      int
	Config     map[string]any
	FailOpen   bool // on_error: fail_open
	Include    []string
	Exclude    []string
	At         strictyaml.Position
}

// AllowedIP is one entry of allowed_ips with its place in the file.
type AllowedIP struct {
	Prefix netip.Prefix
	At     strictyaml.Position
}
