package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
)

// preflightCommand says what is there, one line each: the capabilities, and whether
// a sandbox can be built, which it tries.
func preflightCommand(stdout, stderr io.Writer) int {
	code := exitOK
	line := func(ok, required bool, name, detail string) {
		word := "ok"
		if !ok {
			word = "missing"
			if required {
				code = exitPrivilege
			}
		}
		fmt.Fprintf(stdout, "%-8s %-16s %s\n", word, name, detail)
	}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	line(true, true, "kernel", unix.ByteSliceToString(uts.Release[:]))
	have, err := prepare.Effective()
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return exitFailed
	}
	for _, c := range prepare.Capabilities {
		line(have[c.Name], true, c.Name, "for "+c.For)
	}
	detail, err := trySandbox()
	if err != nil {
		detail = err.Error()
	}
	line(err == nil, true, "sandbox", detail)
	abi := landlock.Version()
	line(abi >= landlock.HardABI, false, "landlock", fmt.Sprintf("ABI %d; hard_requirement needs %d, best_effort takes what there is", abi, landlock.HardABI))
	_, err = unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	line(err == nil, true, "seccomp", "filters are applied to every program")
	return code
}

// trySandbox builds a sandbox without a workload and ends it.
func trySandbox() (string, error) {
	if err := prepare.CheckCapabilities(); err != nil {
		return "", fmt.Errorf("not tried: capabilities are missing")
	}
	dir, err := os.MkdirTemp("", "splitpod-preflight-")
	if err != nil {
		return "", fmt.Errorf("make a folder to try it with: %w", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	sandbox, err := launch.Start(ctx, setup{RunDir: dir, ProxyPort: 3128})
	if err != nil {
		return "", err
	}
	defer sandbox.Close()
	var report setupReport
	if err := json.Unmarshal(sandbox.Report, &report); err != nil {
		return "", fmt.Errorf("read init's report: %w", err)
	}
	detail := "namespaces, fence and listeners work"
	for _, f := range report.Findings {
		detail += "; " + f
	}
	return detail, nil
}
