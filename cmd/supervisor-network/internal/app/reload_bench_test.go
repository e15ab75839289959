package app

import (
	"fmt"
	"os"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// BenchmarkReload is one version of a policy file: read, compiled, put in force.
func BenchmarkReload(b *testing.B) {
	for _, endpoints := range []int{5, 100} {
		b.Run(fmt.Sprintf("%d endpoints", endpoints), func(b *testing.B) {
			text := "version: 1\nnetwork_policies:\n"
			for i := range endpoints {
				text += fmt.Sprintf("  h%[1]d: {binaries: [{path: /x}], endpoints: [{host: h%[1]d.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: \"/ok/**\"}}, {allow: {method: POST, path: \"/ok/**\"}}]}]}\n", i)
			}
			path := b.TempDir() + "/policy.yaml"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			p := &policies{engine: &decide.Engine{}, ignoreBinaries: true,
				publish: func(core.Config) {}, changed: func(*decide.Snapshot) {}, event: func(core.Event) {}, joined: func(approve.Effective) {},
				join: func(d *policy.Document) approve.Effective { return approve.Effective{Document: d} }}
			b.ReportAllocs()
			for b.Loop() {
				if err := p.load(b.Context(), policyfile.Read(path)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
