package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
)

const policyUsage = `usage:
  supervisor-network policy check FILE [--identity process|ignore]
  supervisor-network policy explain FILE --host HOST --port PORT [--binary PATH [--ancestor PATH]...]
      [--method METHOD --path PATH [--query QUERY] [--upgrade]] [--call METHOD | --tool NAME | --operation TYPE[:NAME] [--field NAME]...]
      [--method METHOD --path PATH [--query QUERY] [--header 'NAME: VALUE']... [--body FILE]]
  supervisor-network policy explain --denial REQUEST_ID [--state-dir DIR]
  supervisor-network policy diff [--identity process|ignore] FILE FILE
`

func policyCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) >= 2 && args[0] == "check" {
		return policyCheck(ctx, args[1:], stdout, stderr)
	}
	if len(args) >= 2 && args[0] == "explain" {
		return policyExplain(ctx, args[1:], stdout, stderr)
	}
	if len(args) >= 2 && args[0] == "diff" {
		return policyDiff(args[1:], stdout, stderr)
	}
	fmt.Fprint(stderr, policyUsage)
	return exitUsage
}

// parseFile splits "FILE [flags]" or "[flags] FILE".
func parseFile(fs *flag.FlagSet, args []string) (file string, err error) {
	if !strings.HasPrefix(args[0], "-") {
		file, args = args[0], args[1:]
	}
	if err := fs.Parse(args); err != nil {
		return "", err
	}
	rest := fs.Args()
	if file == "" && len(rest) > 0 {
		file, rest = rest[0], rest[1:]
	}
	switch {
	case file == "":
		return "", errors.New("which policy file?")
	case len(rest) > 0: // which would not be looked at
		return "", fmt.Errorf("one policy file at a time, and flags before or behind it: what is %q?", rest[0])
	}
	return file, nil
}

// compileFile reads and compiles a policy for a command, reporting every problem.
func compileFile(ctx context.Context, file string, ignoreBinaries bool, stderr io.Writer) (policyfile.File, *decide.Snapshot, int) {
	f := policyfile.Read(file)
	for _, w := range f.Warnings {
		fmt.Fprintln(stderr, w)
	}
	if f.Err != nil {
		fmt.Fprintf(stderr, "%v\n", f.Err)
		return f, nil, exitConfig
	}
	snap, err := decide.Compile(ctx, f.Doc, decide.Options{Generation: 1, IgnoreBinaries: ignoreBinaries})
	if err != nil {
		fmt.Fprintf(stderr, "%v\n", err)
		return f, nil, exitConfig
	}
	return f, snap, exitOK
}

// isIdentity refuses a value of --identity that serve would not take, or with which
// binaries mean nothing.
func isIdentity(s string) error {
	if s != "process" && s != "ignore" {
		return fmt.Errorf("--identity %q: want process or ignore", s)
	}
	return nil
}

func policyCheck(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("policy check", flag.ContinueOnError)
	fs.SetOutput(stderr)
	identity := fs.String("identity", "process", "process or ignore, as serve will be started")
	file, err := parseFile(fs, args)
	if err == nil {
		err = isIdentity(*identity)
	}
	if err != nil {
		return complain(stderr, err, policyUsage)
	}
	f, _, code := compileFile(ctx, file, *identity == "ignore", stderr)
	if code != exitOK {
		return code
	}
	fmt.Fprintf(stdout, "%s is valid, sha256 %s\n", file, f.Digest)
	for _, line := range decide.Describe(f.Doc) {
		fmt.Fprintln(stdout, line)
	}
	return exitOK
}
