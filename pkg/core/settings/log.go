package settings

import (
	"io"
	"log/slog"

	"github.com/splitpod/splitpod/pkg/core"
)

// Logger writes a daemon's log to w, one JSON object a line. level is debug, info, warn or
// error.
func Logger(w io.Writer, level, component string, instance core.InstanceID) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // Validate has checked it
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})
	return slog.New(h).With(slog.String("component", component), slog.String("instance", string(instance)))
}
