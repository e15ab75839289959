package decide

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// The modules decide; what is embedded is what reviewers read.
var (
	//go:embed rego/connection.rego
	connectionModule string
	//go:embed rego/request.rego
	requestModule string
)

// deadline ends an evaluation that takes absurdly long; it is a denial. The clock also runs
// while a busy machine lets us wait.
const deadline = 5 * time.Second

// allowedBuiltins is what a module may call: pure functions over its own data.
var allowedBuiltins = []string{
	"eq", "equal", "neq", "lt", "lte", "gt", "gte", "assign",
	"internal.member_2", "internal.member_3",
	"and", "or", "minus", "plus", "count", "max", "min", "sort",
	"lower", "upper", "startswith", "endswith", "contains", "split", "concat", "trim", "sprintf",
	"object.get", "array.concat",
}

// capabilities is the allow-list as OPA wants it.
func capabilities() *ast.Capabilities {
	all := ast.CapabilitiesForThisVersion()
	only := &ast.Capabilities{Features: all.Features, FutureKeywords: all.FutureKeywords, AllowNet: []string{}}
	for _, b := range all.Builtins {
		if slices.Contains(allowedBuiltins, b.Name) {
			only.Builtins = append(only.Builtins, b)
		}
	}
	return only
}

// evaluator is the prepared module over one policy's data.
type evaluator struct{ query rego.PreparedEvalQuery }

func newEvaluator(ctx context.Context, data map[string]any, g *globs) (*evaluator, error) {
	store := inmem.NewFromObjectWithOpts(map[string]any{"policy": data}, inmem.OptReturnASTValuesOnRead(true))
	query, err := prepare(ctx, "connection.rego", connectionModule, "data.splitpod.connection.decision", store, g)
	return &evaluator{query}, err
}

// prepare compiles a module over its data.
func prepare(ctx context.Context, name, module, query string, store storage.Store, g *globs) (rego.PreparedEvalQuery, error) {
	options := append(g.builtins(),
		rego.Query(query), rego.Module(name, module), rego.Store(store),
		rego.Capabilities(capabilities()), rego.StrictBuiltinErrors(true))
	prepared, err := rego.New(options...).PrepareForEval(ctx)
	if err != nil {
		return prepared, fmt.Errorf("prepare the decision: %w", err)
	}
	return prepared, nil
}

// decision is what the module says.
type decision struct {
	granted []int    // numbers of the endpoints that allow it
	near    []string // rules that name the destination, but not the program; sorted
}

var (
	keyHost        = ast.InternedTerm("host")
	keyDestination = ast.InternedTerm("destination")
	keySuffixes    = ast.InternedTerm("suffixes")
	keyPrograms    = ast.InternedTerm("programs")
	keyAny         = ast.InternedTerm("any_program")
)

func (e *evaluator) evaluate(ctx context.Context, f *facts, ignore bool) (decision, error) {
	value, err := ask(ctx, e.query, inputOf(f, ignore))
	if err != nil {
		return decision{}, err
	}
	return readDecision(value)
}

// ask evaluates a module. What takes too long or is undefined is an error.
func ask(ctx context.Context, query rego.PreparedEvalQuery, input ast.Value) (any, error) {
	cancel := topdown.NewCancel()
	timer := time.AfterFunc(deadline, cancel.Cancel)
	defer timer.Stop()
	results, err := query.Eval(context.WithoutCancel(ctx), rego.EvalParsedInput(input), rego.EvalExternalCancel(cancel))
	if err != nil {
		return nil, fmt.Errorf("evaluate the decision: %w", err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, errors.New("the decision is undefined")
	}
	return results[0].Expressions[0].Value, nil
}

func inputOf(f *facts, ignore bool) ast.Value {
	port := strconv.Itoa(int(f.port)) + " "
	programs := make([]*ast.Term, 0, 1+len(f.ancestors))
	if !ignore {
		programs = append(programs, ast.StringTerm(f.program))
		for i := range f.ancestors {
			programs = append(programs, ast.StringTerm(f.ancestors[i].Path))
		}
	}
	var suffixes []*ast.Term
	for s := range suffixesOf(f.host) {
		suffixes = append(suffixes, ast.StringTerm(port+s))
	}
	return ast.NewObject(
		[2]*ast.Term{keyHost, ast.StringTerm(f.host)},
		[2]*ast.Term{keyDestination, ast.StringTerm(port + f.host)},
		[2]*ast.Term{keySuffixes, ast.ArrayTerm(suffixes...)},
		[2]*ast.Term{keyPrograms, ast.ArrayTerm(programs...)},
		[2]*ast.Term{keyAny, ast.InternedTerm(ignore)},
	)
}

// suffixesOf yields a host, what follows each of its dots, and the empty suffix.
func suffixesOf(host string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest, more := host, true; more; {
			if !yield(rest) {
				return
			}
			_, rest, more = strings.Cut(rest, ".")
		}
		yield("")
	}
}

// suffixOf is the index key of a pattern: the labels behind its last wildcard.
func suffixOf(pattern string) string {
	last := strings.LastIndexByte(pattern, '*')
	_, after, _ := strings.Cut(pattern[last+1:], ".")
	return after
}

func readDecision(v any) (decision, error) {
	var d decision
	object, ok := v.(map[string]any)
	granted, ok1 := object["granted"].([]any)
	near, ok2 := object["near"].([]any)
	if !ok || !ok1 || !ok2 {
		return decision{}, errors.New("the decision has another shape")
	}
	for _, g := range granted {
		n, ok := g.(json.Number)
		id, err := strconv.Atoi(n.String())
		if !ok || err != nil {
			return decision{}, errors.New("the decision has another shape")
		}
		d.granted = append(d.granted, id)
	}
	for _, r := range near {
		name, ok := r.(string)
		if !ok {
			return decision{}, errors.New("the decision has another shape")
		}
		d.near = append(d.near, name)
	}
	slices.Sort(d.granted)
	slices.Sort(d.near)
	return d, nil
}
