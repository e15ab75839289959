package e2e_test

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

const who = "process: {run_as_user: \"1000\", run_as_group: \"1000\"}\n"

const policyText = "version: 1\n" + who + `network_policies:
  api:
    endpoints:
      - {host: api.demo.test, ports: [80, 443]}
    binaries: [{path: /usr/bin/curl}]
  git:
    endpoints:
      - {host: git.demo.test, port: 443}
    binaries: [{path: /usr/bin/git}]
  wild:
    endpoints:
      - {host: "*.wild.demo.test", port: 443}
    binaries: [{path: /usr/bin/curl}]
  traps:
    endpoints:
      - {host: loop.demo.test, port: 443}
      - {host: metadata.demo.test, port: 80}
      - {host: mixed.demo.test, port: 443}
    binaries: [{path: /usr/bin/curl}]
  shell:
    endpoints:
      - {host: six.demo.test, port: 443}
    binaries: [{path: /bin/sh}]
`

func curl(args ...string) []string {
	return append([]string{"curl", "-sS", "-m", "120"}, args...)
}

func TestAllowedAndRefusedDestinations(t *testing.T) {
	for name, tc := range map[string]struct {
		command []string
		code    int    // exit code; -1: any but 0
		output  string // part of what the workload sees
		reason  string // of the record; empty: allowed
		host    string
	}{
		"https to an allowed host":                      {curl("https://api.demo.test/"), 0, "hello from api.demo.test", "allowed", "api.demo.test"},
		"plain http to an allowed host":                 {curl("http://api.demo.test/echo?q=1", "-d", "body"), 0, "POST /echo?q=1 host=api.demo.test", "allowed", "api.demo.test"},
		"host in another case":                          {curl("https://API.Demo.TEST/"), 0, "hello from", "allowed", "api.demo.test"},
		"a child counts as its parent":                  {[]string{"sh", "-c", strings.Join(curl("-g", "https://six.demo.test/"), " ") + "; true"}, 0, "hello from six.demo.test", "allowed", "six.demo.test"},
		"a host no rule names":                          {curl("https://other.demo.test/"), 56, "403", "policy_denied", "other.demo.test"},
		"a host that does not exist is never looked up": {curl("https://nowhere.invalid/"), 56, "403", "policy_denied", "nowhere.invalid"},
		"a port no rule names":                          {curl("https://api.demo.test:8443/"), 56, "403", "policy_denied", "api.demo.test"},
		"plain http refused in readable JSON":           {curl("-f", "http://other.demo.test/"), 22, "", "policy_denied", "other.demo.test"},
		"a wildcard that leads to a private address":    {curl("https://a.wild.demo.test/"), 56, "403", "ssrf_denied", "a.wild.demo.test"},
		"a deeper name than the wildcard":               {curl("https://a.b.wild.demo.test/"), 56, "403", "policy_denied", "a.b.wild.demo.test"},
		"a name that leads to loopback":                 {curl("https://loop.demo.test/"), 56, "403", "ssrf_denied", "loop.demo.test"},
		"a name that leads to the metadata address":     {curl("-f", "http://metadata.demo.test/"), 22, "", "ssrf_denied", "metadata.demo.test"},
		"one bad address among good ones":               {curl("https://mixed.demo.test/"), 56, "403", "ssrf_denied", "mixed.demo.test"},
		"argv[0] of an allowed program proves nothing":  {[]string{"bash", "-c", `exec -a /usr/bin/curl python3 -c "import urllib.request as u; u.urlopen('https://api.demo.test/')"`}, -1, "403", "policy_denied", "api.demo.test"},
	} {
		t.Run(name, func(t *testing.T) {
			p, code, out := run(t, policyText, tc.command...)
			if code != tc.code && (tc.code != -1 || code == 0) {
				t.Errorf("exit code %d, want %d; output %q", code, tc.code, out)
			}
			if !strings.Contains(out, tc.output) {
				t.Errorf("output %q does not contain %q", out, tc.output)
			}
			var connections []record
			eventually(t, "the record", func() bool {
				connections = nil
				for _, r := range parseRecords(t, p.network.out.String()) {
					if r.Unmapped.Kind == "connection" {
						connections = append(connections, r)
					}
				}
				return len(connections) > 0
			})
			if len(connections) != 1 {
				t.Fatalf("%d connection records, want exactly 1", len(connections))
			}
			r := connections[0]
			if r.Unmapped.Reason != tc.reason || r.Dst.Domain != tc.host || r.Actor.Process.Name == "" {
				t.Errorf("record %+v, want reason %s, host %s and a program", r, tc.reason, tc.host)
			}
			if tc.reason != "allowed" && !strings.Contains(p.processRecords(), r.Unmapped.RequestID) {
				t.Errorf("the process daemon has no record with request id %s", r.Unmapped.RequestID)
			}
		})
	}
}

func TestGitWorksThroughTheSandbox(t *testing.T) {
	need.Program(t, "git")
	script := `d=$(mktemp -d) && cd $d && export HOME=$d &&
git clone -q https://git.demo.test/repo.git r && cat r/README && git -C r log --oneline | wc -l`
	_, code, out := run(t, policyText, "sh", "-c", script)
	if code != 0 || !strings.Contains(out, "hello") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

// TestNothingGetsAroundTheProxy: a canary listens on a routable address of the pod
// at several ports, one of them the proxy's own; it must never see anything.
func TestNothingGetsAroundTheProxy(t *testing.T) {
	need.Program(t, "python3")
	hit := make(chan string, 64)
	for _, port := range []string{"3128", "9999"} {
		l, err := net.Listen("tcp", net.JoinHostPort(world.Address, port))
		must(t, err)
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				hit <- l.Addr().String()
				c.Close()
			}
		}()
	}
	udp, err := net.ListenPacket("udp", net.JoinHostPort(world.Address, "53"))
	must(t, err)
	defer udp.Close()
	go func() {
		if _, from, err := udp.ReadFrom(make([]byte, 1500)); err == nil {
			hit <- "udp from " + from.String()
		}
	}()

	script := `
import socket, errno, time
def attempt(name, f):
    start = time.monotonic()
    try:
        f()
        print(name, "OPEN")
    except socket.timeout:
        print(name, "TIMEOUT")
    except OSError as e:
        print(name, "refused", errno.errorcode.get(e.errno, e.errno))
def tcp(family, addr):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(5); s.connect(addr)
def udp(family, addr):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect(addr); s.send(b"x"); time.sleep(0.05); s.send(b"x"); s.recv(10)
I4, I6 = socket.AF_INET, socket.AF_INET6
A, A6 = "` + world.Address + `", "` + world.Address6 + `"
attempt("tcp", lambda: tcp(I4, (A, 9999)))
attempt("proxy-port-elsewhere", lambda: tcp(I4, (A, 3128)))
attempt("tcp6", lambda: tcp(I6, (A6, 443)))
attempt("mapped", lambda: tcp(I6, ("::ffff:" + A, 9999)))
attempt("metadata", lambda: tcp(I4, ("169.254.169.254", 80)))
attempt("dns-udp", lambda: udp(I4, (A, 53)))
attempt("udp6", lambda: udp(I6, (A6, 53)))
attempt("icmp", lambda: socket.socket(I4, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).sendto(b"\x08\0\0\0\0\0\0\0", (A, 0)))
attempt("raw", lambda: socket.socket(I4, socket.SOCK_RAW, 255))
attempt("packet", lambda: socket.socket(17, socket.SOCK_RAW))
`
	p, code, out := run(t, policyText, "python3", "-c", script)
	if code != 0 {
		t.Fatalf("exit code %d, output %q", code, out)
	}
	lines := strings.Split(strings.TrimSpace(p.process.out.String()), "\n")
	if len(lines) != 10 {
		t.Fatalf("%d attempts, want 10: %q", len(lines), lines)
	}
	for _, line := range lines {
		if !strings.Contains(line, "refused") {
			t.Errorf("attempt not refused at once: %s", line)
		}
	}
	select {
	case addr := <-hit:
		t.Errorf("the canary at %s was reached", addr)
	default:
	}
	eventually(t, "bypass records in both daemons", func() bool {
		return strings.Contains(p.processRecords(), `"reason":"bypass"`) && strings.Contains(p.network.out.String(), `"reason":"bypass"`)
	})
}

func TestTheWorkloadSeesNothingOfTheSupervisors(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	script := `
echo "rundir: $(ls ` + p.dir + `/run | tr '\n' ' ')"
echo "links: $(ls /sys/class/net 2>/dev/null | wc -l) $(cat /proc/net/dev | grep -c :)"
echo "procs: $(ls /proc | grep -c '^[0-9]')"
echo "comm: $(cat /proc/[0-9]*/comm | tr '\n' ' ')"
echo "env: $(env | grep -c SPLITPOD)"
echo "caps: $(grep Cap /proc/self/status | tr -d '\n\t')"
echo "nnp: $(grep NoNewPrivs /proc/self/status | tr -d '\t')"
echo "id: $(id -u) $(id -g) $(id -G)"
echo "fds: $(ls /proc/self/fd | tr '\n' ' ')"
echo "init: $(cat /proc/1/environ 2>&1 | tr '\0' ' ')"
echo "proxy: $HTTPS_PROXY $https_proxy $NO_PROXY"
`
	p.startProcess("sh", "-c", script)
	if code := p.process.wait(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.process.err)
	}
	out := p.process.out.String()
	for _, want := range []string{
		"env: 0\n", "id: 1000 1000 1000\n", "NoNewPrivs:1",
		"CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapBnd:0000000000000000CapAmb:0000000000000000",
		"proxy: http://127.0.0.1:3128 http://127.0.0.1:3128 ", "Permission denied",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the workload does not see %q:\n%s", want, out)
		}
	}
	for _, never := range []string{".sock", "supervisor"} {
		if strings.Contains(out, never) {
			t.Errorf("the workload sees %q:\n%s", never, out)
		}
	}
}

// TestADirectConnectionIsAttributed: the record names the program, not only the
// address, and the attempt does not wait for a time-out.
func TestADirectConnectionIsAttributed(t *testing.T) {
	need.Program(t, "/usr/bin/python3")
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", `/usr/bin/python3 -c "
import errno, socket, time
while True:
    for to in ('203.0.113.7', 443), ('2001:db8::7', 443):
        s = socket.socket(socket.AF_INET6 if ':' in to[0] else socket.AF_INET)
        s.settimeout(60)
        try:
            s.connect(to)
            print('OPEN', flush=True)
        except OSError as e:
            print(errno.errorcode.get(e.errno, 'TIMEOUT'), flush=True)
    time.sleep(0.3)
"; true`)
	real, err := filepath.EvalSymlinks("/usr/bin/python3")
	must(t, err)
	// A refusal waits for its program's name no longer than some milliseconds, in which a
	// busy machine may not find it: then the next one does.
	for _, ip := range []string{"203.0.113.7", "2001:db8::7"} {
		eventually(t, "a refusal of "+ip+" that names its program, in both daemons' records", func() bool {
			return namedBypass(t, p.processRecords(), ip, real) && namedBypass(t, p.network.out.String(), ip, real)
		})
	}
	if out := p.process.out.String(); strings.Contains(out, "OPEN") || strings.Contains(out, "TIMEOUT") {
		t.Errorf("output %q", out)
	}
	for _, r := range parseRecords(t, p.processRecords()) {
		if name := r.Actor.Process.Name; r.Unmapped.Kind == "bypass" && name != real && name != "" {
			t.Errorf("a refusal names %q", name)
		}
	}
}

func namedBypass(t *testing.T, records, ip, program string) bool {
	t.Helper()
	return slices.ContainsFunc(parseRecords(t, records), func(r record) bool {
		return r.Unmapped.Kind == "bypass" && r.Dst.IP == ip && r.Actor.Process.Name == program
	})
}
