package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// TestADirectConnectionIsRefusedInTime, attribution included: under 50 ms where the
// machine does nothing else, so that five are found, sooner or later, on any.
func TestADirectConnectionIsRefusedInTime(t *testing.T) {
	need.Program(t, "python3")
	p, code, out := run(t, policyText, "python3", "-c", `
import socket, time
took = []
while sum(s < 0.05 for s in took) < 5 and len(took) < 200:
    s = socket.socket(); s.settimeout(60); start = time.monotonic()
    try: s.connect(("203.0.113.%d" % (len(took) + 1), 443)); print("OPEN")
    except OSError: took.append(time.monotonic() - start)
    time.sleep(0.25) # slower than the log's rate, so that every one is held
print("fast:", sum(s < 0.05 for s in took))
print("milliseconds:", *("%.1f" % (1000 * s) for s in sorted(took)))
`)
	t.Log(out)
	if code != 0 || !strings.Contains(out, "fast: 5\n") || strings.Contains(out, "OPEN") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	named := 0
	for _, r := range parseRecords(t, p.processRecords()) {
		if r.Unmapped.Kind == "bypass" && strings.Contains(r.Actor.Process.Name, "python") {
			named++
		}
	}
	if named < 3 { // one that was not found in time was late, too, or nearly
		t.Errorf("only %d were attributed", named)
	}
}

// TestAFloodIsCountedExactly: what is not logged one by one is counted, and both
// together are every attempt that was made, on both sides of the contract.
func TestAFloodIsCountedExactly(t *testing.T) {
	need.Program(t, "python3")
	const tcp, udp = 3000, 2000
	p, code, out := run(t, policyText, "python3", "-c", fmt.Sprintf(`
import socket
for i in range(%d):
    s = socket.socket(); s.setblocking(False)
    try: s.connect(("203.0.113.9", 1 + i))
    except OSError: pass
    s.close()
for i in range(%d):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setblocking(False)
    try: s.sendto(b"x", ("203.0.113.9", 1000))
    except OSError: pass
    s.close()
print("done")
`, tcp, udp))
	if code != 0 || !strings.Contains(out, "done") {
		t.Fatalf("exit code %d, output %q", code, out)
	}
	if n := bypassCount(t, p.processRecords()); n != tcp+udp {
		t.Errorf("the process daemon recorded %d attempts, want %d", n, tcp+udp)
	}
	eventually(t, "the same count in the network daemon's records", func() bool { return bypassCount(t, p.network.out.String()) == tcp+udp })
	if lines := strings.Count(p.processRecords(), "\n"); lines > 300 {
		t.Errorf("a flood of %d attempts made %d records", tcp+udp, lines)
	}
}

// TestARecordIsALineOfItsOwn: the workload's output goes where the records go by default,
// and what it leaves unfinished would hide them from whoever reads lines.
func TestARecordIsALineOfItsOwn(t *testing.T) {
	need.Program(t, "python3")
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--records", "stdout"}, "python3", "-c", `
import socket
for i in range(5):
    print("$ ", end="", flush=True)
    try: socket.create_connection(("203.0.113.9", 1 + i), 60)
    except OSError: pass
`)
	if code := p.process.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := p.process.out.String()
	if n := bypassCount(t, out); n != 5 {
		t.Errorf("%d of 5 attempts can be read in %.3000q", n, out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, `{"class_uid"`) && !strings.HasPrefix(line, "{") {
			t.Errorf("a record stands behind %.20q", line)
		}
	}
}
