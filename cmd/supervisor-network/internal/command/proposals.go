package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/admin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/advisor"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
)

const proposalsUsage = `usage, in the container of a running daemon:
  supervisor-network proposals list [--all]        what waits for a decision; with --all, what was decided too
  supervisor-network proposals show ID             one proposal, what it would change, and the hash to approve it with
  supervisor-network proposals approve ID HASH     put it in force, if nothing changed since it was shown
  supervisor-network proposals reject ID [REASON]  decide against it; the workload is told the reason
  supervisor-network proposals revoke ID [REASON]  take an approved rule out of force
  supervisor-network proposals export              the approved rules, as a policy file
Each takes --state-dir, if the daemon's is not the usual one.
`

const learnUsage = `usage, in the container of a running daemon:
  supervisor-network learn export                  what was seen while learning, as a policy file
`

// asking is a command that asks the running daemon.
type asking struct {
	ctx    context.Context
	dir    string
	rest   []string
	out    io.Writer
	errors io.Writer
}

// newAsking reads the flags of a command, which may stand between its arguments.
func newAsking(ctx context.Context, name string, args []string, stdout, stderr io.Writer, more func(*flag.FlagSet)) (*asking, error) {
	cfg, _, err := config.Load(name, nil, config.Environ())
	if err != nil {
		return nil, err
	}
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	a := &asking{ctx: ctx, out: stdout, errors: stderr}
	fs.StringVar(&a.dir, "state-dir", cfg.StateDir, "the state directory of the daemon")
	if more != nil {
		more(fs)
	}
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if args = fs.Args(); len(args) > 0 {
			a.rest, args = append(a.rest, args[0]), args[1:]
		}
	}
	return a, nil
}

// ask asks, reports what went wrong, and says whether it went well.
func (a *asking) ask(q admin.Question, to any) bool {
	if err := admin.Ask(a.ctx, a.dir, q, to); err != nil {
		fmt.Fprintf(a.errors, "supervisor-network: %v\n", err)
		return false
	}
	return true
}

func proposalsCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, proposalsUsage)
		return exitUsage
	}
	all := false
	a, err := newAsking(ctx, "supervisor-network proposals "+args[0], args[1:], stdout, stderr, func(fs *flag.FlagSet) {
		fs.BoolVar(&all, "all", false, "list what was decided, too")
	})
	if err != nil {
		return complain(stderr, err, proposalsUsage)
	}
	ok := false
	switch n := len(a.rest); {
	case args[0] == "list" && n == 0:
		ok = a.list(all)
	case args[0] == "show" && n == 1:
		ok = a.show(a.rest[0])
	case args[0] == "approve" && n == 2:
		ok = a.decide(admin.Question{Command: advisor.Approve, ID: a.rest[0], Hash: a.rest[1]})
	case args[0] == "reject" && n >= 1:
		ok = a.decide(admin.Question{Command: advisor.Reject, ID: a.rest[0], Reason: strings.Join(a.rest[1:], " ")})
	case args[0] == "revoke" && n >= 1:
		ok = a.decide(admin.Question{Command: advisor.Revoke, ID: a.rest[0], Reason: strings.Join(a.rest[1:], " ")})
	case args[0] == "export" && n == 0:
		ok = a.export(advisor.Export)
	default:
		fmt.Fprint(stderr, proposalsUsage)
		return exitUsage
	}
	if !ok {
		return exitFailed
	}
	return exitOK
}

func learnCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "export" {
		fmt.Fprint(stderr, learnUsage)
		return exitUsage
	}
	a, err := newAsking(ctx, "supervisor-network learn export", args[1:], stdout, stderr, nil)
	if err != nil || len(a.rest) > 0 {
		fmt.Fprint(stderr, learnUsage)
		return exitUsage
	}
	if !a.export(advisor.Learned) {
		return exitFailed
	}
	return exitOK
}

func (a *asking) list(all bool) bool {
	var entries []approve.Entry
	if !a.ask(admin.Question{Command: advisor.List}, &entries) {
		return false
	}
	listed := 0
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATUS\tFROM\tHITS\tRULE\tWHY")
	for _, e := range slices.Backward(entries) {
		if e.Status == approve.Pending || e.Status == approve.Approved || all {
			listed++
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", e.ID, statusOf(&e), e.Source, e.Hits, authority.Quote(e.Name), approve.OneLine(e.Rationale, 100))
		}
	}
	switch err := w.Flush(); {
	case err != nil:
		return false
	case listed > 0:
	case len(entries) == 0:
		fmt.Fprintln(a.errors, "supervisor-network: nothing was proposed")
	default:
		fmt.Fprintln(a.errors, "supervisor-network: nothing waits, and nothing is approved; --all lists what was decided")
	}
	return true
}

func statusOf(e *approve.Entry) string {
	if e.Status == approve.Approved && !e.InForce {
		return "approved, left out" // it does not fit the policy file
	}
	return string(e.Status)
}

func (a *asking) show(id string) bool {
	var r approve.Review
	if !a.ask(admin.Question{Command: advisor.Show, ID: id}, &r) {
		return false
	}
	e := &r.Entry
	fmt.Fprintf(a.out, "proposal %s, %s, from %s, made %s\n", e.ID, statusOf(e), e.Source, e.Created.Format(time.RFC3339))
	if e.Rationale != "" {
		fmt.Fprintf(a.out, "it says: %s\n", approve.OneLine(e.Rationale, 500))
	}
	if e.Reason != "" {
		fmt.Fprintf(a.out, "decided %s: %s\n", e.Decided.Format(time.RFC3339), approve.OneLine(e.Reason, approve.MaxReason))
	}
	fmt.Fprintf(a.out, "\n%s\n", r.RuleYAML)
	for _, n := range e.Notes {
		fmt.Fprintf(a.out, "note: %s (%s)\n", approve.OneLine(n.Text, 500), n.Code)
	}
	if e.Status != approve.Pending {
		return true
	}
	fmt.Fprintln(a.out, "\nwhat approving it changes:")
	printChanges(a.out, r.Changes, r.Complete)
	fmt.Fprintf(a.out, "\nto approve exactly this:\n  supervisor-network proposals approve %s %s\n", e.ID, r.Hash)
	return true
}

func printChanges(w io.Writer, changes []authority.Change, complete bool) {
	for _, c := range changes {
		fmt.Fprintf(w, "  %s\n", c)
	}
	switch {
	case !complete:
		fmt.Fprintf(w, "  … and more; only %d are listed\n", len(changes))
	case len(changes) == 0:
		fmt.Fprintln(w, "  nothing")
	}
}

func (a *asking) decide(q admin.Question) bool {
	var e approve.Entry
	if !a.ask(q, &e) {
		return false
	}
	fmt.Fprintf(a.out, "proposal %s is %s\n", e.ID, statusOf(&e))
	return true
}

func (a *asking) export(command string) bool {
	var t advisor.Text
	if !a.ask(admin.Question{Command: command}, &t) {
		return false
	}
	fmt.Fprint(a.out, t.YAML)
	return true
}
