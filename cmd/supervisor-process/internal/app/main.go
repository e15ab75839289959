// Package app wires the process daemon: it builds every stage, owns their order
// and their end, and holds the commands.
//
// It answers the threat of a workload that starts before its fence: the order of
// lifecycle.go is the order in which things become possible, every wait in it has
// a deadline that ends the start, and no step is skipped when one fails. It holds
// no policy and no secret.
package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/settings"
)

// Exit codes of the daemon's own failures, after sysexits.h where it has one. A
// workload's own code is passed through.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 64
	exitPrivilege = 77
	exitConfig    = 78
)

// version and commit are set by the linker: -X …/app.version=0.1.0.
var version, commit = "devel", ""

const usage = `supervisor-process runs a workload in a sandbox whose only way out is the proxy.

Usage:
  supervisor-process run [flags] -- CMD [ARG...]   run a workload
  supervisor-process exec [flags] -- CMD [ARG...]  run another program in the same sandbox
  supervisor-process attach --pid PID [flags]      only answer who owns a connection of
                                                   processes that already run
  supervisor-process preflight [--policy FILE]     what the kernel and the pod offer
  supervisor-process copy-self DIR                 write this binary into a directory
  supervisor-process config [flags]                print the effective configuration
  supervisor-process version                       print the version

"run -h" lists the flags; each has an environment variable, see
docs/configuration-process.md.
`

// Main runs one command and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	code := run(ctx, args[0], args[1:], stdout, stderr)
	if code == exitUsage && len(args) > 1 && (args[1] == "-h" || args[1] == "-help" || args[1] == "--help") {
		return exitOK // that is how it is used
	}
	return code
}

func run(ctx context.Context, command string, rest []string, stdout, stderr io.Writer) int {
	switch command {
	case "run":
		return runCommand(ctx, rest, stdout, stderr)
	case "exec":
		return execCommand(ctx, rest, stderr)
	case "attach":
		return attachCommand(ctx, rest, stdout, stderr)
	case "preflight":
		return preflightCommand(rest, stdout, stderr)
	case "copy-self":
		return copySelfCommand(rest, stderr)
	case "config":
		return configCommand(rest, stdout, stderr)
	case "version":
		if code := noArguments(command, rest, stderr); code != exitOK {
			return code
		}
		fmt.Fprintln(stdout, build())
		return exitOK
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	default:
		fmt.Fprintf(stderr, "supervisor-process: unknown command %q\n\n%s", command, usage)
		return exitUsage
	}
}

// load reads and validates the configuration of a command; code is not exitOK when
// it failed and has been reported.
func load(command string, args []string, stderr io.Writer) (cfg *config.Config, rest []string, code int) {
	cfg, rest, err := config.Load("supervisor-process "+command, args, config.Environ())
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, nil, exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return nil, nil, exitConfig
	}
	if err := cfg.Validate(); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: configuration:\n%v\n", err)
		return nil, nil, exitConfig
	}
	return cfg, rest, exitOK
}

// noArguments refuses what a command would not look at.
func noArguments(command string, rest []string, stderr io.Writer) int {
	if len(rest) > 0 {
		fmt.Fprintf(stderr, "supervisor-process: %s takes no argument %q\n", command, rest[0])
		return exitUsage
	}
	return exitOK
}

func configCommand(args []string, stdout, stderr io.Writer) int {
	cfg, rest, code := load("config", args, stderr)
	if code == exitOK {
		code = noArguments("config", rest, stderr)
	}
	if code != exitOK {
		return code
	}
	for _, l := range settings.Lines(config.Prefix, cfg) {
		fmt.Fprintf(stdout, "%s=%s\n", l.Name, l.Value)
	}
	return exitOK
}

// build names this binary.
func build() core.Build {
	return core.Build{Component: "supervisor-process", Version: version, Commit: commit[:min(len(commit), 12)]}
}

func newLogger(w io.Writer, level string, instance core.InstanceID) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // Validate has checked it
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})
	return slog.New(h).With(slog.String("component", "supervisor-process"), slog.String("instance", string(instance)))
}

// problem is an error with the exit code it deserves.
type problem struct {
	code int
	err  error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// exitCode reports err and returns the code it deserves.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
	if p, ok := errors.AsType[*problem](err); ok {
		return p.code
	}
	return exitFailed
}
