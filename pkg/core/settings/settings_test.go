package settings_test

import (
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core/settings"
)

type example struct {
	Name   string        `env:"NAME" flag:"name"`
	Wait   time.Duration `env:"WAIT" envDefault:"5s" flag:"wait"`
	UID    uint32        `env:"UID" flag:"uid"`
	Port   uint16        `env:"PORT" flag:"port"`
	On     bool          `env:"ON" envDefault:"true" flag:"on"`
	List   []string      `env:"LIST" flag:"list"`
	Token  string        `env:"TOKEN" flag:"token" secret:"true"`
	hidden int
}

// environment reads as both daemons do.
func environment(environ []string, cfg *example) error {
	return settings.Environment(environ, "P_", cfg, func(given map[string]string) error {
		return env.ParseWithOptions(cfg, env.Options{Prefix: "P_", Environment: given})
	})
}

func parse(t *testing.T, args ...string) (example, error) {
	t.Helper()
	cfg := example{Name: "default"}
	fs := flag.NewFlagSet("x", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	settings.Bind(fs, &cfg, nil)
	return cfg, fs.Parse(args)
}

func TestFlagsSetTheirFields(t *testing.T) {
	cfg := example{Name: "default"}
	fs := flag.NewFlagSet("x", flag.ContinueOnError)
	settings.Bind(fs, &cfg, nil)
	if err := fs.Parse([]string{"--wait=3s", "--uid=4294967295", "--port", "65535", "--on", "--list=a,b"}); err != nil {
		t.Fatal(err)
	}
	want := example{Name: "default", Wait: 3 * time.Second, UID: 4294967295, Port: 65535, On: true, List: []string{"a", "b"}}
	if diff := cmp.Diff(want, cfg, cmp.AllowUnexported(example{})); diff != "" {
		t.Error(diff)
	}
}

// TestAMistakeIsNotBuriedUnderAllFlags, which are listed for who asks.
func TestAMistakeIsNotBuriedUnderAllFlags(t *testing.T) {
	for _, tt := range []struct{ arg, err, out string }{
		{"--unknown", "flag provided but not defined: -unknown (x -h lists the flags)", ""},
		{"--port=y", `invalid value "y" for flag -port: needs a number from 0 to 65535 (x -h lists the flags)`, ""},
		{"-h", "flag: help requested", "Usage of x:\n  -port value\n    \twhere\n"},
	} {
		var out strings.Builder
		fs := flag.NewFlagSet("x", flag.ContinueOnError)
		fs.SetOutput(&out)
		settings.Bind(fs, &struct {
			Port uint16 `flag:"port"`
		}{}, map[string]string{"port": "where"})
		if err := settings.Parse(fs, []string{tt.arg}); err == nil || err.Error() != tt.err || out.String() != tt.out {
			t.Errorf("%s: %v, %q", tt.arg, err, out.String())
		}
	}
}

func TestValuesOutOfRangeAreRefused(t *testing.T) {
	for _, arg := range []string{"--uid=4294967296", "--uid=-1", "--port=65536", "--port=x", "--wait=3", "--unknown=1"} {
		if _, err := parse(t, arg); err == nil {
			t.Errorf("%s was accepted", arg)
		}
	}
}

func TestVariablesSetTheirFields(t *testing.T) {
	for _, tt := range []struct {
		rule    string
		environ []string
		want    example
	}{
		{"nothing said", []string{"NAME=x", "OTHER_NAME=y"}, example{Wait: 5 * time.Second, On: true}},
		{"empty is nothing said", []string{"P_WAIT=", "P_UID=", "P_ON=", "P_LIST="}, example{Wait: 5 * time.Second, On: true}},
		{"everything said", []string{"P_NAME=a=b", "P_WAIT=3s", "P_UID=4294967295", "P_PORT=65535", "P_ON=false", "P_LIST=a,b", "P_TOKEN=t"},
			example{Name: "a=b", Wait: 3 * time.Second, UID: 4294967295, Port: 65535, List: []string{"a", "b"}, Token: "t"}},
	} {
		var cfg example
		if err := environment(tt.environ, &cfg); err != nil {
			t.Errorf("%s: %v", tt.rule, err)
		}
		if diff := cmp.Diff(tt.want, cfg, cmp.AllowUnexported(example{})); diff != "" {
			t.Errorf("%s: %s", tt.rule, diff)
		}
	}
}

// TestEveryProblemNamesItsVariable, as who wrote it knows it, and those whose name is
// nobody's setting without what they hold.
func TestEveryProblemNamesItsVariable(t *testing.T) {
	err := environment([]string{"P_NAMES=y", "P_WAIT=5", "P_UID=-1", "P_=", "P_ON=maybe", "P_SECRET=hunter2"}, &example{})
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`environment variable P_WAIT: invalid value "5": needs a duration such as 30s: time: missing unit in duration "5"`,
		`environment variable P_UID: invalid value "-1": needs a number from 0 to 4294967295`,
		`environment variable P_ON: invalid value "maybe": needs true or false`,
		`unknown environment variables: P_, P_NAMES, P_SECRET: remove or correct them`,
	}
	got := strings.Split(err.Error(), "\n")
	got[len(got)-1], _, _ = strings.Cut(got[len(got)-1], " (")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLinesMaskSecrets(t *testing.T) {
	for _, l := range settings.Lines("P_", &example{Name: "n", Token: "hunter2", hidden: 1}) {
		if strings.Contains(l.Value, "hunter2") {
			t.Errorf("%s shows its secret", l.Name)
		}
		if l.Name == "P_TOKEN" && l.Value != "(set)" {
			t.Errorf("P_TOKEN = %q", l.Value)
		}
	}
}
