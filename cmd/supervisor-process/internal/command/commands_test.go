package command

import (
	"bytes"
	"strings"
	"testing"
)

// TestCommandsRefuseWhatTheyWouldNotLookAt, so that nobody takes their answer for one
// about it.
func TestCommandsRefuseWhatTheyWouldNotLookAt(t *testing.T) {
	for _, command := range []string{"version", "config", "preflight"} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), []string{command, "policy.yaml"}, &out, &errs); code != exitUsage || out.Len() > 0 ||
			!strings.Contains(errs.String(), command+` takes no argument "policy.yaml"`) {
			t.Errorf("%s: exit code %d, %q, %q", command, code, out.String(), errs.String())
		}
	}
	var out, errs bytes.Buffer
	if code := Main(t.Context(), []string{"version"}, &out, &errs); code != exitOK || !strings.Contains(out.String(), "supervisor-process") {
		t.Errorf("version: exit code %d, %q", code, out.String())
	}
}

func TestAskingForHelpIsNoMistake(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"help"}, {"run", "-h"}, {"exec", "--help"}, {"attach", "-h"}, {"preflight", "-h"}, {"config", "-h"}} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), args, &out, &errs); code != exitOK {
			t.Errorf("%v: exit code %d, %s", args, code, errs.String())
		}
	}
}

// TestAnInvalidConfigurationIsPrinted, which is when somebody looks at it, and every mistake
// is named.
func TestAnInvalidConfigurationIsPrinted(t *testing.T) {
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"config", "--run-dir=run", "--log-level=loud"}, &out, &errs)
	for _, line := range []string{"RUN_DIR=run\n", "LOG_LEVEL=loud\n"} {
		if code != exitConfig || !strings.Contains(out.String(), line) {
			t.Errorf("exit code %d, without %q:\n%s", code, line, out.String())
		}
	}
	for _, flag := range []string{"configuration:\n", "--run-dir", "--log-level"} {
		if !strings.Contains(errs.String(), flag) {
			t.Errorf("without %q: %s", flag, errs.String())
		}
	}
}
