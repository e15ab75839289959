// Package skew_test runs the core cases of test/e2e with the daemons of two releases:
// this tree's and an earlier one's, either way round. docs/version-skew.md says what
// is promised.
package skew_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// previous is the commit whose daemons must work with this tree's, in the place of the
// last release until there is one. It moves with every release, not before.
const previous = "bb62fcbb316711fdb3eb1db74cc96c24d005c05d"

// cases are the tests of test/e2e that promise what an earlier release promised too.
var cases = []string{
	"TestAllowedAndRefusedDestinations", "TestNothingGetsAroundTheProxy", "TestTheWorkloadSeesNothingOfTheSupervisors",
	"TestNetworkDaemonKilledUnderLoad", "TestProcessDaemonKilled", "TestStartInEitherOrder", "TestExitCodesAndSignals",
	"TestPolicyChangeTakesEffectWithoutRestart",
}

const root = "../../.."

// TestTheDaemonsOfTwoReleasesWorkTogether runs the suite of the release whose network
// daemon it is: that one decides what a workload sees.
func TestTheDaemonsOfTwoReleasesWorkTogether(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	now, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	then := earlier(t)
	for name, tc := range map[string]struct{ network, process, bin string }{
		"an earlier network daemon": {then, now, then + "/bin"}, // where its suite looks for them
		"an earlier process daemon": {now, then, filepath.Join(t.TempDir(), "bin")},
	} {
		t.Run(name, func(t *testing.T) {
			bin := tc.bin
			command(t, tc.network, nil, "go", "build", "-trimpath", "-o", bin+"/supervisor-network", "./cmd/supervisor-network")
			command(t, tc.process, nil, "go", "build", "-trimpath", "-o", bin+"/supervisor-process", "./cmd/supervisor-process")
			for dir := bin; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) { // for other users
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			suite := bin + "/e2e.test"
			command(t, tc.network, nil, "go", "test", "-c", "-o", suite, "./test/e2e")
			env := []string{"SPLITPOD_TEST_BIN_NETWORK=" + bin + "/supervisor-network", "SPLITPOD_TEST_BIN_PROCESS=" + bin + "/supervisor-process"}
			out := command(t, tc.network+"/test/e2e", env, suite, "-test.v", "-test.count=1", "-test.timeout=5m", "-test.failfast", "-test.run", "^("+strings.Join(cases, "|")+")$")
			for _, name := range cases {
				if !strings.Contains(out, "--- PASS: "+name+" ") {
					t.Errorf("%s did not run", name)
				}
			}
		})
	}
}

// earlier is the tree of the earlier release.
func earlier(t *testing.T) string {
	t.Helper()
	need.Program(t, "git")
	dir := t.TempDir()
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("git -C %s archive %s | tar -x -C %s", root, previous, dir)).CombinedOutput(); err != nil {
		t.Fatalf("the tree of %s is not here (a shallow clone has no history): %v: %s", previous, err, out)
	}
	return dir
}

func command(t *testing.T, dir string, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}
