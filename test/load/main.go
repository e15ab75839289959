// Command load measures the network daemon: connection rate, echo latency,
// throughput and the memory of idle tunnels, through the proxy, with and without
// identification, through a bare splice relay and directly, in turn within every round of
// one run.
//
// It answers the threat of a figure that nobody can repeat: it prints the command
// that made it, and ratios formed within a round, because absolute rates of a
// shared machine drift. It is no test: it asserts nothing about time. With -stall it
// measures what a reader of records that stalls costs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == floorRole {
		if err := floor(context.Background()); err != nil {
			fail(err)
		}
		return
	}
	var (
		bin    = flag.String("bin", "bin/supervisor-network", "the daemon to measure")
		who    = flag.String("process", "bin/supervisor-process", "the daemon that identifies for a second one of it; empty: none")
		rounds = flag.Int("rounds", 5, "rounds; medians of in-round ratios are printed")
		dur    = flag.Duration("dur", 800*time.Millisecond, "time of one cell")
		idle   = flag.Int("idle", 1000, "tunnels of the idle measurement; 0: none")
		stall  = flag.Int("stall", 0, "measure in place of that what a reader of records that stalls costs, after so many refusals; 0: do not")
	)
	flag.Parse()
	if err := world.Enter(); err != nil {
		fail(err)
	}
	err := keepFewTimeWaits()
	switch {
	case err != nil:
	case *stall > 0:
		err = stalled(*bin, *rounds, *dur, *stall)
	default:
		err = run(*bin, *who, *rounds, *dur, *idle)
	}
	if err != nil {
		fail(err)
	}
}

// keepFewTimeWaits keeps the search for a free port, which would take most of the
// time after some ten thousand connections, out of the figures.
func keepFewTimeWaits() error {
	for name, value := range map[string]string{"tcp_max_tw_buckets": "500", "ip_local_port_range": "10000 65000"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}

const policyText = `version: 1
network_policies:
  origin:
    binaries: [{path: "/**"}]
    endpoints:
      - {host: %s, ports: [9001, 9002]}
`

// target is one way to the origin.
type target struct {
	name  string
	proxy string // address of a CONNECT proxy; empty: direct
	pid   int    // whose CPU time is charged; 0: nobody's
	helps int    // who identifies for it, and is charged as well; 0: nobody
}

func run(bin, who string, rounds int, dur time.Duration, idle int) error {
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
	daemon, stop, err := startDaemon(daemonOptions{bin: bin, dir: dir, name: "splitpod", port: 3128})
	if err != nil {
		return err
	}
	defer stop()
	floor, stopFloor, err := startFloor()
	if err != nil {
		return err
	}
	defer stopFloor()
	targets := []target{{name: "direct"}, floor, daemon}
	if who != "" {
		identified, stop, err := startIdentified(bin, who, dir)
		if err != nil {
			return err
		}
		defer stop()
		targets = append(targets, identified)
	}

	fmt.Printf("command: %s\n", strings.Join(os.Args, " "))
	fmt.Printf("%s, %d CPUs, %d rounds of %s\n\n", runtime.Version(), runtime.NumCPU(), rounds, dur)
	results := make(map[string]map[string][]sample)
	for range rounds {
		for _, cell := range cells {
			for _, t := range targets {
				s, err := cell.measure(t, dur)
				if err != nil {
					return fmt.Errorf("%s through %s: %w", cell.name, t.name, err)
				}
				if results[cell.name] == nil {
					results[cell.name] = make(map[string][]sample)
				}
				results[cell.name][t.name] = append(results[cell.name][t.name], s)
			}
		}
	}
	report(targets, results)
	if idle > 0 {
		return measureIdle(daemon, idle)
	}
	return nil
}

func report(targets []target, results map[string]map[string][]sample) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "cell\ttarget\tmedian\tunit\tx floor (median of rounds)\tCPU us/op (least)\t")
	for _, cell := range cells {
		for _, t := range targets {
			own, floor := results[cell.name][t.name], results[cell.name]["floor"]
			var rate, ratio, cpu []float64
			for i, s := range own {
				rate = append(rate, s.rate)
				ratio = append(ratio, s.rate/floor[i].rate)
				cpu = append(cpu, s.cpu)
			}
			spent := "-"
			if t.pid != 0 {
				spent = fmt.Sprintf("%.1f", slices.Min(cpu))
			}
			fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\t%.2f\t%s\t\n", cell.name, t.name, median(rate), cell.unit, median(ratio), spent)
		}
	}
	w.Flush()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// startIdentified runs a pair of daemons: the network daemon asks the process daemon
// which program of this process's tree each connection is of.
func startIdentified(bin, who, dir string) (t target, stop func(), err error) {
	o := daemonOptions{bin: bin, dir: dir, name: "identified", port: 3130, identity: "process", runDir: filepath.Join(dir, "run")}
	if err := errors.Join(os.Mkdir(o.runDir, 0o777), os.Chmod(o.runDir, 0o777)); err != nil {
		return target{}, nil, err
	}
	t, stopDaemon, err := startDaemon(o)
	if err != nil {
		return target{}, nil, err
	}
	cmd := exec.Command(who, "attach", "--pid", strconv.Itoa(os.Getpid()), "--run-dir", o.runDir, "--network-uid", strconv.Itoa(uid),
		"--admin-listen", "", "--log-level", "warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		stopDaemon()
		return target{}, nil, err
	}
	t.helps = cmd.Process.Pid
	stop = func() {
		stopDaemon()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := dial(t, echoPort)
		if err == nil {
			c.Close()
			return t, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return target{}, nil, fmt.Errorf("nobody is identified: %w", err)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// startDaemon runs the network daemon as a standalone proxy without privilege.
func startDaemon(o daemonOptions) (t target, stop func(), err error) {
	policy := filepath.Join(o.dir, "policy.yaml")
	if err := os.WriteFile(policy, fmt.Appendf(nil, policyText, world.Address), 0o644); err != nil {
		return target{}, nil, err
	}
	if err := os.Chmod(o.dir, 0o777); err != nil {
		return target{}, nil, err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return target{}, nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))
	cmd := o.command(policy, addr, filepath.Join(o.dir, o.name))
	if err := cmd.Start(); err != nil {
		return target{}, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if err := waitFor(addr); err != nil {
		stop()
		return target{}, nil, err
	}
	return target{name: o.name, proxy: addr, pid: cmd.Process.Pid}, stop, nil
}
