package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// What cannot be enforced as written is refused before anything runs: exit code 78,
// and the message names the field.
func TestABadStaticPolicyStartsNothing(t *testing.T) {
	need.Root(t)
	const hard = "landlock: {compatibility: hard_requirement}\n"
	const user = "process: {run_as_user: \"1000\", run_as_group: \"1000\"}\n"
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("/p%d", i)
	}
	for name, tc := range map[string]struct{ policy, want string }{
		"the root writable":     {user + "filesystem_policy: {read_write: [/]}\n", "filesystem_policy.read_write"},
		"the root, disguised":   {user + "filesystem_policy: {read_write: [//.]}\n", "filesystem_policy.read_write"},
		"a path upwards":        {user + "filesystem_policy: {read_only: [/usr/../etc]}\n", "filesystem_policy.read_only"},
		"a relative path":       {user + "filesystem_policy: {read_only: [etc]}\n", "filesystem_policy.read_only"},
		"a path of 8 KiB":       {user + "filesystem_policy: {read_only: [/" + strings.Repeat("x", 8191) + "]}\n", "filesystem_policy.read_only"},
		"10,000 paths":          {user + "filesystem_policy: {read_only: [" + strings.Join(many, ", ") + "]}\n", "filesystem_policy: 10000 paths"},
		"a path with a NUL":     {user + "filesystem_policy: {read_only: [\"/a\\0b\"]}\n", "filesystem_policy.read_only"},
		"no such compatibility": {user + "landlock: {compatibility: besteffort}\n", "landlock.compatibility"},
		"root as user":          {"process: {run_as_user: root}\n", "run_as_user"},
		"uid 0":                 {"process: {run_as_user: \"0\"}\n", "run_as_user"},
		"uid 4294967295":        {"process: {run_as_user: \"4294967295\"}\n", "run_as_user"},
		"no such user":          {"process: {run_as_user: nobody-has-this-name}\n", "run_as_user"},
		"no such group":         {"process: {run_as_user: \"1000\", run_as_group: nobody-has-this-name}\n", "run_as_group"},
		"the network daemon":    {"process: {run_as_user: \"65532\", run_as_group: \"1000\"}\n", "65532"},
		"a link to write to":    {user + "filesystem_policy: {read_write: [/proc/self/cwd]}\n", "read_write"},
		"a path not there":      {user + hard + "filesystem_policy: {read_only: [/no/such/path]}\n", "filesystem_policy.read_only: /no/such/path"},
		"an unreadable path":    {user + hard + "filesystem_policy: {read_only: [/root/x]}\n", "filesystem_policy.read_only: /root/x"},
		"an unknown field":      {user + "filesystem_policy: {read_onyl: [/usr]}\n", "read_onyl"},
		"another type":          {user + "filesystem_policy: {read_only: /usr}\n", "filesystem_policy.read_only"},
		"a number as user":      {"process: {run_as_user: 1000}\n", "run_as_user"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := command(t, "supervisor-process", "run", "--policy", policyFile(t, "version: 1\n"+tc.policy), "--run-dir", t.TempDir(),
				"--admin-listen", "", "--records", "/dev/null", "--workdir", "/", "--", "echo", "it ran")
			if code != 78 || strings.Contains(out, "it ran") || !strings.Contains(errs, tc.want) || len(errs) > 16<<10 {
				t.Errorf("exit code %d, output %q, errors %.2000s", code, out, errs)
			}
		})
	}
}

// So is a setting that does not fit the image.
func TestABadSettingStartsNothing(t *testing.T) {
	need.Root(t)
	policy := policyFile(t, "version: 1\nprocess: {run_as_user: \"1000\", run_as_group: \"1000\"}\n")
	for name, tc := range map[string]struct{ flag, value, want string }{
		"a directory that is not there":       {"--workdir", "/no/such/dir", "--workdir /no/such/dir"},
		"a directory the workload cannot use": {"--workdir", "/root", "--workdir /root"},
		"a file as directory":                 {"--workdir", "/etc/passwd", "--workdir /etc/passwd"},
		"a relative directory":                {"--workdir", "tmp", "--workdir"},
		"no time to start":                    {"--start-timeout", "0s", "--start-timeout"},
		"a negative number of processes":      {"--pids", "-1", "--pids"},
		"keys that are not there":             {"--ssh-authorized-keys", "/no/such/keys", "--ssh-authorized-keys"},
		"a policy that is not there":          {"--policy", "/no/such/policy", "/no/such/policy"},
		"a flag that is not there":            {"--no-such-flag", "1", "no-such-flag"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := command(t, "supervisor-process", "run", "--policy", policy, "--run-dir", t.TempDir(),
				"--admin-listen", "", "--records", "/dev/null", "--workdir", "/", tc.flag, tc.value, "--", "echo", "it ran")
			if code != 78 || strings.Contains(out, "it ran") || !strings.Contains(errs, tc.want) {
				t.Errorf("exit code %d, output %q, errors %.2000s", code, out, errs)
			}
		})
	}
}

// TestANodeWithoutNamespacesSaysSo, and not that a disk is full, as the kernel does.
func TestANodeWithoutNamespacesSaysSo(t *testing.T) {
	need.Root(t)
	file := policyFile(t, "version: 1\nprocess: {run_as_user: \"1000\", run_as_group: \"1000\"}\n")
	d := start(t, "unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"`, "sh",
		binary(t, "supervisor-process"), "run", "--policy", file, "--run-dir", t.TempDir(), "--admin-listen", "", "--workdir", "/", "--", "echo", "it ran")
	if code := d.wait(t); code == 0 || strings.Contains(d.out.String(), "it ran") || !strings.Contains(d.err.String(), "user.max_net_namespaces") {
		t.Errorf("exit code %d, output %q, errors %q", code, d.out, d.err)
	}
}
