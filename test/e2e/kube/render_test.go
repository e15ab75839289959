package kube_test

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/test/need"
)

var update = flag.Bool("update", false, "write golden files")

// manifests are the chart's output for people without helm: deploy/k8s/manifests.
var manifests = map[string]string{
	"pod":                "",
	"pod-two-containers": "topology: containers\n",
	"pod-copy":           "delivery: copy\n",
	"pod-node-users":     "hostUsers: true\n",
}

const manifestValues = `kind: Pod
fullnameOverride: splitpod
workload:
  image: {repository: your-agent-image}
  command: [curl, -sS, "https://example.com/"]
policy:
  inline: |
    version: 1
    process: {run_as_user: "1000", run_as_group: "1000"}
    filesystem_policy: {read_write: [/tmp]}
    network_policies:
      example:
        endpoints:
          - {host: example.com, port: 443}
        binaries:
          - {path: /usr/bin/curl}
`

const manifestHead = `# One sandboxed workload, for clusters without helm. Replace the workload's image, its
# command and the policy. Rendered from deploy/k8s/chart/splitpod by a test
# (go test ./test/e2e/kube -run Golden -update); do not edit.
`

// goldens are the chart's output, one switch or several each.
var goldens = map[string]string{
	"deployment": "",
	"job":        "kind: Job\njob: {backoffLimit: 2, ttlSecondsAfterFinished: 60, activeDeadlineSeconds: 3600}\n",
	"sandbox":    "kind: Sandbox\npod: {runtimeClassName: kata}\n",
	"everything": `replicas: 3
nameOverride: sb
imagePullSecrets: [{name: pull}]
images:
  network: {repository: registry.example/network, digest: "sha256:` + zeros + `"}
  process: {repository: registry.example/process, tag: v2, pullPolicy: Always}
workload:
  args: [--flag, "two words"]
  workdir: /workspace
  env: [{name: MODE, value: fast}]
  scratch: [/tmp, /workspace]
  writableRoot: true
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  volumeMounts: [{name: data, mountPath: /data}]
  resources: {limits: {cpu: "2"}}
  stdin: true
  tty: true
policy: {restartOnChange: true}
network:
  volumes: [{name: roots, configMap: {name: roots}}]
  volumeMounts: [{name: roots, mountPath: /etc/roots, readOnly: true}]
  settings: {maxConnections: 2000000, invalidPolicy: deny, drainTimeout: null, upstreamRoots: /etc/roots/ca.pem}
process: {preflight: true, settings: {ssh: false, timeout: 1h, pids: 100}}
ports: {network: 19901, process: 19902}
networkPolicy: {metricsFrom: [{namespaceSelector: {}}], egress: []}
podMonitor: {enabled: true, labels: {team: x}}
dashboards: {enabled: true}
alerts: {enabled: true}
pod:
  annotations: {a: b}
  labels: {c: d}
  nodeSelector: {e: f}
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: high
  dnsConfig: {options: [{name: ndots, value: "1"}]}
  serviceAccountName: nobody
  terminationGracePeriodSeconds: 90
`,
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

// template renders the chart; each of values wins over the one before.
func template(t *testing.T, values ...string) (string, error) {
	t.Helper()
	argv := []string{"helm", "template", "box", chart, "--namespace", "here"}
	for i, v := range values {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(file, []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
		argv = append(argv, "-f", file)
	}
	return kube.Run("", argv...)
}

// plain takes out of a rendering what only helm needs.
func plain(text string) string {
	var b strings.Builder
	b.WriteString(manifestHead)
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "helm.sh/chart") && !strings.Contains(line, "managed-by: Helm") && !strings.Contains(line, "# Source:") &&
			!strings.Contains(line, "app.kubernetes.io/version") {
			b.WriteString(strings.ReplaceAll(line, "instance: box", "instance: splitpod"))
		}
	}
	return b.String()
}

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
		t.Errorf("%s is not what is rendered; look at it and run with -update:\n%s", path, d)
	}
}

// rendered is every rendering by name.
func rendered(t *testing.T) map[string]string {
	t.Helper()
	need.Root(t) // helm comes with the cluster
	out := make(map[string]string)
	for name, more := range manifests {
		text, err := template(t, manifestValues, more)
		if err != nil {
			t.Fatal(err)
		}
		out[root+"/deploy/k8s/manifests/"+name+".yaml"] = plain(text)
	}
	for name, more := range goldens {
		text, err := template(t, strings.Replace(manifestValues, "kind: Pod\nfullnameOverride: splitpod\n", "", 1), more)
		if err != nil {
			t.Fatal(err)
		}
		out[root+"/deploy/k8s/chart/testdata/"+name+".golden.yaml"] = text
	}
	return out
}

func TestGoldenRenderings(t *testing.T) {
	for path, text := range rendered(t) {
		golden(t, path, text)
	}
	for _, dir := range []string{"manifests/*.yaml", "chart/testdata/*.golden.yaml"} {
		files, _ := filepath.Glob(root + "/deploy/k8s/" + dir)
		if want := map[string]int{"manifests/*.yaml": len(manifests), "chart/testdata/*.golden.yaml": len(goldens)}[dir]; len(files) != want {
			t.Errorf("%s: %d files, want %d", dir, len(files), want)
		}
	}
}

// TestTheAPIServerTakesEveryRendering: strict, so that an unknown field is an error,
// and dry, so that nothing is left.
func TestTheAPIServerTakesEveryRendering(t *testing.T) {
	s := newSpace(t)
	define(t, s)
	everything := rendered(t)
	for path, text := range everything {
		if _, err := kube.Run(text, "kubectl", "-n", s.name, "apply", "--dry-run=server", "--validate=strict", "-f", "-"); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, object := range objects(t, text) { // what a custom resource holds is checked as what it becomes
			if object["kind"] != "Sandbox" {
				continue
			}
			pod := object["spec"].(map[string]any)["podTemplate"].(map[string]any)
			pod["apiVersion"], pod["kind"] = "v1", "Pod"
			pod["metadata"].(map[string]any)["name"] = "box"
			text, err := yaml.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			runtime := "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: kata}\nhandler: kata\n"
			s.apply(runtime)
			if _, err := kube.Run(string(text), "kubectl", "-n", s.name, "apply", "--dry-run=server", "--validate=strict", "-f", "-"); err != nil {
				t.Errorf("%s: the sandbox's pod: %v", path, err)
			}
		}
	}
	for right, wrong := range map[string]string{"podTemplate:": "podTemplat:", "podMetricsEndpoints:": "podMetricEndpoints:", "expr:": "exp:"} {
		found := false
		for path, text := range everything {
			if !strings.Contains(text, right) {
				continue
			}
			found = true
			_, err := kube.Run(strings.ReplaceAll(text, right, wrong), "kubectl", "-n", s.name, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
			if err == nil || !strings.Contains(err.Error(), "unknown field") || !strings.Contains(err.Error(), strings.TrimSuffix(wrong, ":")) {
				t.Errorf("%s with %s: %v", path, wrong, err)
			}
		}
		if !found {
			t.Errorf("nothing is rendered with %s", right)
		}
	}
}

func objects(t *testing.T, text string) (out []map[string]any) {
	t.Helper()
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var object map[string]any
		err := d.Decode(&object)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if object != nil {
			out = append(out, object)
		}
	}
}

// TestWhatTheChartRefuses: a mistake is an error with its name, and nothing is
// installed.
func TestWhatTheChartRefuses(t *testing.T) {
	need.Root(t)
	for name, tc := range map[string]struct{ values, say string }{
		"a misspelt value":              {"topolgy: sidecar\n", "topolgy"},
		"a misspelt setting":            {"network: {settings: {drainTimeuot: 1s}}\n", "drainTimeuot"},
		"a setting of the chart":        {"network: {settings: {policy: /x}}\n", "policy"},
		"a kind there is not":           {"kind: DaemonSet\n", "kind"},
		"a digest that is none":         {"images: {network: {digest: abc}}\n", "digest"},
		"a time without a unit":         {"process: {settings: {grace: \"10\"}}\n", "grace"},
		"a port that is none":           {"ports: {network: 0}\n", "network"},
		"no command":                    {"workload: {command: []}\n", "workload.command"},
		"no image":                      {"workload: {image: {repository: \"\"}}\n", "workload.image.repository"},
		"no policy":                     {"policy: {inline: \"\"}\n", "policy"},
		"two policies":                  {"policy: {configMap: {name: x}}\n", "not both"},
		"a Job that would never end":    {"kind: Job\ntopology: containers\n", "never end"},
		"one port for both daemons":     {"ports: {network: 9902}\n", "different numbers"},
		"a section that is taken out":   {"probes: {startup: null}\n", "startup"},
		"a label of the chart's":        {"pod: {labels: {app.kubernetes.io/name: x}}\n", "pod.labels"},
		"a daemon's image without name": {"images: {process: {repository: \"\"}}\n", "/images/process/repository"},
		"a path that is no word":        {"workload: {workdir: \"/a: b\"}\n", "workdir"},
		"a secret among the values":     {"credentials: {GITHUB_TOKEN: x}\n", "GITHUB_TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := template(t, manifestValues, tc.values); err == nil || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("error %v does not say %q; output %.200q", err, tc.say, out)
			}
		})
	}
}

// TestAValueThatIsTakenOut: helm takes null for "without the chart's default", which is
// an error with the value's name, or leaves nothing half said behind.
func TestAValueThatIsTakenOut(t *testing.T) {
	need.Root(t)
	data, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	// What is rendered only beside another value is rendered.
	beside := "credentials: {secret: x}\ninference: {secret: x}\nadminToken: {secret: x}\nprocess: {preflight: true}\npodMonitor: {enabled: true}\nalerts: {enabled: true}\ndashboards: {enabled: true}\n"
	for _, key := range documented("", doc.Content[0]) {
		t.Run(key, func(t *testing.T) {
			value := "null\n"
			for _, name := range slices.Backward(strings.Split(key, ".")) {
				value = fmt.Sprintf("{%s: %s}", name, value)
			}
			out, err := template(t, manifestValues, beside, value)
			if err != nil {
				if name := key[strings.LastIndex(key, ".")+1:]; !strings.Contains(err.Error(), name) {
					t.Errorf("error %v does not say %q", err, name)
				}
				return
			}
			for _, object := range objects(t, out) {
				if path := nothing(object); path != "" {
					t.Errorf("%s %s is empty", object["kind"], path)
				}
			}
		})
	}
}

// documented are the keys of values.yaml with a comment "# --": those are the values.
func documented(prefix string, n *yaml.Node) (out []string) {
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if strings.HasPrefix(k.HeadComment, "# -- ") {
			out = append(out, prefix+k.Value)
		} else {
			out = append(out, documented(prefix+k.Value+".", v)...)
		}
	}
	return out
}

// nothing is where in v nothing stands, or what a template writes for it.
func nothing(v any) string {
	switch v := v.(type) {
	case nil:
		return " "
	case string:
		if strings.Contains(v, "%!") || strings.HasPrefix(v, "--") && strings.HasSuffix(v, "/") {
			return " " + v
		}
	case []any:
		for i, e := range v {
			if path := nothing(e); path != "" {
				return fmt.Sprintf("[%d]%s", i, path)
			}
		}
	case map[string]any:
		for k, e := range v {
			if e == nil && (k == "resources" || k == "egress") {
				continue // as good as not there to Kubernetes
			}
			if path := nothing(e); path != "" {
				return "." + k + path
			}
		}
	}
	return ""
}

// TestEverySwitchOfTheChart: what each does, and that nothing else changes with it.
func TestEverySwitchOfTheChart(t *testing.T) {
	need.Root(t)
	base, err := template(t, manifestValues)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		values string
		has    []string
		hasNot []string
	}{
		"topology containers":      {"topology: containers\n", []string{"containers:\n    - name: supervisor-network"}, []string{"initContainers:", "restartPolicy: Always # a native sidecar"}},
		"delivery copy":            {"delivery: copy\n", []string{"copy-self", "emptyDir: {sizeLimit: 64Mi}"}, []string{"image:\n          reference:"}},
		"delivery image":           {"delivery: image\n", []string{"- /usr/local/bin/supervisor-process"}, []string{"mountPath: /splitpod,", "copy-self"}},
		"hostUsers":                {"hostUsers: true\n", []string{"hostUsers: true"}, []string{"procMount"}},
		"preflight":                {"process: {preflight: true}\n", []string{"args: [preflight]"}, nil},
		"a policy of yours":        {"policy: {inline: \"\", configMap: {name: mine, key: p.yaml}}\n", []string{"name: mine", "key: p.yaml"}, []string{"kind: ConfigMap"}},
		"an admin token":           {"adminToken: {secret: mine, key: t}\n", []string{"- --admin-token=/etc/splitpod-admin/t", "secret: {secretName: mine}", "{name: admin-token, mountPath: /etc/splitpod-admin, readOnly: true}"}, nil},
		"a guarded collector":      {"network: {settings: {otlpEndpoint: \"https://c:4317\", otlpHeaders: /etc/otlp/h, otlpCa: /etc/otlp/ca}}\n", []string{"--otlp-headers=/etc/otlp/h", "--otlp-ca=/etc/otlp/ca"}, nil},
		"credentials":              {"credentials: {secret: mine, key: c.yaml}\n", []string{"- --credentials=/etc/splitpod-credentials/c.yaml", "secret: {secretName: mine}", "{name: credentials, mountPath: /etc/splitpod-credentials, readOnly: true}"}, nil},
		"inference routes":         {"inference: {secret: mine, key: r.yaml}\n", []string{"- --inference-routes=/etc/splitpod-inference/r.yaml", "secret: {secretName: mine}", "{name: inference, mountPath: /etc/splitpod-inference, readOnly: true}"}, nil},
		"a gateway":                {"policy: {inline: \"\"}\ngateway: {url: \"https://g.example.com:8080\", sandbox: s-1, secret: mine, token: jwt, clientCertificate: true}\n", []string{"- --gateway=https://g.example.com:8080\n", "- --gateway-sandbox=s-1\n", "- --gateway-token=/etc/splitpod-gateway/jwt", "- --gateway-ca=/etc/splitpod-gateway/ca.crt", "- --gateway-cert=/etc/splitpod-gateway/tls.crt", "- --gateway-key=/etc/splitpod-gateway/tls.key", "secret: {secretName: mine}", "{name: gateway, mountPath: /etc/splitpod-gateway, readOnly: true}"}, []string{"--policy=", "name: policy", "kind: ConfigMap", "serviceAccountToken"}},
		"a gateway beside it":      {"policy: {inline: \"\"}\ngateway: {url: \"http://gateway.openshell.svc:8080\", sandbox: s-1}\n", []string{"- --gateway=http://gateway.openshell.svc:8080\n", "- --gateway-service-account-token=/var/run/splitpod-gateway/token", "audience: openshell-gateway", "{name: gateway-account, mountPath: /var/run/splitpod-gateway, readOnly: true}"}, []string{"--policy=", "--gateway-ca", "mountPath: /etc/splitpod,"}},
		"restart with a policy":    {"policy: {restartOnChange: true}\n", []string{"checksum/policy:"}, nil},
		"no network policy":        {"networkPolicy: {enabled: false}\n", nil, []string{"kind: NetworkPolicy"}},
		"metrics for somebody":     {"networkPolicy: {metricsFrom: [{podSelector: {}}]}\n", []string{"ingress:", "port: 9902"}, nil},
		"pod monitor":              {"podMonitor: {enabled: true}\n", []string{"kind: PodMonitor"}, nil},
		"dashboards":               {"dashboards: {enabled: true}\n", []string{"grafana_dashboard", "splitpod_denials_total"}, nil},
		"a digest wins":            {"images: {network: {tag: x, digest: \"sha256:" + zeros + "\"}}\n", []string{"supervisor-network@sha256:" + zeros}, []string{"supervisor-network:x"}},
		"a tag":                    {"images: {process: {tag: v9}}\n", []string{"supervisor-process:v9"}, []string{"supervisor-network:v9"}},
		"a writable root":          {"workload: {writableRoot: true}\n", []string{"readOnlyRootFilesystem: false"}, nil},
		"settings":                 {"network: {settings: {maxConnections: 3000000}}\nprocess: {settings: {requirePidLimit: true}}\n", []string{"--max-connections=3000000", "--require-pid-limit=true"}, nil},
		"no settings":              {"network: {settings: null}\nprocess: {settings: {grace: null}}\n", nil, []string{"--drain-timeout", "--grace"}},
		"a Job gone at once":       {"kind: Job\njob: {ttlSecondsAfterFinished: 0}\n", []string{"ttlSecondsAfterFinished: 0"}, nil},
		"restart policy":           {"pod: {restartPolicy: Never}\n", []string{"restartPolicy: Never"}, nil},
		"a terminal":               {"workload: {stdin: true, tty: true}\n", []string{"stdin: true", "tty: true"}, nil},
		"names":                    {"fullnameOverride: other\n", []string{"name: other\n", "name: other-policy"}, []string{"name: splitpod\n  labels"}},
		"one that changes nothing": {"", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := template(t, manifestValues, tc.values)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tc.has {
				if !strings.Contains(out, text) || strings.Contains(base, text) {
					t.Errorf("%q is rendered: %t, without the switch: %t", text, strings.Contains(out, text), strings.Contains(base, text))
				}
			}
			for _, text := range tc.hasNot {
				if strings.Contains(out, text) {
					t.Errorf("%q is still rendered", text)
				}
			}
			if tc.has == nil && tc.hasNot == nil && out != base {
				t.Error("the rendering is not the same every time")
			}
		})
	}
}

func TestHelmLint(t *testing.T) {
	need.Root(t)
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(manifestValues), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := kube.Run("", "helm", "lint", "--strict", chart, "-f", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPodSecurityOfEachContainer asks the API server for the strictest level that
// admits a pod with each container alone, and compares the table of docs/pod-security.md.
func TestPodSecurityOfEachContainer(t *testing.T) {
	s := newSpace(t)
	levels := []string{"restricted", "baseline", "privileged"}
	for _, level := range levels {
		s.kubectl("create", "namespace", "level-"+level)
		defer kube.Kubectl("delete", "namespace", "level-"+level, "--wait=false")
		s.kubectl("label", "namespace", "level-"+level, "pod-security.kubernetes.io/enforce="+level)
	}
	var b strings.Builder
	b.WriteString("| pod | container | runs as | capabilities | seccomp | root file system | level |\n|---|---|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(manifests)) {
		data, err := os.ReadFile(root + "/deploy/k8s/manifests/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range objects(t, string(data)) {
			if object["kind"] != "Pod" {
				continue
			}
			spec := object["spec"].(map[string]any)
			var containers []any
			for _, list := range []string{"initContainers", "containers"} {
				found, _ := spec[list].([]any)
				containers = append(containers, found...)
			}
			delete(spec, "initContainers")
			for _, c := range containers {
				container := c.(map[string]any)
				delete(container, "restartPolicy")
				delete(container, "startupProbe")
				spec["containers"] = []any{container}
				b.WriteString("| " + name + " | " + security(container) + " | " + admittedBy(t, object, levels) + " |\n")
			}
		}
	}
	path := root + "/docs/pod-security.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(page), tableBegin)
	_, after, ok := strings.Cut(rest, tableEnd)
	if !ok {
		t.Fatalf("%s has no place for the table", path)
	}
	golden(t, path, before+tableBegin+b.String()+tableEnd+after)
}

const (
	tableBegin = "<!-- table: go test ./test/e2e/kube -run PodSecurity -update -->\n"
	tableEnd   = "<!-- end of table -->\n"
)

// security is a container's row of the table.
func security(container map[string]any) string {
	c := container["securityContext"].(map[string]any)
	var added []string
	if more, ok := c["capabilities"].(map[string]any)["add"].([]any); ok {
		for _, name := range more {
			added = append(added, fmt.Sprint(name))
		}
	}
	capabilities, rootFS := "none", "writable"
	if len(added) > 0 {
		capabilities = strings.Join(added, ", ")
	}
	if c["readOnlyRootFilesystem"] == true {
		rootFS = "read-only"
	}
	return fmt.Sprintf("%s | %v:%v | %s | %v | %s", container["name"], c["runAsUser"], c["runAsGroup"], capabilities, c["seccompProfile"].(map[string]any)["type"], rootFS)
}

func admittedBy(t *testing.T, object map[string]any, levels []string) string {
	t.Helper()
	text, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range levels {
		_, err = kube.Run(string(text), "kubectl", "-n", "level-"+level, "create", "--dry-run=server", "-f", "-")
		if err == nil {
			return level
		}
	}
	t.Errorf("no level admits the pod: %v", err)
	return "none"
}
