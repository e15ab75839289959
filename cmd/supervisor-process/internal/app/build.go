package app

import (
	"io"
	"log/slog"

	"github.com/splitpod/splitpod/pkg/core"
)

// version and commit are set by the linker: -X …/app.version=0.1.0.
var version, commit = "devel", ""

// Build names this binary.
func Build() core.Build {
	return core.Build{Component: "supervisor-process", Version: version, Commit: commit[:min(len(commit), 12)]}
}

func newLogger(w io.Writer, level string, instance core.InstanceID) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // Validate has checked it
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})
	return slog.New(h).With(slog.String("component", "supervisor-process"), slog.String("instance", string(instance)))
}
