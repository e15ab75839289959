package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine"
)

// Descriptors the stage starts with.
const (
	stagePlan  = 3
	stageError = 4
	stageLimit = 5 // only where the plan says so
)

// stage confines itself and becomes the program. It returns only when that failed.
func stage() int {
	runtime.LockOSThread() // what follows is per thread, and execve keeps this one
	report := os.NewFile(stageError, "error")
	unix.CloseOnExec(stageError)
	unix.CloseOnExec(stagePlan)
	err := become(os.NewFile(stagePlan, "plan"), json.NewEncoder(report))
	failure := stageWord{Error: err.Error(), Code: codeConfine}
	switch {
	case errors.Is(err, errNotFound):
		failure.Code = codeNotFound
	case errors.Is(err, errNotUsable):
		failure.Code = codeNotUsable
	case confine.IsConfiguration(err):
		failure.Code = codeConfiguration
	}
	_ = json.NewEncoder(report).Encode(failure)
	return failure.Code
}

// Why a program was not executed.
var (
	errNotFound  = errors.New("program not found")
	errNotUsable = errors.New("program cannot be executed")
)

func become(f *os.File, report *json.Encoder) error {
	var p plan
	if err := json.NewDecoder(f).Decode(&p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if p.Builtin == "" && (len(p.Argv) == 0 || len(p.Argv[0]) == 0) {
		return fmt.Errorf("%w: the command is empty", errNotFound)
	}
	if p.Limited {
		if err := join(os.NewFile(stageLimit, "cgroup.procs")); err != nil {
			return err
		}
	}
	if p.Terminal {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return fmt.Errorf("take the terminal: %w", os.NewSyscallError("ioctl(TIOCSCTTY)", err))
		}
	}
	applied, err := confine.Apply(confine.Plan{UID: p.UID, GID: p.GID, Groups: p.Groups, Dir: p.Dir, Files: p.Files, Workspace: p.Workspace})
	if err != nil {
		return err
	}
	if err := report.Encode(stageWord{Applied: &applied.Files}); err != nil {
		return fmt.Errorf("report what was applied: %w", err)
	}
	return execute(applied, p)
}

// join enters a cgroup, with the whole process.
func join(procs *os.File) error {
	defer procs.Close()
	if _, err := procs.WriteString("0"); err != nil {
		return fmt.Errorf("enter the workload's cgroup (--pids): %w", err)
	}
	return nil
}

// execute needs the proof of confinement; it looks the program up with the
// workload's own rights.
func execute(applied confine.Applied, p plan) error {
	argv, env := Strings(p.Argv), Strings(p.Env)
	if !applied.Valid() {
		return errors.New("BUG: nothing is executed unconfined")
	}
	if p.Builtin != "" {
		// Executed anew, because only this thread is confined.
		err := unix.Exec("/proc/self/exe", []string{p.Builtin}, env)
		return fmt.Errorf("%w: %s of this binary: %v", errNotUsable, p.Builtin, err)
	}
	path, err := lookup(argv[0], env)
	if err != nil {
		return err
	}
	err = unix.Exec(path, argv, env)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %s, or the interpreter it names", errNotFound, path)
	}
	return fmt.Errorf("%w: %s: %v", errNotUsable, path, err)
}

// lookup finds a program as execvp(3) does.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, usable(name)
	}
	search := DefaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	found := fmt.Errorf("%w: %s is not in PATH (%s)", errNotFound, name, search)
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		switch err := usable(path); {
		case err == nil:
			return path, nil
		case errors.Is(err, errNotUsable):
			found = err
		}
	}
	return "", found
}

func usable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("%w: %s", errNotFound, path)
		}
		return fmt.Errorf("%w: %s: %v", errNotUsable, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%w: %s is no regular file", errNotUsable, path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("%w: %s: %v", errNotUsable, path, err)
	}
	return nil
}
