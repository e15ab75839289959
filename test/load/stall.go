package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// stalled compares two daemons that differ in one thing: somebody reads the records of
// one, nobody those of the other. First both refuse many connections, each to a host of
// its own, so that every queue of the second is full; what that took of memory, and
// whether it was counted, is printed. Then latencies are measured, in turn within every
// round; the one that is read is measured twice, which says what the differences of
// this machine with itself are.
func stalled(bin string, rounds int, dur time.Duration, denials int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "splitpod-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := startOrigins(ctx); err != nil {
		return err
	}
	fmt.Printf("command: %s\n%s, %d CPUs, %d rounds of %s\n\n", strings.Join(os.Args, " "), runtime.Version(), runtime.NumCPU(), rounds, dur)
	var both []target
	for i, name := range []string{"read", "stalled"} {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		t, stop, err := startDaemon(daemonOptions{bin: bin, dir: dir, name: name, port: 3128 + i, admin: 9901 + i, stdout: w})
		w.Close()
		if err != nil {
			return err
		}
		defer stop()
		if name == "read" {
			go func() { _, _ = io.Copy(io.Discard, r) }()
		}
		if err := flood(t, 9901+i, denials); err != nil {
			return fmt.Errorf("refusals by the daemon that is %s: %w", name, err)
		}
		both = append(both, t)
	}
	return compare(both[0], both[1], rounds, dur)
}

// flood has a daemon refuse n connections and prints what it took.
func flood(t target, admin, n int) error {
	before, began := residentKiB(t.pid), time.Now()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := refused(t, fmt.Sprintf("h%d.test", i)); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	denied, err := metric(admin, `splitpod_denials_total{reason="policy_denied"}`)
	if err != nil {
		return err
	}
	ungrouped, err := metric(admin, "splitpod_denials_ungrouped_total")
	if err != nil {
		return err
	}
	dropped, err := metric(admin, "splitpod_records_dropped_total")
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d refusals of as many hosts in %.1f s (%d not answered), counted %.0f, of those without their host %.0f; %.0f records dropped; resident %d KiB before, %d after, %d at most\n",
		t.name, n, took.Seconds(), failed.Load(), denied, ungrouped, dropped, before, residentKiB(t.pid), peakKiB(t.pid))
	if int(denied) != n {
		return fmt.Errorf("%.0f of %d refusals were counted", denied, n)
	}
	return nil
}

// refused asks for a host that no rule allows and reads the answer.
func refused(t target, host string) error {
	c, err := net.Dial("tcp", t.proxy)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", host, host); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 403 ") {
		return fmt.Errorf("answer %q: %w", answer, err)
	}
	return nil
}

// metric adds up a metric of a daemon over its labels.
func metric(admin int, name string) (sum float64, err error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://127.0.0.1:" + strconv.Itoa(admin) + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, lines.Err()
}

// operation is one thing whose latency is measured.
type operation struct {
	name string
	// begin prepares and returns what is timed.
	begin func(t target) (do func() error, end func(), err error)
}

var operations = []operation{
	{"an allowed connection", func(t target) (func() error, func(), error) {
		return func() error {
			c, err := dial(t, echoPort)
			if err == nil {
				_ = c.SetLinger(0)
				c.Close()
			}
			return err
		}, func() {}, nil
	}},
	{"a refused request", func(t target) (func() error, func(), error) {
		return func() error { return refused(t, "other.test") }, func() {}, nil
	}},
	{"1 KiB there and back", func(t target) (func() error, func(), error) {
		c, err := dial(t, echoPort)
		if err != nil {
			return nil, nil, err
		}
		buf := make([]byte, 1024)
		return func() error {
			if _, err := c.Write(buf); err != nil {
				return err
			}
			_, err := io.ReadFull(c, buf)
			return err
		}, func() { c.Close() }, nil
	}},
}

// latencies does one operation after the other for a time.
func (o operation) latencies(t target, dur time.Duration) ([]float64, error) {
	do, end, err := o.begin(t)
	if err != nil {
		return nil, err
	}
	defer end()
	var out []float64
	for began := time.Now(); time.Since(began) < dur; {
		start := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		out = append(out, float64(time.Since(start).Nanoseconds())/1000)
	}
	slices.Sort(out)
	return out, nil
}

func compare(read, unread target, rounds int, dur time.Duration) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\noperation\tquantile\tread us\tstalled us\tstalled/read (median of rounds)\tread/read\t")
	quantiles := []float64{0.5, 0.99}
	for _, o := range operations {
		var all [3][]([]float64) // by target, round and quantile
		for range rounds {
			for i, t := range []target{read, unread, read} {
				sorted, err := o.latencies(t, dur)
				if err != nil {
					return fmt.Errorf("%s through the daemon that is %s: %w", o.name, t.name, err)
				}
				var at []float64
				for _, q := range quantiles {
					at = append(at, sorted[int(q*float64(len(sorted)-1))])
				}
				all[i] = append(all[i], at)
			}
		}
		for k, q := range quantiles {
			var first, middle, ratio, self []float64
			for r := range rounds {
				a, b, again := all[0][r][k], all[1][r][k], all[2][r][k]
				first, middle = append(first, a), append(middle, b)
				ratio, self = append(ratio, 2*b/(a+again)), append(self, again/a)
			}
			fmt.Fprintf(w, "%s\tp%g\t%.0f\t%.0f\t%.2f\t%.2f\t\n", o.name, 100*q, median(first), median(middle), median(ratio), median(self))
		}
	}
	return w.Flush()
}

// peakKiB is the most memory a process had resident so far.
func peakKiB(pid int) int { return statusKiB(pid, "VmHWM:") }

// daemonOptions say how to start a network daemon.
type daemonOptions struct {
	bin, dir, name string
	port, admin    int      // admin 0: none
	stdout         *os.File // nil: nowhere
	identity       string   // empty: nobody is identified
	runDir         string   // empty: its state directory
}

// uid is whose the network daemon runs as.
const uid = 65532

func (o daemonOptions) command(policy, addr, state string) *exec.Cmd {
	admin := ""
	if o.admin != 0 {
		admin = "127.0.0.1:" + strconv.Itoa(o.admin)
	}
	cmd := exec.Command("setpriv", "--reuid", strconv.Itoa(uid), "--regid", strconv.Itoa(uid), "--clear-groups", "--bounding-set=-all", "--no-new-privs",
		o.bin, "serve", "--policy", policy, "--listen", addr, "--identity", cmp.Or(o.identity, "ignore"), "--admin-listen", admin,
		"--state-dir", state, "--run-dir", cmp.Or(o.runDir, state), "--log-level", "warn")
	cmd.Stderr = os.Stderr
	if o.stdout != nil {
		cmd.Stdout = o.stdout
	}
	return cmd
}
