package command

import (
	"context"
	"fmt"
	"io"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
)

// runCommand runs a workload in a sandbox.
func runCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, argv, code := load("run", args, stderr)
	if code != exitOK {
		return code
	}
	if len(argv) == 0 {
		fmt.Fprintf(stderr, "supervisor-process: run needs a command: run [flags] -- CMD [ARG...]\n")
		return exitUsage
	}
	if err := prepare.CheckCapabilities(); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return exitPrivilege
	}
	exit, err := app.Run(ctx, cfg, argv, stdout, stderr)
	if err != nil {
		return exitCode(err, stderr)
	}
	return exit.Code
}

// attachCommand answers for a process tree that already runs.
func attachCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, rest, code := load("attach", args, stderr)
	if code != exitOK {
		return code
	}
	if len(rest) > 0 || cfg.PID == 0 {
		fmt.Fprintln(stderr, "supervisor-process: attach needs --pid PID and no further argument")
		return exitUsage
	}
	return exitCode(app.Attach(ctx, cfg, stdout, stderr), stderr)
}
