package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpstreamRootsAreAListOfFiles(t *testing.T) {
	for _, c := range []struct {
		rule    string
		args    []string
		environ []string
		want    []string
		err     string
	}{
		{"none", nil, nil, nil, ""},
		{"a flag", []string{"--upstream-roots", "/a.pem,/b.pem"}, nil, []string{"/a.pem", "/b.pem"}, ""},
		{"a variable", nil, []string{"SPLITPOD_NETWORK_UPSTREAM_ROOTS=/a.pem,/b.pem"}, []string{"/a.pem", "/b.pem"}, ""},
		{"the flag wins", []string{"--upstream-roots", "/a.pem"}, []string{"SPLITPOD_NETWORK_UPSTREAM_ROOTS=/b.pem"}, []string{"/a.pem"}, ""},
		{"an empty name", []string{"--upstream-roots", "/a.pem,"}, nil, []string{"/a.pem", ""}, "--upstream-roots"},
	} {
		cfg, _, err := Load("test", append(c.args, "--policy", "/policy.yaml"), c.environ)
		if err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if diff := cmp.Diff(c.want, cfg.UpstreamRoots); diff != "" {
			t.Errorf("%s: %s", c.rule, diff)
		}
		if err := cfg.Validate(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.rule, err, c.err)
		}
	}
}

func TestFilesOfSecretsHaveTheirPlace(t *testing.T) {
	for _, c := range []struct {
		rule string
		args []string
		err  string
	}{
		{"a token", []string{"--admin-token", "/t"}, ""},
		{"a token that is relative", []string{"--admin-token", "t"}, "--admin-token"},
		{"a token for no view", []string{"--admin-token", "/t", "--admin-listen", ""}, "--admin-token"},
		{"headers and a CA", []string{"--otlp-endpoint", "https://c:4317", "--otlp-headers", "/h", "--otlp-ca", "/ca"}, ""},
		{"headers that are relative", []string{"--otlp-endpoint", "https://c:4317", "--otlp-headers", "h"}, "--otlp-headers"},
		{"headers in the clear", []string{"--otlp-endpoint", "http://c:4317", "--otlp-headers", "/h"}, "--otlp-headers"},
		{"headers for nobody", []string{"--otlp-headers", "/h"}, "--otlp-headers"},
		{"a CA in the clear", []string{"--otlp-endpoint", "http://c:4317", "--otlp-ca", "/ca"}, "--otlp-ca"},
		{"a CA for nobody", []string{"--otlp-ca", "/ca"}, "--otlp-ca"},
	} {
		cfg, _, err := Load("test", append(c.args, "--policy", "/policy.yaml"), nil)
		if err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if err := cfg.Validate(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.rule, err, c.err)
		}
	}
}
