package kube_test

import (
	"os"
	"strings"
	"testing"
)

// TestModelsOfASecret: the pod's workload asks for a model by a route and a key that are in
// nothing it or an operator reads.
func TestModelsOfASecret(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ca, err := os.ReadFile(origins.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(`apiVersion: v1
kind: Secret
metadata: {name: agent-models, namespace: ` + s.name + `}
stringData:
  key: a-canary-value
  routes.yaml: |
    routes: [{name: chat, endpoint: "https://api.demo.test", model: big, api_key_file: /etc/splitpod-inference/key}]
  ca.pem: |
` + indent(string(ca), "    "))
	s.install(values("Pod", "inference: {secret: agent-models}\nnetwork: {settings: {upstreamRoots: /etc/splitpod-inference/ca.pem}}\n", "agent", "lines"))
	s.ready("box")
	ask := func(path string) string {
		out, _ := s.inside("box", "curl", "-sS", "-m", "120", "-w", " %{http_code}", "-d", "{}", "https://inference.local"+path)
		return out
	}
	if out := ask("/v1/chat/completions"); out != "hello from api.demo.test\n 200" {
		t.Errorf("a model call: %q", out)
	}
	if out := ask("/v1/files"); !strings.Contains(out, "is no model call that is routed") || !strings.HasSuffix(out, " 403") {
		t.Errorf("something else: %q", out)
	}
	seen, _ := s.inside("box", "sh", "-c", "env; ls -R /etc/splitpod-inference 2>&1; cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
	described := s.in("get", "pod", "box", "-o", "yaml")
	for name, text := range map[string]string{"the workload": seen, "the network daemon's log": s.logs("box", "supervisor-network"), "the workload's log": s.logs("box", "workload"), "the pod": described} {
		if strings.Contains(text, "canary") || name == "the workload" && strings.Contains(text, "routes.yaml") {
			t.Errorf("%s has the key, or the routes", name)
		}
	}
	s.eventually("records of the route and of a call by it", func() bool {
		records := s.logs("box", "supervisor-network")
		return strings.Contains(records, "1 routes: chat") && strings.Contains(records, "inference route chat, model big")
	})
}
