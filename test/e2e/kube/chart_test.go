package kube_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const chart = root + "/deploy/k8s/chart/splitpod"

// policy is what the pods of the tests may do.
const policy = `version: 1
process: {run_as_user: "1000", run_as_group: "1000"}
filesystem_policy: {read_write: [/tmp]}
network_policies:
  api:
    endpoints:
      - {host: api.demo.test, port: 80}
      - {host: api.demo.test, port: 443}
      - {host: api.demo.test, port: ` + echoPort + `, protocol: tcp}
    binaries: [{path: /usr/bin/agent}, {path: /usr/bin/curl}]
`

// values are a chart's values for the tests' own images, with more text behind them.
// The command is the workload's.
func values(kind, more string, command ...string) string {
	var quoted []string
	for _, word := range command {
		quoted = append(quoted, fmt.Sprintf("%q", word))
	}
	return `kind: ` + kind + `
fullnameOverride: box
images:
  network: {repository: ` + registry + `supervisor-network, tag: a, pullPolicy: Never}
  process: {repository: ` + registry + `supervisor-process, tag: a, pullPolicy: Never}
workload:
  image: {repository: ` + registry + `agent, tag: "1", pullPolicy: Never}
  command: [` + strings.Join(quoted, ", ") + `]
  stdin: true
policy:
  inline: |
` + indent(policy, "    ") + more
}

func indent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(by + line)
	}
	return b.String()
}

// helm runs helm, and must work. Values come from text.
func (s *space) helm(values string, args ...string) string {
	s.t.Helper()
	out, err := s.tryHelm(values, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *space) tryHelm(values string, args ...string) (string, error) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return kube.Run("", append([]string{"helm", "-n", s.name}, append(args, "-f", file)...)...)
}

// install puts the chart into the test's namespace, as release box.
func (s *space) install(values string) {
	s.t.Helper()
	s.helm(values, "install", "box", chart)
}
