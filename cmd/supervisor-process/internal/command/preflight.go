package command

import (
	"fmt"
	"io"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app"
)

// preflightCommand shows what is there and what is missing, a line each.
func preflightCommand(args []string, stdout, stderr io.Writer) int {
	cfg, rest, code := load("preflight", args, stderr)
	if code == exitOK {
		code = noArguments("preflight", rest, stderr)
	}
	if code != exitOK {
		return code
	}
	worst := app.LackNothing
	err := app.Preflight(cfg, func(l app.Line) {
		word := "ok"
		if l.Lack != app.LackNothing {
			word = "missing"
		}
		worst = max(worst, l.Lack)
		fmt.Fprintf(stdout, "%-8s %-16s %s\n", word, l.Name, l.Detail)
	})
	switch {
	case err != nil:
		return exitCode(err, stderr)
	case worst == app.LackConfiguration:
		return exitConfig
	case worst == app.LackPrivilege:
		return exitPrivilege
	default:
		return exitOK
	}
}
