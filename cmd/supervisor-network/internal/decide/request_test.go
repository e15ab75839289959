package decide

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// inspected compiles rules whose requests are judged.
func inspected(t testing.TB, rules string) *Snapshot {
	t.Helper()
	s, err := build(t.Context(), parse(t, "version: 1\nnetwork_policies:\n"+rules), Options{Generation: 7, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// one is the rules of a single endpoint of api.example.com.
func one(fields string) string {
	return "  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, enforcement: enforce, " + fields + "}]}\n"
}

func permitted(t testing.TB, s *Snapshot) Permit {
	t.Helper()
	p, denial := s.Connection(t.Context(), Question{&core.Identity{}, "api.example.com", 443})
	if denial != nil {
		t.Fatal(denial.Detail)
	}
	return p
}

// ruled is what both procedures say about a request.
func ruled(t testing.TB, s *Snapshot, r *Request) Ruling {
	t.Helper()
	p := permitted(t, s)
	e, _ := s.Endpoint(p, r.Path)
	out := s.Request(p, e, r)
	again, err := s.byModule(t.Context(), p, r)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if out != again {
		t.Fatalf("%+v: %s", r, cmp.Diff(out, again, cmp.AllowUnexported(Ruling{})))
	}
	if !out.Allowed && (out.Detail == "" || out.ReasonOf() == "") || out.Audited && out.Detail == "" {
		t.Errorf("%+v gives no reason for its %+v", r, out)
	}
	return out
}

// line makes a request of "METHOD /path?query".
func line(s string) *Request {
	method, target, _ := strings.Cut(s, " ")
	path, query, _ := strings.Cut(target, "?")
	return &Request{Method: method, Path: path, Query: query}
}

// lines checks what is allowed and refused by one policy.
func lines(t *testing.T, s *Snapshot, allowed, refused []string) {
	t.Helper()
	for _, l := range allowed {
		if got := ruled(t, s, line(l)); !got.Allowed || got.Audited {
			t.Errorf("%s is refused: %s", l, got.Detail)
		}
	}
	for _, l := range refused {
		if got := ruled(t, s, line(l)); got.Allowed {
			t.Errorf("%s is allowed", l)
		}
	}
}

func TestPresetsAllowTheirMethods(t *testing.T) {
	for _, tt := range []struct {
		access           string
		allowed, refused []string
	}{
		{"read-only", []string{"GET /", "HEAD /a", "OPTIONS /", "get /"}, []string{"POST /", "PUT /", "PATCH /", "DELETE /", "TRACE /", "GETS /", "GE /", "PROPFIND /"}},
		{"read-write", []string{"GET /", "HEAD /", "OPTIONS /", "POST /", "PUT /", "patch /a/b"}, []string{"DELETE /", "TRACE /", "LINK /"}},
		{"full", []string{"GET /", "DELETE /a", "PROPFIND /", "anything /"}, []string{"WEBSOCKET_TEXT /", "websocket_text /"}},
	} {
		t.Run(tt.access, func(t *testing.T) {
			lines(t, inspected(t, one("protocol: rest, access: "+tt.access)), tt.allowed, tt.refused)
		})
	}
}

func TestMethodsOfRules(t *testing.T) {
	s := inspected(t, one(`protocol: rest, rules: [{allow: {method: get, path: "/read/**"}}, {allow: {method: "*", path: "/any/**"}}, {allow: {method: HEAD, path: /head}}],
		deny_rules: [{method: GET, path: "/any/secret"}, {method: head, path: "/any/big"}, {method: delete, path: "/any/kept"}]`))
	lines(t, s,
		[]string{"GET /read/a", "get /read/a", "HEAD /read/a", "hEaD /read/a", "POST /any/secret", "GET /any/big", "HEAD /head", "POST /any/kept"},
		[]string{"POST /read/a", "HEADS /read/a", "GET\u017f /read/a", "GET /head",
			"GET /any/secret", "get /any/secret", "HEAD /any/secret", "head /any/secret", "HEAD /any/big", "DELETE /any/kept", "dElEtE /any/kept"})
}

// The table of rule paths.
func TestPathsOfRules(t *testing.T) {
	for _, tt := range []struct{ pattern, matches, misses string }{
		{"/repos/*/issues", "/repos/acme/issues", "/repos/acme/widgets/issues /repos//x"},
		{"/repos/*", "/repos/ /repos/a", "/repos /repos/a/b"},
		{"/repos/**", "/repos/ /repos/a/b", "/repos"},
		{"/**", "/ /a/b", ""},
		{"/*", "/ /a", "/a/b"},
		{"**", "/ /a /a/b/c", ""},
		{"/**/info/refs*", "/o/r.git/info/refs /info/refs /info/refsx", "/info/ref /info/refs/x"},
		{"**/issues", "/repos/a/issues /issues", "/issues/a /issuesx"},
		{"/a/**/b", "/a/b /a/x/y/b", "/ab /a/b/c"},
		{"/a**", "/abc", "/abc/d"},
		{"/v?/x", "/v1/x", "/v12/x /v/x"},
		{"/v?x", "/vax", "/v/x"},
		{"/v[0-9]/x", "/v7/x", "/va/x"},
		{"/v[!0]x", "/vax /v/x", "/v0x"},
		{"/{a,b}/x", "/a/x /b/x", "/c/x"},
		{"/Repos", "/Repos", "/repos /REPOS"},
		{"/pkg.Svc/Get*", "/pkg.Svc/GetUser", "/pkg.svc/GetUser /pkg.Svc/SetUser /pkg.Svc/GetUser/x /pkgxSvc/GetUser"},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			s := inspected(t, one(`protocol: rest, rules: [{allow: {method: POST, path: "`+tt.pattern+`"}}]`))
			var hits, misses []string
			for _, path := range strings.Fields(tt.matches) {
				hits = append(hits, "POST "+path)
			}
			for _, path := range strings.Fields(tt.misses) {
				misses = append(misses, "POST "+path)
			}
			lines(t, s, hits, misses)
		})
	}
}

func TestADenyRuleReadsAPathAsOriginsMay(t *testing.T) {
	s := inspected(t, one(`protocol: rest, access: full, allow_encoded_slash: true, deny_rules: [{method: "*", path: /admin}, {method: "*", path: "/x/**"}, {method: "*", path: "/one/*"}]`))
	lines(t, s,
		[]string{"GET /", "GET /adminx", "GET /admin/a", "GET /x", "GET /xy/z", "GET /one/a/b", "GET /one", "GET /a%2Fb", "GET /a%5Cb", "GET /a%3Badmin", "GET /adminx%3Ba", "GET /one%3Ba", "GET /%3B/a"},
		[]string{"GET /ADMIN", "GET /aDmin/", "GET /X%2FA/", "GET /One/%2FA", "GET /admin", "GET /admin/", "GET /x/", "GET /x/a/b", "GET /x%2Fa", "GET /x%2Fa/", "GET /admin%2F", "GET /one/a", "GET /one/a/", "GET /one%2Fa", "GET /one/a%2Fb",
			"GET /x%5Ca", "GET /admin%5C", "GET /one%5Ca", "GET /one/a%5Cb",
			"GET /%2Fadmin", "GET /%5Cadmin", "GET /%2F%2F%5Cadmin%2F", "GET /one/%2Fa", "GET /x%2F%5Ca",
			"GET /admin%3Ba", "GET /admin%3B/", "GET /%3Ba/admin", "GET /x%3Ba/b", "GET /one/a%3Bb", "GET /one%3Bb%5Ca", "GET /one%5Ca%3Bb", "GET /%2F%3B%2Fadmin"})
}

func TestAnEncodedSlashDoesNotLeadAroundAnEndpoint(t *testing.T) {
	s := inspected(t, `
  a:
    binaries: [{path: /x}]
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, access: full, allow_encoded_slash: true}
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, path: "/admin/**", access: read-only}
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, path: "/api/*/x", access: full, allow_encoded_slash: true}
`)
	lines(t, s, []string{"POST /other%2Fx", "POST /admin2%2Fx", "POST /api/a%2Fb/x"}, []string{"POST /admin%2Fx", "GET /admin%2F", "POST /api/a%2Fx", "POST /api%2Fa/x", "POST /admin%5Cx", "POST /api/a%5Cx", "POST /%2Fadmin/x", "POST /admin%3Ba/x", "POST /%3B/admin/x", "POST /admin%3B%2Fx"})
	lines(t, s, nil, []string{"POST /Admin/x", "POST /ADMIN%2Fx", "GET /aPi/a/X", "POST /api%2Fa/X"})
	lines(t, s, []string{"POST /other%3Bx", "POST /admin2%3Bx"}, nil)
	if got := ruled(t, s, line("POST /admin%2Fx")); got.Detail != "POST /admin%2Fx not permitted by policy: its letter case, or an encoded slash or semicolon, could lead to another endpoint" {
		t.Errorf("got %+v", got)
	}
}

// Rules of other endpoints and rules, and which of them count.
func TestADenyRuleOutweighsEveryAllow(t *testing.T) {
	s := inspected(t, `
  a: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full}]}
  b:
    binaries: [{path: /x}]
    endpoints:
      - {host: "*.example.com", port: 443, protocol: rest, enforcement: enforce, path: "/v1/**", access: read-only, deny_rules: [{method: DELETE, path: "**"}]}
      - {host: api.example.com, port: 80, protocol: rest, enforcement: enforce, access: full, deny_rules: [{method: PUT, path: "**"}]}
      - {host: other.example.com, port: 443, protocol: rest, enforcement: enforce, access: full, deny_rules: [{method: POST, path: "**"}]}
`)
	lines(t, s,
		[]string{"DELETE /v2/x", "POST /v1/x", "PUT /v1/x", "GET /v1"},
		[]string{"DELETE /v1/x", "DELETE /v1", "delete /v1/x"})
	got := ruled(t, s, line("DELETE /v1/x"))
	if got.Rule != "b" || got.Detail != "DELETE /v1/x blocked by deny rule" || got.Protocol != policy.ProtocolREST {
		t.Errorf("got %+v", got)
	}
}

func TestQueriesOfRulesThatAllow(t *testing.T) {
	s := inspected(t, one(`protocol: rest, rules: [{allow: {method: GET, path: "**", query: {tag: "prod-*", sort: {any: [created, "upd*"]}}}}, {allow: {method: GET, path: /free}}]`))
	lines(t, s,
		[]string{
			"GET /?tag=prod-1&sort=created", "GET /?sort=updated&tag=prod-", "GET /?tag=prod-1&tag=prod-2&sort=created&other=x",
			"GET /?t%61g=prod%2D1&sort=cr%65ated", "GET /?tag=prod-1&sort=created&&", "GET /?tag=prod-a+b&sort=created",
			"GET /?tag=prod-1&sort=created&Tag=prod-2&+tag=prod-3", "GET /?tag=prod-1&sort=created&[x][tag]=evil&tags[]=evil",
			"GET /?tag=prod-;x&sort=created", "GET /?tag=prod-1&sort=created&x=a%3Btag=evil", "GET /?x=1;y=2&tag=prod-1&sort=created",
		},
		[]string{
			"GET /", "GET /?tag=prod-1", "GET /?tag=prod-1&tag=evil&sort=created", "GET /?tag=evil&tag=prod-1&sort=created",
			"GET /?tag=prod-1&t%61g=evil&sort=created", "GET /?TAG=prod-1&sort=created", "GET /?tag=prod-1.2&sort=created",
			"GET /?tag=prod-1&+tag=evil&sort=created", "GET /?tag=prod-1&tag[]=evil&sort=created", "GET /?tag=prod-1&[tag]=evil&sort=created", "GET /?Tag=evil&tag=prod-1&sort=created", // as some origins find it
			"GET /?tag=prod-1;sort=created", "GET /?tag=prod-1&sort=created;tag=evil", "GET /?x=1;tag=evil&tag=prod-1&sort=created", "GET /?;t%61g=evil&tag=prod-1&sort=created",
			"GET /?tag=prod-1&sort=created&x=1;sort", "GET /?tag=prod-1&sort=", "GET /?tag&sort=created", "GET /?tag[]=prod-1&sort=created",
			"GET /?tag=prod-1&sort=created&x=%", "GET /?tag=prod-1&sort=created&x=%zz", "GET /?tag=prod-1&sort=created&x=%00",
			"GET /?tag=prod-1&sort=created&x=%ff", "GET /?tag=prod-1&sort=created&x=%c3", "GET /free?x=%", "GET /free?x=%2",
		})
}

// TestAMethodThatOverridesIsJudgedAsWell: it never allows, and is refused like one that is
// sent as it is.
func TestAMethodThatOverridesIsJudgedAsWell(t *testing.T) {
	for _, tt := range []struct {
		rules, method string
		overrides     []string
		detail        string // "": allowed
	}{
		{"access: read-write", "POST", nil, ""},
		{"access: read-write", "POST", []string{"PATCH"}, ""},
		{"access: read-write", "POST", []string{"patch", "GET"}, ""},
		{"access: read-write", "POST", []string{"DELETE"}, "DELETE /a not permitted by policy"},
		{"access: read-write", "POST", []string{"PUT", "delete"}, "delete /a not permitted by policy"},
		{"access: read-write", "GET", []string{"DELETE"}, "DELETE /a not permitted by policy"},
		{"access: read-write", "DELETE", []string{"POST"}, "DELETE /a not permitted by policy"},
		{"access: read-only", "POST", []string{"GET"}, "POST /a not permitted by policy"},
		{"access: read-write", "POST", []string{"WEBSOCKET_TEXT"}, "WEBSOCKET_TEXT names the messages of a WebSocket and is no method of a request"},
		{"access: full", "POST", []string{"PURGE"}, ""},
		{`access: full, deny_rules: [{method: DELETE, path: "/a"}]`, "POST", []string{"DELETE"}, "DELETE /a blocked by deny rule"},
		{`access: full, deny_rules: [{method: DELETE, path: "/b"}]`, "POST", []string{"DELETE"}, ""},
	} {
		got := ruled(t, inspected(t, one("protocol: rest, "+tt.rules)), &Request{Method: tt.method, Path: "/a", Overrides: tt.overrides})
		if got.Allowed != (tt.detail == "") || got.Detail != tt.detail {
			t.Errorf("%s, %s taken for %v: %+v", tt.rules, tt.method, tt.overrides, got)
		}
	}
}

func TestQueriesOfRulesThatDeny(t *testing.T) {
	s := inspected(t, one(`protocol: rest, access: full, deny_rules: [{method: DELETE, path: "**", query: {force: "true"}}, {method: PUT, path: "**", query: {a: "x*", b: "y"}}, {method: DELETE, path: "**", query: {file_id: "1"}}]`))
	lines(t, s,
		[]string{
			"DELETE /", "DELETE /?force=false", "DELETE /?Force=false", "DELETE /?force=TRUE", "DELETE /?x=1%3Bforce=true", "DELETE /?forced=true", "DELETE /?[x][force]=true", "DELETE /?forc[e]=true",
			"PUT /?a=x", "PUT /?a=x&b=z", "GET /?force=true", "DELETE /?x=%C3%A9",
		},
		[]string{
			"DELETE /?force=true", "DELETE /?force=false&force=true", "DELETE /?force=true&force=false", "DELETE /?%66orce=tru%65",
			"DELETE /?Force=true", "DELETE /?force[]=true", "DELETE /?force[x][y]=true", "DELETE /?+force=true", "DELETE /?%20%46orce%5B=true", "DELETE /?[force]=true", "DELETE /?+%5BForce%5D[x]=true", "DELETE /?[[force=true", "DELETE /?force]=true", "DELETE /?[force][=true", "DELETE /?file.id=1", "DELETE /?file[id=1", // as some origins find it
			"DELETE /?x=1;force=true", "DELETE /?force=true;x", "DELETE /?;%66orce=true;", "PUT /?a=x;b=y", "PUT /?a=xx;b=z&b=y",
			"PUT /?a=x.y&b=y", "PUT /?b=z&b=y&a=q&a=xx", "DELETE /?force=%", "GET /?a=%zz", "DELETE /?force=true%00", "DELETE /?x=%FF",
		})
}

func TestAQueryIsReadOnlyWhereRulesLookAtIt(t *testing.T) {
	lines(t, inspected(t, one(`protocol: rest, access: read-only`)), []string{"GET /?x=%", "GET /?x=%ff"}, nil)
}

func TestWildcardsOfNamesStopAtDotsOnlyInRulesThatAllow(t *testing.T) {
	for _, tt := range []struct{ pattern, matches, misses, denies string }{
		{"*", " foo a/b", "a.b", "a.b foo"},
		{"**", "a.b anything", "", "a.b"},
		{"foo-*", "foo-bar", "foo-a.b", "foo-a.b foo-bar"},
		{"1.*", "1.2", "1.2.3", "1.2 1.2.3"},
		{"1.**", "1.2.3", "1", "1.2.3"},
		{"a/*", "a/b/c", "a/b.c", "a/b.c"},
		{"fs.*", "fs.read", "fs.read.all", "fs.read.all"},
		{"delete*", "delete_all", "delete.all", "delete.all delete_all"},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			allow := inspected(t, one(`protocol: rest, rules: [{allow: {method: GET, path: "**", query: {q: "`+tt.pattern+`"}}}]`))
			deny := inspected(t, one(`protocol: rest, access: full, deny_rules: [{method: GET, path: "**", query: {q: "`+tt.pattern+`"}}]`))
			for value := range strings.SplitSeq(tt.matches, " ") {
				lines(t, allow, []string{"GET /?q=" + value}, nil)
				lines(t, deny, nil, []string{"GET /?q=" + value})
			}
			for _, value := range strings.Fields(tt.misses) {
				lines(t, allow, nil, []string{"GET /?q=" + value})
			}
			for _, value := range strings.Fields(tt.denies) {
				lines(t, deny, nil, []string{"GET /?q=" + value})
			}
			lines(t, deny, []string{"GET /?p=x"}, nil)
		})
	}
}

// The table of path scopes.
func TestScopesOfEndpoints(t *testing.T) {
	for _, tt := range []struct{ scope, matches, misses string }{
		{"**", "/ /a/b", ""},
		{"/**", "/ /a/b", ""},
		{"/graphql", "/graphql", "/graphql/ /graphqlx"},
		{"/v1/**", "/v1 /v1/a/b", "/v1x /"},
		{"/repos/*/issues", "/repos/x/issues /repos/a/b/issues", "/repos/issues"},
		{"/v1/*", "/v1/a /v1/a/b", "/v1"},
	} {
		t.Run(tt.scope, func(t *testing.T) {
			s := inspected(t, one(`protocol: rest, access: full, path: "`+tt.scope+`"`))
			for _, path := range strings.Fields(tt.matches) {
				lines(t, s, []string{"GET " + path}, nil)
			}
			for _, path := range strings.Fields(tt.misses) {
				lines(t, s, nil, []string{"GET " + path})
			}
		})
	}
}

const scoped = `
  a:
    binaries: [{path: /x}]
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full}
      - {host: api.example.com, port: 443, protocol: graphql, enforcement: enforce, path: /graphql, access: read-only, graphql_max_body_bytes: 9}
      - {host: api.example.com, port: 443, protocol: rest, path: "/loose/**", access: read-only}
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, path: "/loose/strict/**", access: read-only, allow_encoded_slash: true}
      - {host: api.example.com, port: 443}
`

func TestTheMostSpecificEndpointTreatsARequest(t *testing.T) {
	s := inspected(t, scoped)
	p := permitted(t, s)
	for path, want := range map[string]Endpoint{
		"/":               {Protocol: policy.ProtocolREST, Enforce: true},
		"/graphql":        {Protocol: policy.ProtocolGraphQL, Enforce: true, MaxBody: 9},
		"/graphql/":       {Protocol: policy.ProtocolREST, Enforce: true},
		"/loose":          {Protocol: policy.ProtocolREST},
		"/loose/a":        {Protocol: policy.ProtocolREST},
		"/loose/strict":   {Protocol: policy.ProtocolREST, Enforce: true, EncodedSlash: true},
		"/loose/strict/x": {Protocol: policy.ProtocolREST, Enforce: true, EncodedSlash: true},
	} {
		got, ok := s.Endpoint(p, path)
		got.number = 0
		if !ok || got != want {
			t.Errorf("%s: %+v, %v", path, got, ok)
		}
	}
	if !p.Inspected() || !p.EncodedSlash() {
		t.Errorf("%+v", p)
	}
}

func TestGraphQLIsNotAllowedByRulesAboutRequests(t *testing.T) {
	s := inspected(t, scoped)
	mutation := &Request{Method: "POST", Path: "/graphql", Operations: []Operation{{Type: "mutation", Fields: []string{"a"}}}}
	if got := ruled(t, s, mutation); got.Allowed || got.Protocol != policy.ProtocolGraphQL {
		t.Errorf("got %+v", got)
	}
	mutation.Operations[0].Type = "query"
	if got := ruled(t, s, mutation); !got.Allowed {
		t.Errorf("got %+v", got)
	}
	lines(t, s, []string{"POST /graph", "DELETE /graphql/"}, []string{"POST /graphql", "GET /graphql"})
}

func TestRequestsOnAnUninspectedEndpointGetNoPermission(t *testing.T) {
	s := inspected(t, `
  a: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443}]}
  b: {binaries: [{path: /x}], endpoints: [{host: "*.example.com", port: 443, protocol: rest, enforcement: audit, path: "/v1/**", access: read-only}]}
`)
	lines(t, s, []string{"GET /v1/a"}, []string{"GET /", "GET /v2"}) // none for the path: refused although b audits
	if got := ruled(t, s, line("GET /v2")); got.Detail != "GET /v2 not permitted by policy: it did not match an L7 endpoint path" {
		t.Errorf("got %q", got.Detail)
	}
	if got := ruled(t, s, line("POST /v1/a")); !got.Allowed || !got.Audited || got.Detail != "POST /v1/a not permitted by policy" || got.Rule != "b" {
		t.Errorf("got %+v", got)
	}
}

func TestAuditPassesWhatRulesRefuse(t *testing.T) {
	s := inspected(t, `
  a: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: rest, path: "/a/**", access: full, deny_rules: [{method: DELETE, path: "**"}]}]}
  b: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full, deny_rules: [{method: PUT, path: "**"}, {method: PATCH, path: "**", query: {x: "y"}}]}]}
`)
	for l, want := range map[string]Ruling{
		"GET /a/x":         {Allowed: true, Rule: "a"},
		"DELETE /a/x":      {Allowed: true, Audited: true, Rule: "a", Detail: "DELETE /a/x blocked by deny rule", Final: true},
		"DELETE /b":        {Allowed: true, Rule: "b"},
		"PUT /b":           {Rule: "b", Detail: "PUT /b blocked by deny rule", Final: true},
		"PUT /a/x":         {Rule: "b", Detail: "PUT /a/x blocked by deny rule", Final: true}, // an endpoint that enforces denies it
		"PATCH /a/x?x=%zz": {Rule: "a", Detail: "the query cannot be read, and rules depend on it"},
	} {
		want.Protocol = policy.ProtocolREST
		if got := ruled(t, s, line(l)); got != want {
			t.Errorf("%s: got %+v, want %+v", l, got, want)
		}
	}
}

func TestEqualEndpointsAddTheirRules(t *testing.T) {
	s := inspected(t, `
  b: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/b/**"}}]}]}
  a: {binaries: [{path: /x}], endpoints: [{host: "*.example.com", port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/a/**"}}], deny_rules: [{method: GET, path: "/b/no"}]}]}
`)
	lines(t, s, []string{"GET /a/x", "GET /b/x"}, []string{"GET /b/no", "GET /c", "POST /a/x"})
	if got := ruled(t, s, line("GET /c")); got.Rule != "a" {
		t.Errorf("got %+v", got)
	}
}

func TestSQLIsNotJudged(t *testing.T) {
	doc := parse(t, "version: 1\nnetwork_policies:\n  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: sql, enforcement: audit, rules: [{allow: {command: SELECT}}]}]}\n")
	s, err := build(t.Context(), doc, Options{Generation: 7, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	if p := permitted(t, s); p.Inspected() || p.Opaque() {
		t.Errorf("got %+v", p)
	}
}

func TestAPermitOfAnotherPolicyPermitsNothing(t *testing.T) {
	s := inspected(t, one("protocol: rest, access: full"))
	p := permitted(t, s)
	e, _ := s.Endpoint(p, "/")
	other := p
	other.generation++
	var never *Snapshot
	for name, got := range map[string]Ruling{
		"another generation": s.Request(other, e, line("GET /")),
		"no permit":          s.Request(Permit{}, e, line("GET /")),
		"no policy":          never.Request(p, e, line("GET /")),
	} {
		if got.Allowed || got.ReasonOf() != core.ReasonPolicyChanged {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, ok := s.Endpoint(other, "/"); ok {
		t.Error("an endpoint for another generation")
	}
	if got := s.Request(p, Endpoint{}, line("GET /")); got.Allowed {
		t.Errorf("no endpoint: %+v", got)
	}
	two := inspected(t, scoped)
	q := permitted(t, two)
	narrow, _ := two.Endpoint(q, "/loose/a")
	if got := two.Request(q, narrow, line("DELETE /")); got.Allowed {
		t.Errorf("an endpoint selected for another path: %+v", got)
	}
}

// Every set of rules finds, through its index, what a walk over all of them finds.
func TestTheIndexFindsEveryRule(t *testing.T) {
	g := newGlobs()
	var rules []httpRule
	for _, path := range []string{"**", "/", "/a", "/a/*", "/ab", "/a/b/**", "/*", "/a/b", "/b", "/b/**", "/[a]", "/a/{b,c}", "/abc/d*", "/a/b/c"} {
		p, err := g.path(path)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, httpRule{method: "GET", path: p})
	}
	for from := range rules {
		some := rules[from:]
		x := indexRules(some)
		for _, path := range []string{"", "/", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/abc/dx", "/abd", "/b", "/b/x", "/c", "/zz", "/A"} {
			r, want := &Request{Method: "GET", Path: path}, false
			for i := range some {
				want = want || some[i].allows(r)
			}
			if got := x.allows(r); got != want {
				t.Errorf("%d rules, %q: %v, want %v", len(some), path, got, want)
			}
			if x.deniesAs(r, path) != want {
				t.Errorf("%d rules, %q: denied otherwise", len(some), path)
			}
		}
	}
	if none := indexRules(nil); none.allows(line("GET /")) || none.denies(line("GET /")) {
		t.Error("no rule allows or denies")
	}
}
