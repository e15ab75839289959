package command

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/exec"
)

// execCommand asks a running daemon for another program in its sandbox.
func execCommand(ctx context.Context, args []string, stderr io.Writer) int {
	cfg, argv, code := load("exec", args, stderr)
	if code != exitOK {
		return code
	}
	if len(argv) == 0 {
		fmt.Fprintf(stderr, "supervisor-process: exec needs a command: exec [flags] -- CMD [ARG...]\n")
		return exitUsage
	}
	c, err := link.Dial(ctx, "unixpacket", cfg.RunDir, exec.Socket)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-process: no workload runs here (%v)\n", err)
		return exitFailed
	}
	defer c.Close()
	if err := link.CheckPeer(c, uint32(os.Geteuid())); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return exitFailed
	}
	code, err = exec.Ask(c, argv, config.Term())
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
	}
	return code
}
