package stage

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

// TestWhyAProgramWasNotExecuted is said so that somebody can do something about it.
func TestWhyAProgramWasNotExecuted(t *testing.T) {
	need.Root(t)
	need.Landlock(t, 1)
	dir, err := os.MkdirTemp("", "splitpod-stage-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	granted, left := dir+"/granted", dir+"/left-out"
	for path, text := range map[string]string{
		granted + "/windows": "#!/bin/sh\r\necho it ran\n", granted + "/garbage": "garbage", granted + "/plain": "echo it ran\n",
		granted + "/loader": loaderless(t), granted + "/script": "#! " + left + "/interpreter\n", left + "/interpreter": "#!/bin/sh\n",
		granted + "/unreadable": "", dir + "/closed/program": "",
	} {
		for _, err := range []error{os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755), os.Chmod(dir, 0o755)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, mode := range map[string]os.FileMode{granted + "/unreadable": 0o700, dir + "/closed": 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		argv string
		want string
		code int
	}{
		"not in PATH":                         {"no-such", "no-such is not in PATH (" + dir + "/closed:" + granted + "), of which this user may not look into " + dir + "/closed", CodeNotFound},
		"in a folder that is closed":          {dir + "/closed/program", "its folder cannot be looked into: " + dir + "/closed/program: permission denied", CodeNotUsable},
		"not there":                           {granted + "/nothing", "program not found: " + granted + "/nothing", CodeNotFound},
		"line ends of Windows":                {"windows", granted + `/windows is there, but not its interpreter "/bin/sh\r"`, CodeNotFound},
		"another C library":                   {"loader", granted + "/loader is there, but not the loader that it was linked for", CodeNotFound},
		"no program":                          {"garbage", "exec format error; it is no program for this machine (" + runtime.GOARCH + "), and no script", CodeNotUsable},
		"a script without a first line":       {"plain", "no script whose first line names an interpreter", CodeNotUsable},
		"for another user":                    {"unreadable", "program cannot be executed: " + granted + "/unreadable: permission denied", CodeNotUsable},
		"not granted":                         {left + "/interpreter", "permission denied, although its mode permits it; filesystem_policy leaves out its folder", CodeNotUsable},
		"with an interpreter that is not":     {"script", "permission denied, although its mode permits it; filesystem_policy leaves out its folder or its interpreter's", CodeNotUsable},
		"in PATH behind a folder that is not": {"echo", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := Plan{Argv: Bytes([]string{tt.argv, "it ran"}), Env: Bytes([]string{"PATH=" + dir + "/closed:" + granted}), Dir: "/", UID: 1234, GID: 1234,
				Files: landlock.Rules{ReadOnly: []string{"/usr", "/etc", granted}}}
			if tt.want == "" {
				p.Env = Bytes([]string{"PATH=" + dir + "/closed:/usr/bin"})
			}
			out, last, code := runStage(t, p, "")
			if code != tt.code || last.Code != tt.code || !strings.Contains(last.Error, tt.want) || strings.Contains(out, "it ran") != (tt.want == "") {
				t.Errorf("output %q, code %d, last word %+v; want %q with %d", out, code, last, tt.want, tt.code)
			}
		})
	}
}

// loaderless is a program whose loader is not there.
func loaderless(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(need.Program(t, "echo"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte("/lib"))
	if at < 0 || at > 4096 {
		t.Fatal("this machine's echo has no loader")
	}
	text[at+1] = 'X'
	return string(text)
}
