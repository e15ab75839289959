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
