package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// stormScript is a workload that does what is refused, by both daemons, until SIGTERM:
// requests through the proxy, each to a host of its own, and datagrams around it, each
// to a port of its own. It prints whatever it was answered or sent, one a line, and in
// the end that it has ended.
const stormScript = `
import itertools, signal, socket, sys, threading
run, over, lock = sys.argv[1], threading.Event(), threading.Lock()
signal.signal(signal.SIGTERM, lambda *_: over.set())
def say(*what):
    with lock: print(*what, flush=True)
def ask(first):
    for n in itertools.count(first, 4):
        if over.is_set(): return
        host = "h%d.run%s.test" % (n, run)
        try:
            with socket.create_connection(("127.0.0.1", 3128), 30) as s:
                s.sendall(b"GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (host.encode(), host.encode()))
                head = s.recv(65536)
        except OSError: head = b""
        say("answered" if head.startswith(b"HTTP/1.1 403") else "cut", host)
def bypass():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in itertools.count(1):
        if over.wait(0.02): return
        try: s.sendto(b"x", ("203.0.113." + run, port))
        except OSError: pass
        say("sent", port)
threads = [threading.Thread(target=bypass)] + [threading.Thread(target=ask, args=(i,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
say("ended")
`

// account is what one daemon recorded, of all its instances.
type account struct {
	denied map[string]int // occurrences of refusals by the network daemon, by host
	ports  map[string]int // records of datagrams that are told one by one, by address and port
	sent   int            // occurrences of all datagrams
	events int            // records of them
	unsure int            // events that may be missing, as an instance said
	vague  int            // occurrences that lost their detail
}

func (l *account) add(t *testing.T, text string) {
	t.Helper()
	if l.denied == nil {
		l.denied, l.ports = make(map[string]int), make(map[string]int)
	}
	for _, r := range parseRecords(t, text) {
		n := max(r.Count, 1)
		switch {
		case r.Unmapped.Reason == "records_unsure":
			l.unsure += n
		case r.Unmapped.Kind == "bypass":
			l.sent += n
			l.events++
			if r.Dst.IP != "" {
				l.ports[fmt.Sprint(r.Dst.IP, ":", r.Dst.Port)] += n
			}
		case r.Unmapped.Kind == "connection" && r.Dst.Domain != "":
			l.denied[r.Dst.Domain] += n
		case r.Unmapped.Kind == "connection":
			l.vague += n
		}
	}
}

func (l *account) refusals() (n int) {
	for _, k := range l.denied {
		n += k
	}
	return n + l.vague
}

// counted fails for whatever was recorded more than once.
func (l *account) counted(t *testing.T, whose string) {
	t.Helper()
	for _, m := range []map[string]int{l.denied, l.ports} {
		for what, n := range m {
			if n != 1 {
				t.Errorf("%s recorded %s %d times", whose, what, n)
			}
		}
	}
}

// flush is how many events one kill may cost, as api/supervisor/link promises.
const flush = 256

// storm is a sandbox with the workload of stormScript, and what all three know of it.
type storm struct {
	*pair
	network, process account
	records          []string // files of the process daemon's instances; a killed one's may end in half a line
	answered         map[string]bool
	sent             int
}

func newStorm(t *testing.T) *storm {
	need.Program(t, "python3")
	s := &storm{pair: newPair(t, policyText), answered: make(map[string]bool)}
	s.startNetwork()
	return s
}

func (s *storm) startWorkload(run int) {
	s.t.Helper()
	s.records = append(s.records, fmt.Sprintf("%s/process.records.%d", s.dir, run))
	s.startProcessWith([]string{"--grace", "50s", "--records", s.records[len(s.records)-1]}, "python3", "-c", stormScript, strconv.Itoa(run))
}

// progress waits until n more refusals were answered.
func (s *storm) progress(n int) {
	s.t.Helper()
	before := strings.Count(s.pair.process.out.String(), "answered")
	eventually(s.t, "progress", func() bool { return strings.Count(s.pair.process.out.String(), "answered") >= before+n })
}

// restartNetwork ends the network daemon, takes its records, and starts the next one.
func (s *storm) restartNetwork(sig syscall.Signal) {
	s.t.Helper()
	s.endNetwork(sig)
	s.startNetwork()
}

func (s *storm) endNetwork(sig syscall.Signal) {
	s.t.Helper()
	s.pair.network.kill(sig)
	if code := s.pair.network.wait(s.t); sig == syscall.SIGTERM && code != 0 {
		s.t.Errorf("the network daemon ended with %d: %s", code, tail(s.pair.network.err.String()))
	}
	s.network.add(s.t, s.pair.network.out.String())
}

// endWorkload ends the workload as a pod's end does, and takes what it and its daemon
// know.
func (s *storm) endWorkload() {
	s.t.Helper()
	s.pair.process.kill(syscall.SIGTERM)
	if code := s.pair.process.wait(s.t); code != 0 || !strings.HasSuffix(s.pair.process.out.String(), "ended\n") {
		s.t.Errorf("the workload ended with %d", code)
	}
	s.takeOutput()
}

func (s *storm) takeOutput() {
	s.t.Helper()
	data, err := os.ReadFile(s.records[len(s.records)-1])
	must(s.t, err)
	s.process.add(s.t, string(data))
	for line := range strings.Lines(s.pair.process.out.String()) {
		switch what, value, _ := strings.Cut(strings.TrimSpace(line), " "); what {
		case "answered":
			s.answered[value] = true
		case "sent":
			s.sent++
		}
	}
}

// settle compares what the workload knows with what both daemons recorded. lost is how
// many events of one daemon the other may lack.
func (s *storm) settle(lostByNetwork, lostByProcess int) {
	t := s.t
	t.Helper()
	s.network.counted(t, "the network daemon")
	s.process.counted(t, "the process daemon")
	for host := range s.answered {
		if s.network.denied[host] == 0 {
			t.Errorf("%s was refused and the network daemon has no record of it", host)
		}
	}
	missing := s.network.refusals() - s.process.refusals()
	t.Logf("%d refusals answered, %d recorded by the network daemon, %d of them not by the process daemon; %d datagrams sent, %d recorded in %d events, %d events not by the network daemon, which was unsure of %d",
		len(s.answered), s.network.refusals(), missing, s.sent, s.process.sent, s.process.events, s.process.events-s.network.events, s.network.unsure)
	if missing < 0 || missing > lostByProcess {
		t.Errorf("the process daemon lacks %d refusals, want 0 to %d", missing, lostByProcess)
	}
	if n := s.process.events - s.network.events; n < 0 || n > min(lostByNetwork, s.network.unsure) {
		t.Errorf("the network daemon lacks %d events, want 0 to %d, and %d are told", n, lostByNetwork, s.network.unsure)
	}
	if len(s.answered) == 0 || s.sent == 0 || s.process.events == 0 {
		t.Error("nothing happened")
	}
}

// TestAHundredKillsOfTheNetworkDaemonLoseAndDoubleNothing: whatever was answered with a
// refusal is on record, once. Of what goes from one daemon to the other a kill costs no
// more than one flush, and nothing arrives twice.
func TestAHundredKillsOfTheNetworkDaemonLoseAndDoubleNothing(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 5
	}
	s := newStorm(t)
	s.startWorkload(1)
	for kill := range kills {
		s.progress(1 + kill*13%50)
		s.restartNetwork(syscall.SIGKILL)
	}
	s.progress(1)
	s.endWorkload()
	s.endNetwork(syscall.SIGTERM)
	s.settle(kills*flush, kills*flush)
	if s.process.sent != s.sent {
		t.Errorf("the process daemon recorded %d of %d datagrams", s.process.sent, s.sent)
	}
}

// TestAnEndInOrderLosesNothing: with SIGTERM both daemons' records are complete, in
// both daemons.
func TestAnEndInOrderLosesNothing(t *testing.T) {
	s := newStorm(t)
	s.startWorkload(1)
	for end := range 20 {
		s.progress(1 + end*13%50)
		s.restartNetwork(syscall.SIGTERM)
	}
	s.progress(20)
	s.endWorkload()
	s.endNetwork(syscall.SIGTERM)
	s.settle(0, 0)
	if s.process.sent != s.sent || s.network.sent != s.sent || s.network.unsure != 0 {
		t.Errorf("of %d datagrams the process daemon recorded %d and the network daemon %d, unsure of %d events", s.sent, s.process.sent, s.network.sent, s.network.unsure)
	}
}

// TestKillsOfTheProcessDaemonDoubleNothing: the workload ends with it, and the next
// instance is told nothing that an earlier one was told.
func TestKillsOfTheProcessDaemonDoubleNothing(t *testing.T) {
	s := newStorm(t)
	const kills = 8
	for kill := range kills {
		s.startWorkload(kill + 1)
		s.progress(20 + kill*13)
		s.pair.process.kill(syscall.SIGKILL)
		<-s.pair.process.ended
		s.takeOutput()
	}
	s.startWorkload(kills + 1)
	s.progress(20)
	s.endWorkload()
	s.endNetwork(syscall.SIGTERM)
	s.network.counted(t, "the network daemon")
	s.process.counted(t, "the process daemon")
	for host := range s.answered {
		if s.network.denied[host] == 0 {
			t.Errorf("%s was refused and the network daemon has no record of it", host)
		}
	}
	missing := s.network.refusals() - s.process.refusals()
	t.Logf("%d refusals, %d not recorded by the process daemon, which was unsure of %d; it recorded %d events, the network daemon %d of them", s.network.refusals(), missing, s.process.unsure, s.process.events, s.network.events)
	if missing < 0 || missing > kills*flush || s.network.events > s.process.events {
		t.Errorf("the process daemon lacks %d refusals, the network daemon has %d of %d events", missing, s.network.events, s.process.events)
	}
	if n := s.process.events - s.network.events; n > kills*flush {
		t.Errorf("the network daemon lacks %d events", n)
	}
}

// bypassScript is a workload that sends datagrams around the proxy until SIGTERM.
const bypassScript = `
import itertools, signal, socket, threading
over = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in itertools.count(1):
    if over.wait(0.02): break
    try: s.sendto(b"x", ("203.0.113.1", port))
    except OSError: pass
`

// bypasses are the bypass attempts in records, by port.
func bypasses(t *testing.T, text string) map[int]int {
	t.Helper()
	out := make(map[int]int)
	for _, r := range parseRecords(t, text) {
		if r.Unmapped.Kind == "bypass" {
			out[r.Dst.Port] += max(r.Count, 1)
		}
	}
	return out
}

// TestTheLastEventsWaitForANetworkDaemonThatIsSlow: while it takes nothing there are
// events that were sent and others behind them, the workload's end the last. The process
// daemon stays until all were taken.
func TestTheLastEventsWaitForANetworkDaemonThatIsSlow(t *testing.T) {
	need.Program(t, "python3")
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--exit-timeout", "60s"}, "python3", "-c", bypassScript)
	eventually(t, "the first datagrams", func() bool { return len(bypasses(t, p.network.out.String())) > 0 })
	p.network.kill(syscall.SIGSTOP)
	before := len(bypasses(t, p.processRecords()))
	eventually(t, "datagrams that the network daemon does not take", func() bool { return len(bypasses(t, p.processRecords())) > before+5 })
	p.process.kill(syscall.SIGTERM)
	eventually(t, "the workload's end", func() bool { return strings.Contains(p.processRecords(), `"reason":"exited"`) })
	select {
	case <-p.process.ended:
		t.Error("the process daemon has ended, and nobody has taken its last events")
	default:
	}
	p.network.kill(syscall.SIGCONT)
	p.process.wait(t)
	p.network.kill(syscall.SIGTERM)
	p.network.wait(t)
	if !strings.Contains(p.network.out.String(), `"reason":"exited"`) {
		t.Error("the network daemon was not told that the workload has ended")
	}
	sent, taken := bypasses(t, p.processRecords()), bypasses(t, p.network.out.String())
	for port, n := range sent {
		if taken[port] != n {
			t.Errorf("port %d was recorded %d times by the process daemon and %d times by the other", port, n, taken[port])
		}
	}
}

// TestAKillBetweenTheNoteAndTheRecordIsTold: the network daemon has noted that it takes
// events, and is killed before they are on record and acknowledged. The next instance
// says how many there are, and does not count them when they are sent again: exactly
// those are missing there, and they are in the process daemon's records.
func TestAKillBetweenTheNoteAndTheRecordIsTold(t *testing.T) {
	p, from, noted := killedWhileItTook(t)
	p.startNetwork()
	eventually(t, "the workload", func() bool { return strings.Contains(p.processRecords(), `"reason":"launched"`) })
	p.process.kill(syscall.SIGTERM)
	p.process.wait(t)
	p.network.kill(syscall.SIGTERM)
	p.network.wait(t)

	own, told, unsure := 0, 0, 0
	for _, r := range parseRecords(t, p.processRecords()) {
		if r.Unmapped.Producer == from {
			own++
		}
	}
	for _, r := range parseRecords(t, p.network.out.String()) {
		switch {
		case r.Unmapped.Reason == "records_unsure":
			unsure += max(r.Count, 1)
		case r.Unmapped.Producer == from:
			told++
		}
	}
	if own-told != noted || unsure != noted || told == 0 {
		t.Errorf("the process daemon recorded %d events; when %d of them were noted the network daemon was killed. The next one recorded %d, and is unsure of %d", own, noted, told, unsure)
	}
}

// killedWhileItTook is a sandbox whose network daemon was killed after it noted events of
// the producer, and before they were taken. Its log is full, so that it waits for it in
// between; when it was not caught in that moment another one is tried.
func killedWhileItTook(t *testing.T) (p *pair, producer string, noted int) {
	t.Helper()
	for range 5 {
		p = newPair(t, policyText)
		p.startNetworkWithFullLog()
		p.startProcessWith([]string{"--exit-timeout", "60s"}, "sleep", "1000")
		inBetween := func() bool {
			data, _ := os.ReadFile(p.dir + "/state/events") // "producer begun done"
			begun, done := 0, 0
			n, _ := fmt.Sscan(string(data), &producer, &begun, &done)
			noted = begun - done
			return n == 3 && begun > done
		}
		eventually(t, "events that are noted and not taken", inBetween)
		p.network.kill(syscall.SIGSTOP)
		caught := inBetween()
		p.network.kill(syscall.SIGKILL)
		<-p.network.ended
		if caught {
			return p, producer, noted
		}
		p.stop()
	}
	t.Fatal("the network daemon was never caught between the note and the record")
	return nil, "", 0
}

// startNetworkWithFullLog starts the network daemon with a standard output that takes
// nothing.
func (p *pair) startNetworkWithFullLog() {
	p.t.Helper()
	fifo := p.dir + "/stdout"
	must(p.t, syscall.Mkfifo(fifo, 0o666))
	fd, err := syscall.Open(fifo, syscall.O_RDWR|syscall.O_NONBLOCK, 0)
	must(p.t, err)
	p.t.Cleanup(func() { _ = syscall.Close(fd) })
	for err == nil {
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	p.network = start(p.t, append([]string{"sh", "-c", `exec "$@" >` + fifo, "sh"}, p.networkArgs(nil)...)...)
}
