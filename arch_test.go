package splitpod_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// The architecture, as rules over the source files. The files are read here and
// not by a subprocess, so that the test cache sees every one of them.

const module = "github.com/splitpod/splitpod/"

// source is one Go file as the rules see it.
type source struct {
	path    string // relative to the repository, with slashes
	dir     string
	test    bool
	imports []string
	tree    *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(path), dir: filepath.ToSlash(filepath.Dir(path)), test: strings.HasSuffix(path, "_test.go"), tree: tree}
		for _, im := range tree.Imports {
			p, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d Go files were found", len(out))
	}
	return out
}

// in reports whether the file lies in folder or below.
func (s source) in(folder string) bool {
	return s.dir == folder || strings.HasPrefix(s.dir, folder+"/")
}

// below reports whether an import path is pkg or lies below it.
func below(imported, pkg string) bool {
	return imported == pkg || strings.HasPrefix(imported, pkg+"/")
}

const (
	networkLeaf = "cmd/supervisor-network"
	processLeaf = "cmd/supervisor-process"
)

// banned says which modules a part may not contain, and why.
var banned = []struct {
	folder, imported, why string
	tests                 bool // tests too
}{
	{networkLeaf, module + processLeaf, "the leaves speak only through the contract", true},
	{processLeaf, module + networkLeaf, "the leaves speak only through the contract", true},
	{processLeaf, "github.com/open-policy-agent/opa", "the process daemon makes no policy decision", true},
	{processLeaf, "net/http/httputil", "the process daemon contains no proxy", false},
	{networkLeaf, "github.com/vishvananda/netlink", "the network daemon has no privilege to configure a network with", true},
	{networkLeaf, "github.com/mdlayher/netlink", "the network daemon has no privilege to configure a network with", true},
	{networkLeaf, "github.com/google/nftables", "the fence belongs to the process daemon", true},
	{networkLeaf, "github.com/landlock-lsm/go-landlock", "confinement belongs to the process daemon", true},
	{networkLeaf, "github.com/elastic/go-seccomp-bpf", "confinement belongs to the process daemon", true},
	{networkLeaf, "github.com/gliderlabs/ssh", "sessions belong to the process daemon", true},
	{networkLeaf, "golang.org/x/crypto/ssh", "sessions belong to the process daemon", true},
	{processLeaf, module + "api/gateway", "only the network daemon speaks with a control plane", true},
	{"api/supervisor", module + "api/gateway", "what the daemons tell each other is their own", true},
	{"api", module + "cmd", "the contract depends on no daemon", true},
	{"pkg", module + "cmd", "core depends on no daemon", true},
	{"pkg", module + "api", "core does not know how it is transported", true},
}

func TestNoPackageImportsWhatItMustNotHave(t *testing.T) {
	for _, s := range sources(t) {
		for _, b := range banned {
			if s.test && !b.tests || !s.in(b.folder) {
				continue
			}
			for _, im := range s.imports {
				if below(im, b.imported) {
					t.Errorf("%s imports %s: %s", s.path, im, b.why)
				}
			}
		}
	}
}

// TestBannedFoldersExist keeps a rename from hollowing the rules.
func TestBannedFoldersExist(t *testing.T) {
	for _, b := range banned {
		if _, err := os.Stat(b.folder); err != nil {
			t.Errorf("the rule about %s names a folder that is gone: %v", b.imported, err)
		}
	}
}

func TestCoreImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, s := range sources(t) {
		if !s.in("pkg/core") || s.test {
			continue
		}
		for _, im := range s.imports {
			outside := strings.Contains(strings.Split(im, "/")[0], ".") && !below(im, module+"pkg/core")
			yaml := below(im, "go.yaml.in/yaml/v3") && (s.dir == "pkg/core/policy" || s.dir == "pkg/core/strictyaml")
			if outside && !yaml {
				t.Errorf("%s imports %s: pkg/core is standard library only", s.path, im)
			}
		}
	}
}

// The straight lines. A stage may import earlier stages' types, never a later
// stage; only what stands above them imports several.
var lines = map[string][]string{
	networkLeaf: {"listen", "identify", "decide", "inspect", "inject", "relay", "record"},
	processLeaf: {"prepare", "isolate", "confine", "launch", "watch", "report"},
}

func TestStagesImportOnlyEarlierStages(t *testing.T) {
	all := sources(t)
	for leaf, stages := range lines {
		for i, stage := range stages {
			folder := leaf + "/internal/" + stage
			if _, err := os.Stat(folder); err != nil {
				t.Errorf("stage %s of %s is gone: %v", stage, leaf, err)
			}
			for _, s := range all {
				if s.test || !s.in(folder) {
					continue
				}
				for _, im := range s.imports {
					for _, later := range stages[i+1:] {
						if below(im, module+leaf+"/internal/"+later) {
							t.Errorf("%s imports %s: %s comes after %s", s.path, im, later, stage)
						}
					}
				}
			}
		}
	}
}

// above is what stands above every other folder of a leaf, the highest first: main imports
// that one, it those below, and nothing imports one above itself.
var above = map[string][]string{
	networkLeaf: {"command", "app", "proxy"},
	processLeaf: {"command", "app"},
}

func TestNothingImportsWhatStandsAboveIt(t *testing.T) {
	all := sources(t)
	for leaf, folders := range above {
		for i, folder := range folders {
			if _, err := os.Stat(leaf + "/internal/" + folder); err != nil {
				t.Errorf("%s of %s is gone: %v", folder, leaf, err)
			}
			for _, s := range all {
				if s.test || !s.in(leaf) || i == 0 && s.dir == leaf || s.inAny(leaf, folders[:i+1]) {
					continue
				}
				for _, im := range s.imports {
					if below(im, module+leaf+"/internal/"+folder) {
						t.Errorf("%s imports %s, which stands above it", s.path, folder)
					}
				}
			}
		}
	}
}

// inAny reports whether the file lies in one of a leaf's folders.
func (s source) inAny(leaf string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return s.in(leaf + "/internal/" + f) })
}

// wires are the folders that know the configuration of their leaf: all others are told what
// of it is theirs.
var wires = []string{"command", "app"}

func TestOnlyWhatWiresKnowsTheConfiguration(t *testing.T) {
	for _, s := range sources(t) {
		for leaf := range lines {
			if s.test || s.inAny(leaf, wires) {
				continue
			}
			for _, im := range s.imports {
				if below(im, module+leaf+"/internal/config") {
					t.Errorf("%s imports %s: it is told what it needs of it", s.path, im)
				}
			}
		}
	}
}

func TestMainNamesTheStraightLineInOrder(t *testing.T) {
	for leaf, stages := range lines {
		data, err := os.ReadFile(leaf + "/main.go")
		if err != nil {
			t.Fatal(err)
		}
		if line := strings.Join(stages, " → "); !strings.Contains(string(data), line) {
			t.Errorf("%s/main.go does not name the line %q in its package comment", leaf, line)
		}
	}
}

// calls lists the package-qualified names a file uses, such as "net.Dial".
func (s source) calls() []string {
	var out []string
	ast.Inspect(s.tree, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok {
				out = append(out, id.Name+"."+sel.Sel.Name)
			}
		}
		return true
	})
	return out
}

// restricted says which names may be used only in which places.
var restricted = []struct {
	names []string
	only  []string
	why   string
}{
	{[]string{"net.Dial", "net.DialTimeout", "net.DialTCP", "net.DialUDP", "net.Dialer", "tls.Dial", "tls.Dialer"},
		[]string{networkLeaf + "/internal/relay", "api/supervisor/link", "test"},
		"every outgoing connection comes from the one guarded dialer"},
	{[]string{"http.Get", "http.Post", "http.DefaultClient", "http.DefaultTransport"}, nil,
		"every outgoing connection comes from the one guarded dialer"},
	{[]string{"os.Getenv", "os.LookupEnv", "os.Environ"},
		[]string{networkLeaf + "/internal/config", processLeaf + "/internal/config", "test", xconnect},
		"the environment is read in config, where unknown variables are refused"},
	{[]string{"unix.Connect", "syscall.Connect"},
		[]string{processLeaf + "/internal/isolate/netns"},
		"every outgoing connection comes from the one guarded dialer; the other one leads into the workload's namespace"},
	{[]string{"net.LookupHost", "net.LookupIP", "net.LookupAddr", "net.LookupCNAME", "net.LookupTXT", "net.DefaultResolver", "net.Resolver", "net.ResolveTCPAddr", "net.ResolveUDPAddr", "net.ResolveIPAddr"},
		[]string{networkLeaf + "/internal/relay", "test"},
		"a name is looked up once, after it was judged, by who dials what it leads to"},
	{[]string{"os.StartProcess", "syscall.ForkExec", "syscall.StartProcess", "syscall.Exec", "unix.Exec"},
		[]string{processLeaf + "/internal/launch", "test"},
		"programs are started in one place, confined"},
	{[]string{"exec.Command", "exec.CommandContext", "exec.LookPath"}, []string{"test"},
		"nothing from the image is executed with privilege"},
	{[]string{"slog.Default", "slog.Info", "slog.Warn", "slog.Error", "log.Print", "log.Printf", "log.Fatal", "log.Fatalf"}, nil,
		"the logger is a field, not a global"},
}

func TestRestrictedNamesStayInTheirPlaces(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		used := s.calls()
		for _, r := range restricted {
			if slices.ContainsFunc(r.only, s.in) {
				continue
			}
			for _, name := range r.names {
				if slices.Contains(used, name) {
					t.Errorf("%s uses %s: %s", s.path, name, r.why)
				}
			}
		}
	}
}

func TestUnsafeIsOnlyInFilesNamedForIt(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(s.imports, "unsafe") && !strings.HasSuffix(s.path, "_unsafe.go") && !strings.HasSuffix(s.path, ".pb.go") {
			t.Errorf("%s imports unsafe; only *_unsafe.go may", s.path)
		}
	}
}

func TestTestHelpersAreImportedOnlyByTests(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.in("test") {
			continue
		}
		for _, im := range s.imports {
			if below(im, module+"test") || strings.HasPrefix(im, module) && strings.HasSuffix(im, "test") {
				t.Errorf("%s imports %s", s.path, im)
			}
		}
	}
}

func TestEveryPackageHasExactlyOneComment(t *testing.T) {
	docs := make(map[string]int)
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		n := 0
		if s.tree.Doc != nil && !strings.HasPrefix(s.tree.Doc.Text(), "Code generated") {
			n = 1
		}
		docs[s.dir] += n
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, n)
		}
	}
}

// TestArchitectureNamesEveryFolder keeps the tree of ARCHITECTURE.md complete: a newcomer
// finds every package of the product there.
func TestArchitectureNamesEveryFolder(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources(t) {
		inside := strings.Contains(s.dir, "/internal/") || s.in("pkg") || s.in("api")
		if s.test || s.dir == xconnect || !inside {
			continue
		}
		if !strings.Contains(string(page), filepath.Base(s.dir)+"/") {
			t.Errorf("ARCHITECTURE.md does not name %s", s.dir)
		}
	}
}

// xconnect sets the one switch that a library reads while it is initialised.
const xconnect = networkLeaf + "/internal/inspect/http2/xconnect"

// hooks are where the process daemon, started again, becomes something else before most
// of its packages are initialised.
var hooks = []string{processLeaf + "/internal/app/inside", processLeaf + "/internal/launch/stage"}

func TestNothingRunsAtInit(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, ".pb.go") || s.dir == xconnect || slices.Contains(hooks, s.dir) {
			continue
		}
		for _, decl := range s.tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// TestThreatsNameTestsThatExist keeps THREATS.md honest: every test it names is
// there.
func TestThreatsNameTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, s := range sources(t) {
		for _, decl := range s.tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
	}
	named := 0
	for _, word := range strings.FieldsFunc(string(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if strings.HasPrefix(word, "Test") && word != "Test" {
			named++
			if !there[word] {
				t.Errorf("THREATS.md names %s, which is gone", word)
			}
		}
	}
	if named < 30 {
		t.Errorf("THREATS.md names only %d tests", named)
	}
}
