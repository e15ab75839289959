package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/admin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/advisor"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/remedy"
	"github.com/splitpod/splitpod/pkg/core"
)

// pathList is a flag that may be given several times.
type pathList []string

func (p *pathList) String() string     { return strings.Join(*p, ",") }
func (p *pathList) Set(s string) error { *p = append(*p, s); return nil }

// explained is what policy explain is asked.
type explained struct {
	host, binary          string
	port                  uint
	ancestors, fields     pathList
	method, path, query   string
	call, tool, operation string
	upgrade, message      bool
	headers               pathList
	body                  string // a file
	content               []byte // of it
}

func (x *explained) flags(fs *flag.FlagSet) {
	fs.StringVar(&x.host, "host", "", "destination name or address")
	fs.UintVar(&x.port, "port", 0, "destination port")
	fs.StringVar(&x.binary, "binary", "", "path of the program that connects; empty: as with --identity ignore")
	fs.Var(&x.ancestors, "ancestor", "path of a parent program, nearest first; may be repeated")
	fs.StringVar(&x.method, "method", "", "explain a request with this method, not the connection alone (with a path: GET)")
	fs.StringVar(&x.path, "path", "/", "path of the request, with or without a query")
	fs.StringVar(&x.query, "query", "", "query of the request")
	fs.BoolVar(&x.upgrade, "upgrade", false, "the request asks for a WebSocket")
	fs.BoolVar(&x.message, "message", false, "a text message on a WebSocket of this path, in place of a request")
	fs.StringVar(&x.call, "call", "", "JSON-RPC or MCP method that the request calls")
	fs.StringVar(&x.tool, "tool", "", "MCP tool that the request calls")
	fs.StringVar(&x.operation, "operation", "", "GraphQL operation: query, mutation or subscription, and :NAME if it has one")
	fs.Var(&x.headers, "header", "field of the request, name: value; may be repeated")
	fs.StringVar(&x.body, "body", "", "file with the body of the request")
	fs.Var(&x.fields, "field", "root field of the GraphQL operation; may be repeated")
}

// request is the request that is asked about.
func (x *explained) request() (*decide.Request, error) {
	path, query, asked := strings.Cut(x.path, "?")
	if asked && x.query != "" {
		return nil, fmt.Errorf("there is a query in --path and in --query")
	}
	if asked {
		x.query = query
	}
	path, err := http1.CanonicalPath(path, true)
	if err != nil {
		return nil, fmt.Errorf("--path: every request with it is refused: %w", err)
	}
	r := &decide.Request{Method: x.method, Path: path, Query: x.query, Upgrade: x.upgrade, Message: x.message}
	switch {
	case x.message:
		r.Method = decide.MethodText
	case r.Method == "" && (x.call != "" || x.tool != "" || x.operation != ""):
		r.Method = "POST"
	case r.Method == "" && (x.query != "" || x.path != "/"):
		r.Method = "GET"
	}
	if x.call != "" || x.tool != "" {
		c := decide.Call{Method: x.call, Tool: x.tool}
		if x.tool != "" {
			c.Method, c.Params = "tools/call", map[string]string{"name": x.tool}
		}
		r.Calls = []decide.Call{c}
	}
	if x.operation != "" {
		kind, name, _ := strings.Cut(x.operation, ":")
		r.Operations = []decide.Operation{{Type: kind, Name: name, Fields: x.fields}}
	}
	return r, nil
}

func policyExplain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if strings.HasPrefix(args[0], "--denial") || strings.HasPrefix(args[0], "-denial") {
		return denialExplain(ctx, args, stdout, stderr)
	}
	fs := flag.NewFlagSet("policy explain", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var x explained
	x.flags(fs)
	file, err := parseFile(fs, args)
	if err == nil && (x.host == "" || x.port == 0 || x.port > 65535) {
		err = fmt.Errorf("--host and --port (1 to 65535) are needed")
	}
	if err == nil && strings.Contains(x.host, "/") {
		err = fmt.Errorf("--host %q: say a name or an address, without a scheme and a path", x.host)
	}
	if err == nil && x.binary != "" && !strings.HasPrefix(x.binary, "/") {
		err = fmt.Errorf("--binary %q: say the path that the kernel resolves, from / on", x.binary)
	}
	var r *decide.Request
	if err == nil {
		err = x.readsFields()
	}
	if err == nil {
		r, err = x.request()
	}
	if err != nil {
		return complain(stderr, err, policyUsage)
	}
	_, snap, code := compileFile(ctx, file, x.binary == "", stderr)
	if code != exitOK {
		return code
	}
	if err := x.explain(ctx, snap, r, stdout); err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// explain says the decision about the connection and, if one is asked about, the
// request.
func (x *explained) explain(ctx context.Context, snap *decide.Snapshot, r *decide.Request, w io.Writer) error {
	who := core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: x.binary}}
	for _, a := range x.ancestors {
		who.Ancestors = append(who.Ancestors, core.Program{Path: a})
	}
	connection, err := snap.Explain(ctx, decide.Question{Who: &who, Host: strings.ToLower(x.host), Port: uint16(x.port)})
	if err != nil {
		return err
	}
	fmt.Fprint(w, connection)
	if connection.Denial != nil || r.Method == "" {
		return nil
	}
	written := x.written(snap, connection.Permit, r)
	if written != nil {
		read := written.read(written.fields)
		if read.refused != nil {
			fmt.Fprintf(w, "request %s %s: deny (%s): %s\n", authority.Quote(r.Method), authority.Quote(r.Path), read.refused.Reason, read.refused.Detail)
			return nil
		}
		r = &read.facts
		defer func() {
			for _, what := range written.idle(read) {
				fmt.Fprintf(w, "  note: %s\n", what)
			}
		}()
	}
	e, err := snap.SpeakAbout(ctx, connection.Permit, r)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "request %s %s: %s\n", authority.Quote(r.Method), authority.Quote(r.Path), rulingText(&e))
	if e.Endpoint != "" {
		fmt.Fprintf(w, "  taken by %s\n", e.Endpoint)
	}
	for _, s := range e.Spoken {
		verb := "allows"
		if s.Denies {
			verb = "refuses"
		}
		fmt.Fprintf(w, "  %s: %s %s\n", s.Place, verb, authority.RuleText(&s.Matcher))
	}
	return nil
}

func rulingText(e *decide.RequestExplanation) string {
	switch {
	case e.Ruling.Audited:
		return "allow, because the rules are not enforced; they would refuse it: " + e.Ruling.Detail
	case e.Ruling.Allowed && e.Endpoint == "":
		return "allow, requests on this connection are not judged"
	case e.Ruling.Allowed:
		return "allow"
	default:
		return fmt.Sprintf("deny (%s): %s", e.Ruling.ReasonOf(), e.Ruling.Detail)
	}
}

// denialExplain asks the running daemon about one denial.
func denialExplain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	id := ""
	a, err := newAsking(ctx, "supervisor-network policy explain", args, stdout, stderr, func(fs *flag.FlagSet) {
		fs.StringVar(&id, "denial", "", "request id of the denial")
	})
	if err != nil || id == "" || len(a.rest) > 0 {
		fmt.Fprint(stderr, policyUsage)
		return exitUsage
	}
	var answer remedy.Answer
	if !a.ask(admin.Question{Command: advisor.Denial, ID: id}, &answer) {
		return exitFailed
	}
	ev := &answer.Event
	fmt.Fprintf(stdout, "%s %s %s:%d %s %s, at %s: %s: %s\n", ev.Time.UTC().Format("2006-01-02T15:04:05.000Z"), authority.Quote(ev.Program.Path),
		authority.Quote(ev.Host), ev.Port, authority.Quote(ev.Method), authority.Quote(ev.Path), ev.Stage, ev.Reason, approve.OneLine(ev.Detail, 500))
	if answer.Why != "" {
		fmt.Fprintf(stdout, "%s\n", answer.Why)
	}
	for i, r := range answer.Remedies {
		fmt.Fprintf(stdout, "\n%d. %s\n", i+1, r.Title)
		printChanges(stdout, r.Changes, true)
		fmt.Fprintf(stdout, "%s", r.YAML)
	}
	return exitOK
}

// policyDiff says what programs may do by one policy file and not by the other.
func policyDiff(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("policy diff", flag.ContinueOnError)
	fs.SetOutput(stderr)
	identity := fs.String("identity", "process", "process or ignore, as serve is started")
	if err := fs.Parse(args); err != nil || fs.NArg() != 2 {
		fmt.Fprint(stderr, policyUsage)
		return exitUsage
	}
	if err := isIdentity(*identity); err != nil {
		return complain(stderr, err, policyUsage)
	}
	before, after := policyfile.Read(fs.Arg(0)), policyfile.Read(fs.Arg(1))
	for _, f := range []policyfile.File{before, after} {
		if f.Err != nil {
			fmt.Fprintf(stderr, "%v\n", f.Err)
			return exitConfig
		}
	}
	changes, complete := authority.Reading{IgnoreBinaries: *identity == "ignore"}.Diff(before.Doc, after.Doc)
	if len(changes) == 0 && complete {
		fmt.Fprintln(stdout, "by both files programs may do the same")
		return exitOK
	}
	printChanges(stdout, changes, complete)
	return exitOK
}
