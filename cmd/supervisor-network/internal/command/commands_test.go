package command

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestMistakesOfAUserAreSaidInWords: what is wrong, and what to do; and nothing that was
// not looked at is said to be well.
func TestMistakesOfAUserAreSaidInWords(t *testing.T) {
	valid := policyFileOf(t, "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /usr/bin/curl}]}}\n")
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer page.Close()
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a command that is not there":        {[]string{"explain"}, exitUsage, `unknown command "explain"`},
		"version of something":               {[]string{"version", "x"}, exitUsage, `version takes no argument "x"`},
		"check of no file":                   {[]string{"policy", "check", "--identity", "ignore"}, exitUsage, "which policy file?"},
		"check of a second file":             {[]string{"policy", "check", valid, nowhere}, exitUsage, "what is \"" + nowhere},
		"check of a second file, flag first": {[]string{"policy", "check", "--identity", "ignore", valid, nowhere}, exitUsage, "what is \"" + nowhere},
		"check as nobody is identified":      {[]string{"policy", "check", valid, "--identity", "porcess"}, exitUsage, `--identity "porcess": want process or ignore`},
		"check of what is not there":         {[]string{"policy", "check", nowhere}, exitConfig, "no such file"},
		"a valid one":                        {[]string{"policy", "check", valid, "--identity", "ignore"}, exitOK, "is valid"},
		"explain of a second file":           {[]string{"policy", "explain", valid, "--host", "a", "--port", "1", nowhere}, exitUsage, "what is \"" + nowhere},
		"diff as nobody is identified":       {[]string{"policy", "diff", "--identity", "off", valid, valid}, exitUsage, `--identity "off"`},
		"diff of equal ones":                 {[]string{"policy", "diff", valid, valid}, exitOK, "programs may do the same"},
		"a question where no daemon is":      {[]string{"proposals", "list", "--state-dir", nowhere}, exitFailed, "no daemon answers on " + nowhere + "/admin.sock: connect: no such file or directory (this is for the container and the user of a running daemon; --state-dir"},
		"keys where no daemon is":            {[]string{"credentials", "list", "--state-dir", nowhere}, exitFailed, "name the FILE, or --state-dir"},
		"health of no URL":                   {[]string{"healthcheck", "--url", "localhost"}, exitUsage, `--url "localhost": want http://`},
		"health of something":                {[]string{"healthcheck", "x"}, exitUsage, `takes no argument "x"`},
		"health where no daemon is":          {[]string{"healthcheck", "--url", "http://127.0.0.1:1/readyz"}, exitFailed, "no daemon answers at http://127.0.0.1:1/readyz, which is --admin-listen of serve: dial tcp"},
		"watch of no URL":                    {[]string{"watch", "--url", "localhost:9901", "--count", "1"}, exitUsage, `--url "localhost:9901": want http://`},
		"watch of something":                 {[]string{"watch", "x"}, exitUsage, `takes no argument "x"`},
		"watch where no daemon is":           {[]string{"watch", "--url", "http://127.0.0.1:1/view.json", "--count", "1"}, exitFailed, "no daemon answers at http://127.0.0.1:1/view.json"},
		"watch of a page":                    {[]string{"watch", "--url", page.URL, "--count", "1"}, exitFailed, "is no view, which is at /view.json"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := Main(t.Context(), c.args, &out, &errs)
			if said := out.String() + errs.String(); code != c.code || !strings.Contains(said, c.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, c.code, c.want, said)
			}
			if code != exitOK && out.Len() > 0 {
				t.Errorf("it failed and printed a result: %s", out.String())
			}
		})
	}
}

// TestAskingForHelpIsNoMistake, whatever is asked about.
func TestAskingForHelpIsNoMistake(t *testing.T) {
	for _, c := range []struct{ command, want string }{
		{"-h", "Usage:"}, {"help", "Usage:"},
		{"policy -h", "policy explain"}, {"policy check -h", "policy check FILE"}, {"policy explain --help", "--denial"}, {"policy diff -h", "policy diff"},
		{"proposals -h", "proposals"}, {"proposals list -h", "proposals list"}, {"learn -h", "learn export"}, {"learn export -h", "learn export"},
		{"credentials -h", "credentials list"}, {"credentials list -h", "credentials list"}, {"healthcheck -h", "-url"}, {"watch -h", "-count"},
	} {
		var out, errs bytes.Buffer
		code := Main(t.Context(), strings.Fields(c.command), &out, &errs)
		if said := out.String() + errs.String(); code != exitOK || !strings.Contains(said, c.want) || strings.Contains(said, "help requested") {
			t.Errorf("%s: exit code %d, want %q in\n%s", c.command, code, c.want, said)
		}
	}
}

// TestAWarningIsCalledOneOnce, at its place in the file.
func TestAWarningIsCalledOneOnce(t *testing.T) {
	file := policyFileOf(t, "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}]}}\n")
	var out, errs bytes.Buffer
	if code := Main(t.Context(), []string{"policy", "check", file}, &out, &errs); code != exitOK ||
		!strings.HasPrefix(errs.String(), file+":2:") || strings.Count(errs.String(), "warning:") != 1 {
		t.Errorf("exit code %d: %s", code, errs.String())
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
