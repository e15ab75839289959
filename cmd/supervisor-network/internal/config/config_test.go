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

// TestAPolicyComesFromOnePlace: a file or a gateway, and what belongs to a gateway is whole.
func TestAPolicyComesFromOnePlace(t *testing.T) {
	secure := []string{"--gateway", "https://g:1", "--gateway-sandbox", "s", "--gateway-token", "/t", "--gateway-ca", "/ca"}
	clear := []string{"--gateway", "http://g:1", "--gateway-sandbox", "s", "--gateway-service-account-token", "/t"}
	with := func(base []string, more ...string) []string { return append(base[:len(base):len(base)], more...) }
	for rule, c := range map[string]struct {
		args []string
		err  string
	}{
		"over TLS":                       {secure, ""},
		"over TLS, with everything":      {with(secure, "--gateway-cert", "/c", "--gateway-key", "/k", "--gateway-server-name", "n", "--gateway-poll", "1s"), ""},
		"in the clear":                   {clear, ""},
		"none":                           {nil, "--policy"},
		"both":                           {with(secure, "--policy", "/p"), "--policy and --gateway"},
		"no URL":                         {with(secure, "--gateway", "g:1"), "--gateway:"},
		"a URL with a password":          {with(secure, "--gateway", "https://u:SECRET@g:1"), "--gateway:"},
		"no sandbox":                     {with(secure, "--gateway-sandbox", ""), "--gateway-sandbox"},
		"no token":                       {with(secure, "--gateway-token", ""), "--gateway-token"},
		"two tokens":                     {with(secure, "--gateway-service-account-token", "/t"), "--gateway-token"},
		"a token that is no file's":      {with(secure, "--gateway-token", "t"), "--gateway-token"},
		"no authority":                   {with(secure, "--gateway-ca", ""), "--gateway-ca"},
		"an authority in the clear":      {with(clear, "--gateway-ca", "/ca"), "--gateway-ca"},
		"a certificate without a key":    {with(secure, "--gateway-cert", "/c"), "--gateway-cert"},
		"a key without a certificate":    {with(secure, "--gateway-key", "/k"), "--gateway-cert"},
		"a token for nobody":             {[]string{"--policy", "/p", "--gateway-token", "/t"}, "--gateway-token"},
		"a sandbox of nobody":            {[]string{"--policy", "/p", "--gateway-sandbox", "s"}, "--gateway-sandbox"},
		"without a pause":                {with(secure, "--gateway-poll", "0s"), "--gateway-poll"},
		"for a proxy without a sandbox":  {with(secure, "--listen", "127.0.0.1:3128"), "--gateway"},
		"a server's name and no gateway": {[]string{"--policy", "/p", "--gateway-server-name", "n"}, "--gateway-server-name"},
	} {
		cfg, _, err := Load("test", c.args, nil)
		if err != nil {
			t.Fatalf("%s: %v", rule, err)
		}
		err = cfg.Validate()
		if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s: %v, want %q", rule, err, c.err)
		}
	}
}
