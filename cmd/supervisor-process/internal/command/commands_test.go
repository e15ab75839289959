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
