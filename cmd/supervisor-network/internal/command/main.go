// Package command is the command line of the network daemon: what starts it, and what is
// asked of it, or of its files, from beside.
//
// It answers the threat of an answer that is not the daemon's: a policy is checked,
// explained and compared by the code that decides with it (decide, authority, and
// proxy.Facts for what a request says), a misspelt flag or a second file is a mistake and
// not ignored, and what the workload wrote is shown in quotes, on one line. Who may ask a
// running daemon it does not decide: that is admin's and view/page's.
//
// Invariant: the exit code says how it went, after sysexits.h where that has one.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/app"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/pkg/core/settings"
)

// Exit codes, after sysexits.h where it has one.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 64
	exitConfig = 78
)

const usage = `supervisor-network decides what a sandboxed workload may reach.

Usage:
  supervisor-network serve [flags]             run the daemon
  supervisor-network policy check FILE         validate a policy, say what it means
  supervisor-network policy explain FILE --binary PATH --host HOST --port PORT
                                               the decision, and the rule behind it; also of one request, and of a denial
  supervisor-network policy diff FILE FILE     what programs may do by one policy and not by the other
  supervisor-network proposals list|show|approve|reject|revoke|export
                                               decide what the workload asked for
  supervisor-network learn export              what was seen while learning, as a policy
  supervisor-network credentials list [FILE]   keys, bindings, sources, expiry, last use; never values
  supervisor-network config [flags]            print the effective configuration
  supervisor-network version                   print the version
  supervisor-network healthcheck [--url URL]   ask a running daemon whether it is ready
  supervisor-network watch [--url URL] [--count N]
                                               what a running daemon allows and refuses now

"serve -h" lists the flags; each has an environment variable, see
docs/configuration-network.md.
`

// Main runs one command and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	if code := run(ctx, args[0], args[1:], stdout, stderr); code != exitUsage || !asksForHelp(args[1:]) {
		return code
	}
	return exitOK
}

// asksForHelp reports whether a command, or one of its parts, was asked how it is used.
func asksForHelp(args []string) bool {
	return slices.ContainsFunc(args[:min(2, len(args))], func(a string) bool { return a == "-h" || a == "-help" || a == "--help" })
}

// complain says what is wrong with how a command was used; asking for help is not.
func complain(stderr io.Writer, err error, usage string) int {
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
	}
	fmt.Fprint(stderr, usage)
	return exitUsage
}

func run(ctx context.Context, command string, rest []string, stdout, stderr io.Writer) int {
	switch command {
	case "serve":
		return serveCommand(ctx, rest, stdout, stderr)
	case "policy":
		return policyCommand(ctx, rest, stdout, stderr)
	case "proposals":
		return proposalsCommand(ctx, rest, stdout, stderr)
	case "learn":
		return learnCommand(ctx, rest, stdout, stderr)
	case "credentials":
		return credentialsCommand(rest, stdout, stderr)
	case "config":
		return configCommand(rest, stdout, stderr)
	case "version":
		if len(rest) > 0 {
			fmt.Fprintf(stderr, "supervisor-network: version takes no argument %q\n", rest[0])
			return exitUsage
		}
		fmt.Fprintln(stdout, app.Build())
		return exitOK
	case "healthcheck":
		return healthCommand(ctx, rest, stdout, stderr)
	case "watch":
		return watchCommand(ctx, rest, stdout, stderr)
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return exitOK
	default:
		fmt.Fprintf(stderr, "supervisor-network: unknown command %q\n\n%s", command, usage)
		return exitUsage
	}
}

// load reads the configuration of a command; code is not exitOK when it failed and
// has been reported.
func load(command string, args []string, stderr io.Writer) (cfg *config.Config, code int) {
	cfg, rest, err := config.Load("supervisor-network "+command, args, config.Environ())
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return nil, exitConfig
	case len(rest) > 0:
		fmt.Fprintf(stderr, "supervisor-network: %s takes no argument %q\n", command, rest[0])
		return nil, exitUsage
	}
	return cfg, exitOK
}

func validate(cfg *config.Config, stderr io.Writer) int {
	if err := cfg.Validate(); err != nil {
		fmt.Fprintf(stderr, "supervisor-network: configuration:\n%v\n", err)
		return exitConfig
	}
	return exitOK
}

func serveCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, code := load("serve", args, stderr)
	if code != exitOK {
		return code
	}
	if code := validate(cfg, stderr); code != exitOK {
		return code
	}
	err := app.Serve(ctx, cfg, stdout, stderr)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
	if _, ok := errors.AsType[*app.ConfigError](err); ok {
		return exitConfig
	}
	return exitFailed
}

// configCommand prints what was read, also if it is not valid: that is when somebody looks.
func configCommand(args []string, stdout, stderr io.Writer) int {
	cfg, code := load("config", args, stderr)
	if code != exitOK {
		return code
	}
	for _, l := range settings.Lines(config.Prefix, cfg) {
		fmt.Fprintf(stdout, "%s=%s\n", l.Name, l.Value)
	}
	return validate(cfg, stderr)
}
