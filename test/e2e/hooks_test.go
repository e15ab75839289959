package e2e_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestWhatIsStartedAgainInitialisesLittle: between a command and its program this binary is
// started three more times, and the contract, metrics and SSH are of no use to any of those.
func TestWhatIsStartedAgainInitialisesLittle(t *testing.T) {
	useless := []string{"google.golang.org/grpc", "github.com/splitpod/splitpod/api/supervisor/v1", "github.com/prometheus/client_golang/prometheus", "golang.org/x/crypto/ssh", "net/http"}
	for name, unused := range map[string][]string{
		"stage":      append([]string{"net", "google.golang.org/protobuf/proto", "github.com/splitpod/splitpod/pkg/core/policy"}, useless...),
		"init":       useless,
		"init-setup": useless,
	} {
		// None of them gets what it needs here, so that each ends at once.
		cmd := exec.Command(binary(t, "supervisor-process"))
		cmd.Args = []string{name}
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "init os @") {
			t.Errorf("%s: %v, %s", name, err, out)
		}
		for _, pkg := range unused {
			if strings.Contains(string(out), "init "+pkg+" @") {
				t.Errorf("%s initialises %s", name, pkg)
			}
		}
	}
}
