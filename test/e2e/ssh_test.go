package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// sshOptions connect any OpenSSH program to the sandbox's socket.
func (p *pair) sshOptions() []string {
	return []string{"-o", "ProxyCommand=nc -U " + p.dir + "/run/ssh.sock", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-F", "/dev/null"}
}

func (p *pair) ssh(args ...string) *exec.Cmd {
	cmd := exec.Command("ssh", append(append(p.sshOptions(), "sandbox"), args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + p.dir}
	return cmd
}

// sandboxWithSSH runs a workload that waits, and an HTTP server on its loopback.
func sandboxWithSSH(t *testing.T) *pair {
	t.Helper()
	for _, program := range []string{"ssh", "scp", "sftp", "nc"} {
		need.Program(t, program)
	}
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", "cd /tmp && python3 -m http.server --bind 127.0.0.1 8123 >/dev/null 2>&1 & echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	eventually(t, "the SSH socket", func() bool {
		_, err := os.Stat(p.dir + "/run/ssh.sock")
		return err == nil
	})
	return p
}

func TestSSHRunsCommandsInTheSandbox(t *testing.T) {
	p := sandboxWithSSH(t)
	for name, tc := range map[string]struct {
		command, stdin, out string
		code                int
	}{
		"output and exit code":        {"echo hello; exit 7", "", "hello\n", 7},
		"errors":                      {"echo error >&2", "", "error\n", 0},
		"standard input and its end":  {"cat | tr a-z A-Z", "some text", "SOME TEXT", 0},
		"as the workload's user":      {"id -u; id -g", "", "1000\n1000\n", 0},
		"confined as the workload is": {"grep -E 'CapBnd|Seccomp:|NoNewPrivs' /proc/self/status | tr -d '\\t\\n'", "", "CapBnd:0000000000000000NoNewPrivs:1Seccomp:2", 0},
		"a program not found":         {"no-such-program 2>/dev/null", "", "", 127},
		"a program killed":            {"kill -KILL $$", "", "", 255},
		"the proxy works":             {"curl -sS https://api.demo.test/", "", "hello from api.demo.test", 0},
		"nothing else does":           {"curl -sS -m 5 --noproxy '*' http://10.77.0.1/ 2>/dev/null || echo refused", "", "refused\n", 0},
		"a large output":              {"head -c 3000000 /dev/zero | tr '\\0' x | tail -c 20", "", strings.Repeat("x", 20), 0},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := p.ssh(tc.command)
			cmd.Stdin = strings.NewReader(tc.stdin)
			out, _ := cmd.CombinedOutput()
			if !strings.Contains(string(out), tc.out) || cmd.ProcessState.ExitCode() != tc.code {
				t.Errorf("exit code %d, output %q", cmd.ProcessState.ExitCode(), out)
			}
		})
	}
}

func TestSSHTerminals(t *testing.T) {
	p := sandboxWithSSH(t)
	cmd := p.ssh("-tt", "tty; stty size; echo $TERM; test -w $(tty) && echo writable; set -m && echo job control")
	cmd.Env = append(cmd.Env, "TERM=vt100")
	out, err := cmd.CombinedOutput()
	for _, want := range []string{"/dev/pts/", "vt100\r\n", "writable\r\n", "job control\r\n"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, output %q lacks %q", err, out, want)
		}
	}
	// Control-C reaches the foreground of the terminal.
	cmd = p.ssh("-tt", "trap 'echo interrupted; exit 3' INT; echo waiting; while :; do sleep 0.05; done")
	in, err := cmd.StdinPipe()
	must(t, err)
	got := &buffer{}
	cmd.Stdout, cmd.Stderr = got, got
	must(t, cmd.Start())
	eventually(t, "the shell", func() bool { return strings.Contains(got.String(), "waiting") })
	_, err = in.Write([]byte{3})
	must(t, err)
	_ = cmd.Wait()
	if !strings.Contains(got.String(), "interrupted") || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("exit code %d, output %q", cmd.ProcessState.ExitCode(), got)
	}
}

func TestSSHCopiesFiles(t *testing.T) {
	p := sandboxWithSSH(t)
	local := filepath.Join(p.dir, "local")
	text := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	must(t, os.WriteFile(local, text, 0o600))
	remote := fmt.Sprintf("/tmp/splitpod-ssh-%d", os.Getpid())
	defer os.Remove(remote)
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, append(p.sshOptions(), args...)...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("scp", local, "sandbox:"+remote); err != nil {
		t.Fatalf("scp to the sandbox: %v: %s", err, out)
	}
	if out, err := run("scp", "sandbox:"+remote, local+".back"); err != nil {
		t.Fatalf("scp from the sandbox: %v: %s", err, out)
	}
	if back, err := os.ReadFile(local + ".back"); err != nil || !bytes.Equal(back, text) {
		t.Errorf("%d bytes came back (%v)", len(back), err)
	}
	st, err := os.Stat(remote)
	must(t, err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 1000 {
		t.Errorf("the file belongs to %d", uid)
	}
	// Confined: what the workload may not read, its file server may not either.
	secret := filepath.Join(p.dir, "run", "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o644))
	for _, path := range []string{secret, "/root/x", "/proc/1/environ", "/var/lib"} {
		if out, err := run("scp", "-r", "sandbox:"+path, local+".secret"); err == nil {
			t.Errorf("%s was copied: %s", path, out)
		}
	}
}

func TestSSHReachesOnlyTheWorkloadsLoopback(t *testing.T) {
	p := sandboxWithSSH(t)
	forward := func(to string) (string, error) {
		cmd := exec.Command("ssh", append(append([]string{"-o", "LogLevel=INFO"}, p.sshOptions()...), "-W", to, "sandbox")...)
		cmd.Stdin = strings.NewReader("GET /no-such-file HTTP/1.0\r\n\r\n")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, to := range []string{"127.0.0.1:8123", "localhost:8123"} {
		eventually(t, "the workload's server", func() bool {
			out, err := forward(to)
			return err == nil && strings.Contains(out, "404")
		})
	}
	for _, to := range []string{"10.77.0.1:80", "api.demo.test:80", "169.254.169.254:80", "[fd00:77::1]:80", "0.0.0.0:8123"} {
		if out, err := forward(to); err == nil || !strings.Contains(out, "prohibited") {
			t.Errorf("%s: %v, %q", to, err, out)
		}
	}
	if out, err := forward("127.0.0.1:1"); err == nil || strings.Contains(out, "prohibited") {
		t.Errorf("a closed port: %v, %q", err, out)
	}
}

// TestSSHIsRecorded by both daemons: who came, and what they were refused.
func TestSSHIsRecorded(t *testing.T) {
	p := sandboxWithSSH(t)
	for _, to := range []string{"10.77.0.1:80", "127.0.0.1:1"} {
		cmd := exec.Command("ssh", append(p.sshOptions(), "-W", to, "sandbox")...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s: %s", to, out)
		}
	}
	for _, want := range []string{`"type_uid":400707,`, `"type_uid":400701,`, `"type_uid":400702,`, `"type_uid":400704,`,
		`"status_detail":"forwarding to 10.77.0.1, port 80, which is not the sandbox's loopback"`} {
		eventually(t, "the records of "+want, func() bool {
			return strings.Contains(p.processRecords(), want) && strings.Contains(p.network.out.String(), want)
		})
	}
}

// TestSSHSessionsEndWithTheirConnection, processes that ignore the hang-up included.
func TestSSHSessionsEndWithTheirConnection(t *testing.T) {
	p := sandboxWithSSH(t)
	mark := fmt.Sprintf("7%d", os.Getpid())
	cmd := p.ssh("trap '' HUP; sleep " + mark + " & echo started; wait")
	got := &buffer{}
	cmd.Stdout = got
	must(t, cmd.Start())
	eventually(t, "the session", func() bool { return strings.Contains(got.String(), "started") })
	eventually(t, "its process", func() bool { return countProcesses(t, "sleep", mark) == 1 })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = exec.Command("pkill", "-f", "nc -U "+p.dir).Run() // the proxy command outlives ssh
	eventually(t, "the end of its process", func() bool { return countProcesses(t, "sleep", mark) == 0 })
}

func TestSSHNeedsTheRightPeer(t *testing.T) {
	p := sandboxWithSSH(t)
	must(t, os.Chmod(p.dir, 0o755))
	cmd := exec.Command("setpriv", append([]string{"--reuid", "1000", "--regid", "1000", "--clear-groups", "ssh"}, append(p.sshOptions(), "sandbox", "echo", "in")...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/tmp"}
	if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "in\n") {
		t.Errorf("another user came in: %s", out)
	}
	// From inside the sandbox the socket does not exist.
	if out, err := p.ssh("ls " + p.dir + "/run; test -e " + p.dir + "/run/ssh.sock").CombinedOutput(); err == nil || strings.Contains(string(out), "sock") {
		t.Errorf("the workload sees the socket: %s", out)
	}
}

func TestSSHAuthorizedKeys(t *testing.T) {
	need.Program(t, "ssh-keygen")
	p := newPair(t, policyText)
	for _, name := range []string{"good", "bad"} {
		must(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", p.dir+"/"+name).Run())
	}
	p.startNetwork()
	p.process = start(t, binary(t, "supervisor-process"), "run", "--run-dir", p.dir+"/run", "--network-uid", fmt.Sprint(networkUID), "--admin-listen", "",
		"--records", p.dir+"/process.records", "--ssh-authorized-keys", p.dir+"/good.pub", "--workdir", "/", "--", "sleep", "1000")
	eventually(t, "the SSH socket", func() bool {
		_, err := os.Stat(p.dir + "/run/ssh.sock")
		return err == nil
	})
	for name, works := range map[string]bool{"good": true, "bad": false} {
		cmd := p.ssh()
		cmd.Args = append([]string{"ssh", "-o", "IdentitiesOnly=yes", "-i", p.dir + "/" + name}, append(p.sshOptions(), "sandbox", "echo", "in")...)
		out, err := cmd.CombinedOutput()
		if (err == nil) != works {
			t.Errorf("%s key: %v, %q", name, err, out)
		}
	}
}

// TestSSHOffersNothingElse: no listening on behalf of clients, no agent, no X11.
func TestSSHOffersNothingElse(t *testing.T) {
	p := sandboxWithSSH(t)
	for name, args := range map[string][]string{
		"remote forwarding": {"-o", "ExitOnForwardFailure=yes", "-R", "9999:localhost:1"},
		"a remote socket":   {"-o", "ExitOnForwardFailure=yes", "-R", "/tmp/x.sock:localhost:1"},
	} {
		cmd := exec.Command("ssh", append(append(args, p.sshOptions()...), "sandbox", "echo in")...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
		if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "in\n") {
			t.Errorf("%s was granted: %s", name, out)
		}
	}
	cmd := exec.Command("ssh", append(append([]string{"-A"}, p.sshOptions()...), "sandbox", "echo agent=$SSH_AUTH_SOCK display=$DISPLAY")...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir, "DISPLAY=:0", "SSH_AUTH_SOCK=/no/such/socket"}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "agent= display=\n") {
		t.Errorf("%v, %q", err, out)
	}
}

// TestRsyncWorks over SSH, both ways.
func TestRsyncWorks(t *testing.T) {
	need.Program(t, "rsync")
	p := sandboxWithSSH(t)
	for dir, n := range map[string]int{"from": 20, "back": 0} {
		must(t, os.Mkdir(filepath.Join(p.dir, dir), 0o755))
		for i := range n {
			must(t, os.WriteFile(filepath.Join(p.dir, dir, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 10_000), 0o644))
		}
	}
	remote := fmt.Sprintf("/tmp/splitpod-rsync-%d", os.Getpid())
	defer os.RemoveAll(remote)
	wrapper := filepath.Join(p.dir, "wrapper")
	script := "#!/bin/sh\nexec ssh"
	for _, o := range p.sshOptions() {
		script += " '" + o + "'"
	}
	must(t, os.WriteFile(wrapper, []byte(script+" \"$@\"\n"), 0o755))
	for _, args := range [][]string{{p.dir + "/from/", "sandbox:" + remote}, {"sandbox:" + remote + "/", p.dir + "/back"}} {
		cmd := exec.Command("rsync", append([]string{"-r", "-e", wrapper}, args...)...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("rsync %v: %v: %s", args, err, out)
		}
	}
	if out, err := exec.Command("diff", "-r", p.dir+"/from", p.dir+"/back").CombinedOutput(); err != nil {
		t.Errorf("what came back differs: %s", out)
	}
}

func TestSSHAttachesToTheMainProgram(t *testing.T) {
	need.Program(t, "ssh")
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--terminal"}, "bash", "--norc", "-c", "stty -echo; echo early output; trap 'echo interrupted' INT; while read -r x; do echo got $x; stty size; [ $x = end ] && exit 9; done")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "early output") })
	eventually(t, "the SSH socket", func() bool { _, err := os.Stat(p.dir + "/run/ssh.sock"); return err == nil })
	attach := func(options ...string) (*exec.Cmd, *buffer, func(string)) {
		cmd := exec.Command("ssh", append(append(p.sshOptions(), options...), "-s", "sandbox", "splitpod-main")...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + p.dir, "TERM=xterm", "SPLITPOD_MAIN_READ_ONLY=1"}
		in, err := cmd.StdinPipe()
		must(t, err)
		out := &buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd, out, func(s string) { _, err := in.Write([]byte(s)); must(t, err) }
	}
	sees := func(out *buffer, want string) {
		t.Helper()
		eventually(t, want, func() bool { return strings.Contains(out.String(), want) })
	}
	first, out, keys := attach("-tt")
	sees(out, "early output")
	keys("one\n")
	sees(out, "got one")
	second, secondOut, _ := attach("-tt")
	sees(secondOut, "somebody else types already")
	keys("\x10")
	keys("\x11")
	must(t, first.Wait()) // detached: exit status 0
	// Nobody types now, and still the reader gets no right to.
	reader, readerOut, readerKeys := attach("-tt", "-o", "SendEnv=SPLITPOD_MAIN_READ_ONLY")
	sees(readerOut, "got one")
	readerKeys("\x03never\n\x10\x11")
	third, thirdOut, thirdKeys := attach("-tt")
	sees(thirdOut, "got one")
	thirdKeys("\x03")
	sees(thirdOut, "interrupted")
	thirdKeys("end\n")
	for name, cmd := range map[string]*exec.Cmd{"the one who types": third, "the second": second, "the reader": reader} {
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("%s: exit code %d instead of the program's 9", name, code)
		}
	}
	if got := readerOut.String(); strings.Contains(got, "never") || strings.Count(got, "interrupted") != 1 {
		t.Errorf("a read-only view was not inert: %q", got)
	}
	if code := p.process.wait(t); code != 9 {
		t.Errorf("the daemon ended with %d", code)
	}
}

// The way editors with a remote part connect (VS Code Remote-SSH): a script goes into
// the standard input of a shell over a connection with a SOCKS forward, files follow
// by sftp, the script starts a server on the sandbox's loopback and says its port,
// and the editor talks to that through the forward while the script's shell waits.
func TestSSHRemoteEditorHandshake(t *testing.T) {
	need.Program(t, "curl")
	p := sandboxWithSSH(t)
	const socks = "127.0.0.1:11080" // which nobody is given who asks for any port
	local := filepath.Join(p.dir, "payload")
	must(t, os.WriteFile(local, []byte("the server's files"), 0o600))
	remote := fmt.Sprintf("/tmp/splitpod-editor-%d", os.Getpid())
	defer os.RemoveAll(remote)
	must(t, p.ssh("mkdir", "-p", remote).Run())
	sftp := exec.Command("sftp", append(p.sshOptions(), "-b", "-", "sandbox")...)
	sftp.Stdin = strings.NewReader("put " + local + " " + remote + "/payload\n")
	sftp.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
	if out, err := sftp.CombinedOutput(); err != nil {
		t.Fatalf("sftp: %v: %s", err, out)
	}
	cmd := exec.Command("ssh", append(p.sshOptions(), "-T", "-D", socks, "-o", "ConnectTimeout=120", "sandbox", "bash")...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
	in, err := cmd.StdinPipe()
	must(t, err)
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	defer cmd.Process.Kill() //nolint:errcheck // it has ended then
	fmt.Fprintf(in, "uname -m; cd %s\npython3 -u -c 'import http.server as h; s=h.HTTPServer((\"127.0.0.1\",0),h.SimpleHTTPRequestHandler); print(\"listeningOn==%%d==\" %% s.server_port); s.serve_forever()'\n", remote)
	var port string
	eventually(t, "the remote part", func() bool {
		_, after, found := strings.Cut(out.String(), "listeningOn==")
		port, _, _ = strings.Cut(after, "==")
		return found && port != ""
	})
	got, err := exec.Command("curl", "-sS", "-m", "60", "--noproxy", "", "--proxy", "socks5://"+socks, "http://127.0.0.1:"+port+"/payload").CombinedOutput()
	if err != nil || string(got) != "the server's files" {
		t.Errorf("%v: %s", err, got)
	}
	// The editor goes away: nothing of it stays.
	serving := func() string {
		out, _ := p.ssh("grep -al 'listeningOn[=]' /proc/[0-9]*/cmdline | grep -c .").Output()
		return strings.TrimSpace(string(out))
	}
	if n := serving(); n != "1" {
		t.Errorf("%s remote parts run", n)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	eventually(t, "the end of the remote part", func() bool { return serving() == "0" })
}
