package app

import "github.com/splitpod/splitpod/pkg/core"

// version and commit are set by the linker: -X …/app.version=0.1.0.
var version, commit = "devel", ""

// Build names this binary.
func Build() core.Build {
	return core.Build{Component: "supervisor-network", Version: version, Commit: commit[:min(len(commit), 12)]}
}
