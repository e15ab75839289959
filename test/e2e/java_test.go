package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// TestAJavaProgram is compiled and runs in a sandbox: the compiler is one as well. Java reads
// neither the variables that name a proxy nor PEM files, and still finds both.
func TestAJavaProgram(t *testing.T) {
	need.Program(t, "ecj")
	java, err := filepath.EvalSymlinks(need.Program(t, "java"))
	must(t, err)
	source, err := os.ReadFile("testdata/Fetch.java")
	must(t, err)
	startSite(t)
	p := newPair(t, strings.ReplaceAll(clientPolicy, "/usr/bin/curl", java))
	must(t, os.WriteFile(p.dir+"/Fetch.java", source, 0o644))
	p.startNetwork()
	p.startProcess("sh", "-c", `dir=$(mktemp -d) && cp "$0" $dir && cd $dir && ecj -11 -proc:none -d . Fetch.java && java -cp . Fetch "$@"; code=$?; rm -r $dir; exit $code`,
		p.dir+"/Fetch.java", siteURL+"/ok/hello", siteURL+"/denied", "https://other.demo.test/")
	code := p.process.wait(t)
	want := `threads 1000
child 7
old hello HTTP/1.1
new hello HTTP/1.1
old 403
new 403
`
	out, _, _ := strings.Cut(p.process.out.String(), "old java.io.IOException")
	if code != 0 || out != want || strings.Count(p.process.out.String(), "403") != 4 {
		t.Errorf("exit code %d, output:\n%s", code, p.process.out)
	}
}
