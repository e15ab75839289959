package stage

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/test/need"
)

// TestAStageThatCannotGiveEverythingUpExecutesNothing: each right it needs for that is taken
// from it in turn, and it says which step it was missing for.
func TestAStageThatCannotGiveEverythingUpExecutesNothing(t *testing.T) {
	need.Root(t)
	need.Program(t, "setpriv")
	plan := Plan{Argv: Bytes([]string{"/bin/echo", "it ran"}), Dir: "/", UID: 1234, GID: 1234,
		Files: landlock.Rules{ReadOnly: []string{"/usr", "/etc", "/proc"}}}
	of := func(change func(*Plan)) Plan { p := plan; change(&p); return p }
	for name, tt := range map[string]struct {
		plan    Plan
		without string // a capability
		want    string // of the last word; empty: the program runs
		code    int
	}{
		"everything is there":  {plan: of(func(p *Plan) { p.Argv = Bytes([]string{"/usr/bin/echo", "it ran"}) })},
		"no CAP_SETPCAP":       {plan, "setpcap", "confine: bounding set: ", CodeConfine},
		"no CAP_SETGID":        {plan, "setgid", "confine: groups: ", CodeConfine},
		"no CAP_SETUID":        {plan, "setuid", "confine: uid: ", CodeConfine},
		"root":                 {of(func(p *Plan) { p.UID = 0 }), "", "confine: plan: ", CodeConfine},
		"no directory":         {of(func(p *Plan) { p.Dir = "/no/such" }), "", "confine: ", CodeConfiguration},
		"no file at all":       {of(func(p *Plan) { p.Files.ReadOnly = []string{"/no/such"} }), "", "confine: landlock: ", CodeConfiguration},
		"no command":           {of(func(p *Plan) { p.Argv = nil }), "", "the command is empty", CodeNotFound},
		"no plan":              {Plan{}, "", "the command is empty", CodeNotFound},
		"a cgroup that is not": {of(func(p *Plan) { p.Limited = true }), "", "enter the workload's cgroup", CodeConfine},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(tt.want, "confine: landlock") {
				need.Landlock(t, 1)
			}
			out, last, code := runStage(t, tt.plan, tt.without)
			if ran := strings.Contains(out, "it ran"); ran != (tt.want == "") || code != tt.code || !strings.Contains(last.Error, tt.want) || last.Code != tt.code {
				t.Errorf("output %q, code %d, last word %+v; want %q with %d", out, code, last, tt.want, tt.code)
			}
		})
	}
}

// runStage runs this test program as a stage, without one of root's capabilities.
func runStage(t *testing.T, p Plan, without string) (out string, last Word, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	given, err := os.CreateTemp(t.TempDir(), "plan")
	if err == nil {
		err = json.NewEncoder(given).Encode(p)
	}
	if err == nil {
		_, err = given.Seek(0, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	argv := []string{"bash", "-c", `exec -a stage "$0"`, self}
	if without != "" {
		argv = append([]string{"setpriv", "--bounding-set=-" + without, "--inh-caps=-" + without}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.ExtraFiles = []*os.File{given, write}
	text, _ := cmd.CombinedOutput()
	write.Close()
	for d := json.NewDecoder(read); ; {
		var w Word
		if d.Decode(&w) != nil {
			return string(text), last, cmd.ProcessState.ExitCode()
		}
		last = w
	}
}
