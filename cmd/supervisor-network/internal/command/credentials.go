package command

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
)

const credentialsUsage = `usage:
  supervisor-network credentials list [FILE] [--state-dir DIR] [--json]
                     what a running daemon last wrote of its keys, or what FILE says
`

// credentialsCommand lists keys. With a FILE it reads that and its secrets, as serve
// would; without one, what the daemon of the state directory wrote, which is at most
// some seconds old.
func credentialsCommand(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "list" {
		fmt.Fprint(stderr, credentialsUsage)
		return exitUsage
	}
	args = args[1:]
	file := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		file, args = args[0], args[1:]
	}
	cfg, _, err := config.Load("supervisor-network credentials", nil, config.Environ())
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return exitConfig
	}
	fs := flag.NewFlagSet("supervisor-network credentials list", flag.ContinueOnError)
	fs.SetOutput(stderr)
	dir := fs.String("state-dir", cfg.StateDir, "of the running daemon")
	asJSON := fs.Bool("json", false, "for programs")
	if fs.Parse(args) != nil || fs.NArg() > 0 {
		fmt.Fprint(stderr, credentialsUsage)
		return exitUsage
	}
	u, code := readUsage(file, *dir, stderr)
	if code != exitOK {
		return code
	}
	if *asJSON {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		_ = out.Encode(u)
		return exitOK
	}
	printUsage(stdout, u)
	return exitOK
}

func readUsage(file, dir string, stderr io.Writer) (u credentials.Usage, code int) {
	if file != "" {
		store, warnings, err := credentials.Open(credentials.Config{File: file})
		for _, w := range warnings {
			fmt.Fprintln(stderr, w)
		}
		if err != nil {
			fmt.Fprintln(stderr, err)
			return u, exitConfig
		}
		return credentials.Usage{Written: time.Now(), Keys: store.Current().List()}, exitOK
	}
	u, err := credentials.ReadUsage(dir)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: no daemon with a credentials file has written of it here (name the FILE, or --state-dir of a running one): %v\n", err)
		return u, exitFailed
	}
	return u, exitOK
}

func printUsage(w io.Writer, u credentials.Usage) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tSTATE\tAGE\tEXPIRES\tUSES\tLAST USE\tSOURCE\tBINDINGS")
	for _, k := range u.Keys {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t", k.Key, k.State, age(u.Written, k.Changed), moment(k.Expires), k.Uses, moment(k.LastUse), k.Source)
		for i, b := range k.Bindings {
			if i > 0 {
				fmt.Fprint(t, " ")
			}
			fmt.Fprint(t, b)
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
	fmt.Fprintf(w, "as of %s\n", moment(u.Written))
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return now.Sub(then).Round(time.Second).String()
}
