package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// posture prints what the kernel says of the process that runs it, one line each.
const posture = `
grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Umask|SigBlk|SigIgn|NStgid|NSpid):' /proc/$$/status | sed 's/^NS.*\t.*\t.*/nested &/; /^NS/d'
for n in cgroup ipc mnt net pid time user uts; do echo "$n $(readlink /proc/$$/ns/$n)"; done
cat /proc/$$/limits | sed 's/^/limit /'
echo "directory $(pwd)"
echo "slack $(cat /proc/self/timerslack_ns)"
echo descriptors
ls /proc/$$/fd
tr '\0' '\n' < /proc/$$/environ | grep -vE '^(_|SHLVL|PWD|OLDPWD)=' | sort | sed 's/^/environment /'
`

// TestEverySessionHasTheSamePosture: the entrypoint, a program by exec, and a command
// by SSH, compared line by line, and with what is promised.
func TestEverySessionHasTheSamePosture(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", posture+"echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	for _, socket := range []string{"exec.sock", "ssh.sock"} {
		eventually(t, socket, func() bool {
			_, err := os.Stat(p.dir + "/run/" + socket)
			return err == nil
		})
	}
	entrypoint, _, _ := strings.Cut(p.process.out.String(), "ready")
	if limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.process.cmd.Process.Pid)); err != nil || !coreless(string(limits)) {
		t.Errorf("the daemon may write core files: %s (%v)", limits, err)
	}

	if late, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", p.process.cmd.Process.Pid)); err != nil || string(late) != "500000\n" {
		t.Errorf("the daemon may be woken %s ns late (%v)", late, err)
	}

	byExec, err := exec.Command(binary(t, "supervisor-process"), "exec", "--run-dir", p.dir+"/run", "--", "sh", "-c", posture).Output()
	must(t, err)
	bySSH, err := p.ssh("exec sh -c '" + strings.ReplaceAll(posture, "'", `'\''`) + "'").Output()
	must(t, err)

	if diff := cmp.Diff(entrypoint, string(byExec)); diff != "" {
		t.Errorf("a program by exec differs from the entrypoint (-entrypoint +exec):\n%s", diff)
	}
	if diff := cmp.Diff(entrypoint, withoutLanguage(string(bySSH))); diff != "" {
		t.Errorf("a command by SSH differs from the entrypoint (-entrypoint +ssh):\n%s", diff)
	}
	for _, want := range []string{
		"Uid:\t1000\t1000\t1000\t1000\n", "CapBnd:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapInh:\t0000000000000000\n",
		"CapPrm:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n", "Umask:\t0022\n",
		"Gid:\t1000\t1000\t1000\t1000\n", "Groups:\t \n", "SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n",
		"limit Max core file size        0                    0                    bytes", "directory /\n", "slack 50000\n",
		"descriptors\n0\n1\n2\nenvironment", "environment HTTPS_PROXY=http://127.0.0.1:3128\n",
	} {
		if !strings.Contains(entrypoint, want) {
			t.Errorf("the posture lacks %q:\n%s", want, entrypoint)
		}
	}
	// Nothing more of an environment than what is promised.
	for line := range strings.Lines(entrypoint) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "environment "), "=")
		if strings.HasPrefix(line, "environment ") && !slices.Contains(promised, name) {
			t.Errorf("the environment has %q", line)
		}
	}
	for _, n := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		own, err := os.Readlink("/proc/self/ns/" + n)
		must(t, err)
		if strings.Contains(entrypoint, own) {
			t.Errorf("the workload shares the %s namespace %s", n, own)
		}
	}
}

// promised are the names in an environment that starts with PATH and LANG.
var promised = strings.Fields(`PATH LANG HOME USER LOGNAME SHELL TERM OPENSHELL_SANDBOX NODE_USE_ENV_PROXY
	ALL_PROXY all_proxy HTTP_PROXY http_proxy HTTPS_PROXY https_proxy grpc_proxy YARN_HTTP_PROXY YARN_HTTPS_PROXY NO_PROXY no_proxy NODE_EXTRA_CA_CERTS DENO_CERT
	SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE GIT_SSL_CAINFO PIP_CERT CARGO_HTTP_CAINFO NIX_SSL_CERT_FILE
	GRPC_DEFAULT_SSL_ROOTS_FILE_PATH CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE HTTPLIB2_CA_CERTS JAVA_TOOL_OPTIONS`)

// withoutLanguage drops what an SSH client may set.
func withoutLanguage(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "environment LC_") {
			b.WriteString(line)
		}
	}
	return b.String()
}
