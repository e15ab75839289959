package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// TestRulesOfRequests (rows 28 to 36 of the acceptance table): one line is one request
// to a host whose endpoint has the rules that the row is about.
func TestRulesOfRequests(t *testing.T) {
	const port = sitePort
	endpoint := func(path, rest string) string {
		return fmt.Sprintf("      - {host: api.demo.test, port: %d, path: %q, protocol: rest, %s}\n", port, path, rest)
	}
	policy := "version: 1\n" + who + "network_policies:\n  one:\n    endpoints:\n" +
		endpoint("/read/**", "enforcement: enforce, access: read-only") +
		endpoint("/write/**", "enforcement: enforce, access: read-write") +
		endpoint("/full/**", "enforcement: enforce, access: full, deny_rules: [{method: DELETE, path: \"/full/**\"}]") +
		endpoint("/audit/**", "access: read-only") +
		endpoint("/glob/**", "enforcement: enforce, rules: [{allow: {method: GET, path: \"/glob/*/issues\"}}]") +
		endpoint("/query/**", "enforcement: enforce, rules: [{allow: {method: GET, path: \"/query/tag\", query: {tag: \"prod-*\"}}}, {allow: {method: GET, path: \"/query/force\"}}], deny_rules: [{method: GET, path: \"/query/force\", query: {force: \"true\"}}]") +
		"    binaries: [{path: /usr/bin/curl}]\n  two:\n    endpoints:\n" +
		endpoint("/full/**", "enforcement: enforce, access: full, deny_rules: [{method: POST, path: \"/full/locked\"}]") +
		"    binaries: [{path: /usr/bin/curl}]\n"
	w := &clientWorld{site: startSite(t)}
	w.pair = standalone(t, policy)
	for name, tc := range map[string]struct {
		method, target string
		allowed        bool
	}{
		"28 read-only, POST":                           {"POST", "/read/a", false},
		"28 read-only, GET":                            {"GET", "/read/a", true},
		"30 GET allows HEAD":                           {"HEAD", "/glob/a/issues", true},
		"30 read-write allows PATCH":                   {"PATCH", "/write/a", true},
		"30 read-write refuses DELETE":                 {"DELETE", "/write/a", false},
		"29 audit lets POST pass":                      {"POST", "/audit/a", true},
		"31 a star takes one segment":                  {"GET", "/glob/a/issues", true},
		"31 a star does not take two":                  {"GET", "/glob/a/b/issues", false},
		"32 deny beats allow":                          {"DELETE", "/full/a", false},
		"32 deny in another rule beats allow":          {"POST", "/full/locked", false},
		"32 what no deny names":                        {"POST", "/full/a", true},
		"33 a value that matches":                      {"GET", "/query/tag?tag=prod-1", true},
		"33 one value of two does not match":           {"GET", "/query/tag?tag=prod-1&tag=evil", false},
		"33 the key is not there":                      {"GET", "/query/tag", false},
		"33 an encoded key is the key":                 {"GET", "/query/tag?t%61g=evil&tag=prod-1", false},
		"33 deny: one value of two matches":            {"GET", "/query/force?force=false&force=true", false},
		"33 deny: encoded":                             {"GET", "/query/force?f%6frce=tru%65", false},
		"33 deny: no value matches":                    {"GET", "/query/force?force=false", true},
		"34 a path without an endpoint":                {"GET", "/elsewhere", false},
		"35 dots are resolved before the scope":        {"POST", "/full/../read/a", false},
		"36 dots with a parameter, before the scope":   {"POST", "/full/..;x/read/a", false},
		"35 encoded dots are resolved, and allowed so": {"POST", "/read/%2e%2e/full/a", true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				w.site.arrived()
				req, err := http.NewRequest(tc.method, siteURL+"/", nil)
				must(t, err)
				req.URL.Opaque = "//api.demo.test:7011" + tc.target // as it is written
				if version == 1 {
					req.URL.Opaque = tc.target
				}
				resp, err := w.client(version).Do(req)
				must(t, err)
				body, err := io.ReadAll(resp.Body)
				must(t, err)
				resp.Body.Close()
				came := w.site.arrived()
				if tc.allowed && (resp.StatusCode != 404 || len(came) != 1) || !tc.allowed && (resp.StatusCode != 403 || len(came) != 0 || resp.Header.Get("X-OpenShell-Policy") == "") {
					t.Errorf("HTTP/%d: %s %s; the origin got %q", version, resp.Status, body, came)
				}
			}
		})
	}
}
