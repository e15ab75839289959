package credentials

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

func (p *parser) signing(n strictyaml.Value) {
	o, ok := n.Object("provider", "access_key_id", "secret_access_key", "session_token")
	if !ok {
		return
	}
	s := Signing{
		Provider: o.Text("provider"), AccessKey: p.keyOf(o, "access_key_id", true),
		Secret: p.keyOf(o, "secret_access_key", true), Session: p.keyOf(o, "session_token", false),
	}
	if slices.ContainsFunc(p.doc.Signing, func(other Signing) bool { return other.Provider == s.Provider }) {
		n.Fail("another entry is for the same provider; keep one of the two")
	}
	p.doc.Signing = append(p.doc.Signing, s)
}

// keyOf reads the name of a key that the file has.
func (p *parser) keyOf(o strictyaml.Object, field string, needed bool) string {
	if !o.Has(field) {
		if needed {
			o.FailKey(field, "the key is missing; name one of credentials")
		}
		return ""
	}
	name := o.Text(field)
	if name != "" && p.find(name) == nil {
		o.Fields[field].Fail("no key of credentials has this name; add it there")
	}
	return name
}

func (p *parser) grants(n strictyaml.Value) {
	list, _ := n.List()
	if len(list) > MaxGrants {
		n.Fail("there are %d token grants; %d are allowed", len(list), MaxGrants)
		return
	}
	for _, n := range list {
		p.grant(n)
	}
}

func (p *parser) grant(n strictyaml.Value) {
	o, ok := n.Object("name", "bindings", "token_endpoint", "grant", "workload_api", "subject_key", "jwt_svid_audience",
		"client_assertion_type", "client_id", "audience", "scopes", "auth_style", "header_name", "cache_ttl")
	if !ok {
		return
	}
	g := Grant{
		Name: o.Text("name"), TokenEndpoint: o.Text("token_endpoint"), Exchange: o.Word("grant", "client_credentials", "token_exchange") == "token_exchange",
		WorkloadAPI: o.Text("workload_api"), SubjectKey: p.keyOf(o, "subject_key", false), SVIDAudience: o.Text("jwt_svid_audience"),
		AssertionType: o.Text("client_assertion_type"), ClientID: o.Text("client_id"), Audience: o.Text("audience"),
		TTL: duration(o, "cache_ttl", time.Second, 24*time.Hour), At: o.At(),
	}
	for _, t := range o.Texts("scopes") {
		g.Scopes = append(g.Scopes, t.S)
	}
	if o.Has("bindings") {
		g.Bindings = bindings(o.Fields["bindings"])
	} else {
		o.FailKey("bindings", "the grant is bound to no endpoint; write bindings with host and port")
	}
	p.checkGrant(o, &g)
	g.readHeader(o)
	p.doc.Grants = append(p.doc.Grants, g)
}

func (p *parser) checkGrant(o strictyaml.Object, g *Grant) {
	if g.Name == "" {
		o.FailKey("name", "the name is missing; records name the grant by it")
	}
	for i := range p.doc.Grants {
		other := &p.doc.Grants[i]
		if other.Name == g.Name && g.Name != "" {
			o.Fields["name"].Fail("another grant on line %d has this name; choose another", other.At.Line)
		}
		if ambiguous(other, g) {
			o.FailKey("bindings", "the grant on line %d is for the same host, port and path; one request gets one token", other.At.Line)
		}
	}
	switch why := CheckEndpoint(g.TokenEndpoint); {
	case g.TokenEndpoint == "":
		o.FailKey("token_endpoint", "the token endpoint is missing; write its URL")
	case why != "":
		o.Fields["token_endpoint"].Fail("%s", why)
	}
	switch {
	case g.WorkloadAPI == "" && g.SubjectKey == "":
		o.FailKey("workload_api", "the identity is missing; write workload_api with the socket, or subject_key with a key")
	case g.WorkloadAPI != "" && g.SubjectKey != "":
		o.Fields["subject_key"].Fail("workload_api and subject_key are both set; keep one")
	case g.WorkloadAPI != "" && !strings.HasPrefix(g.WorkloadAPI, "unix:///"):
		o.Fields["workload_api"].Fail("%s is not a Unix socket; write unix:/// and its path", strictyaml.Quoted(g.WorkloadAPI))
	}
}

// ambiguous reports whether neither of two grants is the better one for a request.
func ambiguous(a, b *Grant) bool {
	for _, x := range a.Bindings {
		for _, y := range b.Bindings {
			if x.Host == y.Host && x.Path == y.Path && slices.ContainsFunc(x.Ports, func(p uint16) bool { return slices.Contains(y.Ports, p) }) {
				return true
			}
		}
	}
	return false
}

// forbiddenHeaders cannot carry a token: they frame or address the message.
var forbiddenHeaders = []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect"}

func (g *Grant) readHeader(o strictyaml.Object) {
	style := o.Word("auth_style", "bearer", "header")
	g.Header = o.Text("header_name")
	switch {
	case style != "header" && o.Has("header_name"):
		o.Fields["header_name"].Fail("header_name has no effect without auth_style: header; add that or remove this")
	case style != "header":
		g.Header = ""
	case g.Header == "" || strings.Trim(g.Header, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		o.FailKey("header_name", "the header is missing or not a name; write letters, digits and -")
	case slices.Contains(forbiddenHeaders, strings.ToLower(g.Header)):
		o.Fields["header_name"].Fail("%s frames or addresses a message and carries no token; choose another", strictyaml.Quoted(g.Header))
	}
}

// CheckEndpoint says what is wrong with the URL of a token endpoint, "" if nothing:
// it is https, or plain http to this pod or into the cluster.
func CheckEndpoint(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return "the token endpoint is not a URL; write https://host/path"
	case u.User != nil:
		return "the token endpoint has a user in its URL; remove it"
	case u.Fragment != "" || strings.Contains(text, "#"):
		return "the token endpoint has a fragment; remove it"
	case u.Scheme == "https":
		return ""
	case u.Scheme != "http":
		return "the token endpoint is neither https nor http; write https://host/path"
	case !Nearby(u.Hostname()):
		return "the token endpoint is not https; plain http goes to loopback or to a service of the cluster only"
	}
	return ""
}

// Nearby reports whether a host is this pod or a service of the cluster.
func Nearby(host string) bool {
	switch host = strings.ToLower(host); host {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	labels := strings.Split(strings.TrimSuffix(host, ".cluster.local"), ".")
	return len(labels) == 3 && labels[2] == "svc" && labels[0] != "" && labels[1] != ""
}
