// Package command is the command line of the process daemon: what starts it, and what is
// asked of it, or of the machine, from beside.
//
// It answers the threat of a start that is not what was asked for: a misspelt flag or an
// argument that nobody looks at is a mistake and not ignored, and nothing is started before
// the configuration is valid and every privilege is there. Who may ask a running daemon it
// does not decide: that is launch/exec's.
//
// Invariant: the exit code says how it went: the workload's own, that of a program that was
// not executed (launch.LaunchError), or one after sysexits.h where that has one.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/pkg/core/settings"
)

// Exit codes of the daemon's own failures, after sysexits.h where it has one.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 64
	exitPrivilege = 77
	exitConfig    = 78
)

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
		fmt.Fprintln(stdout, app.Build())
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
	if cfg, rest, code = read(command, args, stderr); code == exitOK {
		code = validate(cfg, stderr)
	}
	return cfg, rest, code
}

// read is load without looking at what the settings say.
func read(command string, args []string, stderr io.Writer) (cfg *config.Config, rest []string, code int) {
	cfg, rest, err := config.Load("supervisor-process "+command, args, config.Environ())
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, nil, exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return nil, nil, exitConfig
	}
	return cfg, rest, exitOK
}

func validate(cfg *config.Config, stderr io.Writer) int {
	if err := cfg.Validate(); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: configuration:\n%v\n", err)
		return exitConfig
	}
	return exitOK
}

// noArguments refuses what a command would not look at.
func noArguments(command string, rest []string, stderr io.Writer) int {
	if len(rest) > 0 {
		fmt.Fprintf(stderr, "supervisor-process: %s takes no argument %q\n", command, rest[0])
		return exitUsage
	}
	return exitOK
}

// configCommand prints what was read, also if it is not valid: that is when somebody looks.
func configCommand(args []string, stdout, stderr io.Writer) int {
	cfg, rest, code := read("config", args, stderr)
	if code == exitOK {
		code = noArguments("config", rest, stderr)
	}
	if code != exitOK {
		return code
	}
	for _, l := range settings.Lines(config.Prefix, cfg) {
		fmt.Fprintf(stdout, "%s=%s\n", l.Name, l.Value)
	}
	return validate(cfg, stderr)
}

// exitCode reports err and returns the code it deserves.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	if e, ok := errors.AsType[*launch.LaunchError](err); ok {
		err, code = e, e.Code
	} else if _, ok := errors.AsType[*app.ConfigError](err); ok {
		code = exitConfig
	}
	fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
	return code
}
