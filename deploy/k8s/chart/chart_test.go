// Package chart_test compares the chart with what it configures: its schema and its
// README with its values, its settings with the daemons', its dashboard and
// alerts with theirs. What needs helm or an API server is in test/e2e/kube.
package chart_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write generated files")

const root = "../../.."

// value is one documented leaf of values.yaml.
type value struct{ key, fallback, doc string }

func values(t *testing.T) (out []value) {
	t.Helper()
	data, err := os.ReadFile("splitpod/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	collect(t, "", doc.Content[0], &out)
	if len(out) < 40 {
		t.Fatalf("only %d values were found", len(out))
	}
	return out
}

// collect walks to what has a comment "# --": those are the values.
func collect(t *testing.T, prefix string, n *yaml.Node, out *[]value) {
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := strings.TrimPrefix(prefix+"."+k.Value, ".")
		doc, documented := strings.CutPrefix(k.HeadComment, "# -- ")
		if !documented {
			if v.Kind != yaml.MappingNode {
				t.Errorf("values.yaml: %s has no comment", key)
				continue
			}
			collect(t, key, v, out)
			continue
		}
		var fallback any
		if err := v.Decode(&fallback); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(fallback)
		if err != nil {
			t.Fatal(err)
		}
		*out = append(*out, value{key, string(text), strings.Join(strings.Fields(strings.ReplaceAll(doc, "\n#", " ")), " ")})
	}
}

func TestREADMEIsGeneratedFromTheValues(t *testing.T) {
	var b strings.Builder
	b.WriteString(readmeHead)
	for _, v := range values(t) {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.key, strings.ReplaceAll(v.fallback, "|", "\\|"), strings.ReplaceAll(v.doc, "|", "\\|"))
	}
	golden(t, "splitpod/README.md", b.String())
}

const readmeHead = `# The splitpod chart

Runs a program you do not trust in a pod that reaches exactly what a policy says.
docs/quickstart.md is where to begin. Generated from values.yaml by the test beside it
(` + "`go test ./deploy/k8s/chart -update`" + `); do not edit.

    helm install box deploy/k8s/chart/splitpod -f values.yaml

A misspelt value is an error (values.schema.json). Values are no place for secrets: they
are kept in the release. Make a Secret, and name it in credentials.secret, inference.secret or gateway.secret.

What restarts a pod: everything but the policy, the credentials and the inference routes. Changed ones take effect
in running pods within the kubelet's sync period; a policy's filesystem_policy, landlock and process sections
when a pod starts the next time.

| value | default | meaning |
|---|---|---|
`

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is not what it is generated from; run the test with -update:\n%s", path, d)
	}
}

// schema is what of a JSON schema is used here.
type schema struct {
	Ref        string            `json:"$ref"`
	Defs       map[string]schema `json:"$defs"`
	Type       any               `json:"type"`
	Additional *bool             `json:"additionalProperties"`
	Properties map[string]schema `json:"properties"`
}

func readSchema(t *testing.T) schema {
	t.Helper()
	data, err := os.ReadFile("splitpod/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// at follows a dotted key; nil when the schema does not know it.
func (s schema) at(key string) *schema {
	now := s
	for _, name := range strings.Split(key, ".") {
		if ref, ok := strings.CutPrefix(now.Ref, "#/$defs/"); ok {
			now = s.Defs[ref]
		}
		next, ok := now.Properties[name]
		if !ok {
			return nil
		}
		now = next
	}
	return &now
}

// TestTheSchemaKnowsEveryValueAndNoOther: what it knows and nobody reads would be a
// setting that does nothing.
func TestTheSchemaKnowsEveryValueAndNoOther(t *testing.T) {
	s := readSchema(t)
	known := make(map[string]bool)
	for _, v := range values(t) {
		if s.at(v.key) == nil {
			t.Errorf("values.schema.json does not know %s", v.key)
		}
		for i := range v.key + "." {
			if (v.key + ".")[i] == '.' {
				known[v.key[:i]] = true
			}
		}
	}
	var walk func(prefix string, now schema)
	walk = func(prefix string, now schema) {
		if len(now.Properties) > 0 && (now.Additional == nil || *now.Additional) {
			t.Errorf("values.schema.json admits unknown keys in %q", prefix)
		}
		for name, below := range now.Properties {
			key := strings.TrimPrefix(prefix+"."+name, ".")
			if ref, ok := strings.CutPrefix(below.Ref, "#/$defs/"); ok {
				below = s.Defs[ref]
			}
			documented := known[key] || key == "global" || strings.Contains(key, "resources.") || strings.Contains(key, "settings.") || strings.HasPrefix(key, "probes.") || strings.HasPrefix(key, "imagePullSecrets.")
			if !documented {
				t.Errorf("values.yaml does not have %s, which the schema knows", key)
			}
			walk(key, below)
		}
	}
	walk("", s)
}

// own are the settings that the chart decides itself, with the reason.
var own = map[string]map[string]string{
	"network": {
		"policy": "mounted from the ConfigMap", "state-dir": "the state volume", "run-dir": "the run volume", "admin-listen": "ports.network",
		"listen": "a pod's listeners are handed over", "identity": "a pod always identifies", "process-uid": "the process daemon is root of its container",
		"credentials": "credentials.secret, mounted", "inference-routes": "inference.secret, mounted", "admin-token": "adminToken.secret, mounted", "ca-out": "for clients outside of a sandbox",
		"gateway": "gateway.url", "gateway-sandbox": "gateway.sandbox", "gateway-token": "gateway.token, mounted", "gateway-service-account-token": "mounted without gateway.token",
		"gateway-ca": "gateway.ca, mounted", "gateway-cert": "gateway.clientCertificate, mounted", "gateway-key": "gateway.clientCertificate, mounted",
		"sandbox-name": "the pod's", "sandbox-uid": "the pod's", "sandbox-image": "workload.image",
	},
	"process": {
		"policy": "the network daemon sends it", "run-dir": "the run volume", "network-uid": "the network daemon's is fixed", "workdir": "workload.workdir",
		"pid": "for attach only", "admin-listen": "ports.process",
		"sandbox-name": "the pod's", "sandbox-uid": "the pod's", "sandbox-image": "workload.image",
	},
}

// TestTheChartHasEverySettingOfTheDaemons: one that is missing could not be set, one
// too many would end the start.
func TestTheChartHasEverySettingOfTheDaemons(t *testing.T) {
	flagLine := regexp.MustCompile("(?m)^### `--([a-z0-9-]+)`")
	for daemon, decided := range own {
		page, err := os.ReadFile(filepath.Join(root, "docs", "configuration-"+daemon+".md"))
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, m := range flagLine.FindAllStringSubmatch(string(page), -1) {
			if decided[m[1]] == "" {
				want = append(want, camel(m[1]))
			}
		}
		for name := range readSchema(t).at(daemon + ".settings").Properties {
			got = append(got, name)
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s.settings in values.schema.json and the daemon's settings differ:\n%s", daemon, d)
		}
	}
}

func camel(name string) string {
	words := strings.Split(name, "-")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// TestTheChartHasTheDashboardAndTheAlerts: helm reads no file outside of its chart, so
// that there are copies.
func TestTheChartHasTheDashboardAndTheAlerts(t *testing.T) {
	for _, name := range []string{"dashboard.json", "rules.yaml"} {
		data, err := os.ReadFile("../observability/" + name)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "splitpod/observability/"+name, string(data))
	}
}
