package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestAHundredThousandHostsWhileNobodyReads: every one is answered and counted, memory
// is bounded, and what lost its record or its host is said to have. When the log is
// read again, the records that come and those that are told as dropped are all of them.
func TestAHundredThousandHostsWhileNobodyReads(t *testing.T) {
	hosts := 100_000
	if testing.Short() {
		hosts = 20_000
	}
	p, log := unread(t)
	before := p.memory(false)
	refuseAll(t, hosts)
	if grown := p.memory(true) - before; grown > 128<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	denied, ungrouped := metric(t, `splitpod_denials_total{reason="policy_denied"}`), metric(t, "splitpod_denials_ungrouped_total")
	if denied != hosts {
		t.Errorf("%d of %d refusals are counted", denied, hosts)
	}
	// 2048 destinations are kept apart for the ten seconds between two deliveries.
	if kept := denied - ungrouped; kept < 1500 || kept > hosts/2 {
		t.Errorf("%d of %d refusals are said to have lost their host", ungrouped, denied)
	}
	dropped := metric(t, "splitpod_records_dropped_total")
	if dropped == 0 {
		t.Error("no record was dropped: the test shows nothing")
	}

	lines, told := 0, 0
	for text := bufio.NewScanner(log); told == 0 && text.Scan(); {
		var r record
		must(t, json.Unmarshal(text.Bytes(), &r))
		switch r.Unmapped.Reason {
		case "policy_denied":
			lines++
		case "records_dropped":
			told = r.Count
		}
	}
	if lines+told != hosts || told != dropped {
		t.Errorf("%d records and %d that are told as dropped (%d by the metric) of %d", lines, told, dropped, hosts)
	}
}

// TestADaemonWhoseLogNobodyReadsEnds, and says by its exit code that records are missing.
func TestADaemonWhoseLogNobodyReadsEnds(t *testing.T) {
	p, _ := unread(t)
	refuseAll(t, 200) // more than a pipe holds
	p.network.kill(syscall.SIGTERM)
	if code := p.network.wait(t); code != 1 || !strings.Contains(p.network.err.String(), "the last records were not written") {
		t.Errorf("exit code %d, %q", code, p.network.err)
	}
}

// TestADaemonWhoseLogsReaderIsGoneGoesOn: what is missing is counted, and told to the next
// reader.
func TestADaemonWhoseLogsReaderIsGoneGoesOn(t *testing.T) {
	p, log := unread(t)
	must(t, log.Close())
	refuseAll(t, 10)
	eventually(t, "the count of what is dropped", func() bool { return metric(t, "splitpod_records_dropped_total") > 0 })
	log, err := os.OpenFile(p.dir+"/stdout", os.O_RDWR, 0)
	must(t, err)
	defer log.Close()
	refuseAll(t, 1)
	for text := bufio.NewScanner(log); text.Scan(); {
		var r record
		must(t, json.Unmarshal(text.Bytes(), &r))
		if r.Unmapped.Reason == "records_dropped" {
			return
		}
	}
}

// unread starts a network daemon alone, whose records go to a log that nobody reads.
func unread(t *testing.T) (*pair, *os.File) {
	t.Helper()
	p := newPair(t, policyText)
	fifo := p.dir + "/stdout"
	must(t, syscall.Mkfifo(fifo, 0o666))
	log, err := os.OpenFile(fifo, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { log.Close() })
	p.network = start(t, append([]string{"sh", "-c", `exec "$@" >` + fifo, "sh"}, p.networkArgs([]string{
		"--listen", standaloneAddress, "--identity", "ignore", "--admin-listen", "127.0.0.1:" + adminPort})...)...)
	eventually(t, "the daemon to be ready", func() bool {
		status, _ := fetch(t, "http://127.0.0.1:"+adminPort+"/readyz")
		return status == 200
	})
	return p, log
}

// refuseAll asks for n hosts that no rule allows, each over a connection of its own.
func refuseAll(t *testing.T, n int) {
	t.Helper()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if !refusedOnce(fmt.Sprintf("h%d.test", i)) {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests were not answered with 403", failed.Load(), n)
	}
}

func refusedOnce(host string) bool {
	c, err := net.Dial("tcp", standaloneAddress)
	if err != nil {
		return false
	}
	defer c.Close()
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	status, err := bufio.NewReader(c).ReadString('\n')
	_ = c.(*net.TCPConn).SetLinger(0) // no port is kept for each of them
	return err == nil && strings.HasPrefix(status, "HTTP/1.1 403 ")
}

// metric reads one line of the metrics.
func metric(t *testing.T, name string) int {
	t.Helper()
	_, body := fetch(t, "http://127.0.0.1:"+adminPort+"/metrics")
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(t, err)
			return int(v)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
