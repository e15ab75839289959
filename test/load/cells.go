package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

// Ports of the raw origins.
const (
	echoPort  = "9001" // sends back what it gets
	flowPort  = "9002" // sends zeros for ever, or swallows
	pieceSize = 128 << 10
)

// sample is one measurement of one cell.
type sample struct {
	rate float64 // in the cell's unit
	cpu  float64 // microseconds of the target's CPU time per operation
}

// cell is one thing to measure.
type cell struct {
	name, unit string
	clients    int
	// work does operations until stop is closed and returns how many.
	work func(t target, stop <-chan struct{}) (float64, error)
}

var cells = []cell{
	{"connect c1", "conn/s", 1, connects},
	{"connect c16", "conn/s", 16, connects},
	{"echo 1 KiB c1", "op/s", 1, echoes},
	{"echo 1 KiB c16", "op/s", 16, echoes},
	{"download", "MiB/s", 1, downloads},
	{"upload", "MiB/s", 1, uploads},
}

func (c cell) measure(t target, dur time.Duration) (sample, error) {
	stop := make(chan struct{})
	before := cpuTime(t.pid) + cpuTime(t.helps)
	start := time.Now()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total float64
		errs  []error
	)
	for range c.clients {
		wg.Go(func() {
			n, err := c.work(t, stop)
			mu.Lock()
			defer mu.Unlock()
			total += n
			errs = append(errs, err)
		})
	}
	time.Sleep(dur)
	close(stop)
	wg.Wait()
	spent := cpuTime(t.pid) + cpuTime(t.helps) - before
	return sample{rate: total / time.Since(start).Seconds(), cpu: float64(spent.Microseconds()) / max(total, 1)}, errors.Join(errs...)
}

// dial opens a connection to the origin's port the target's way.
func dial(t target, port string) (*net.TCPConn, error) {
	to := net.JoinHostPort(world.Address, port)
	first := to
	if t.proxy != "" {
		first = t.proxy
	}
	c, err := net.Dial("tcp", first)
	if err != nil {
		return nil, err
	}
	if t.proxy == "" {
		return c.(*net.TCPConn), nil
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	buf := make([]byte, 512)
	n := 0
	for !strings.Contains(string(buf[:n]), "\r\n\r\n") {
		k, err := c.Read(buf[n:])
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("answer to CONNECT: %w", err)
		}
		n += k
	}
	if !strings.Contains(string(buf[:n]), " 200 ") {
		c.Close()
		return nil, fmt.Errorf("answer to CONNECT: %q", buf[:n])
	}
	return c.(*net.TCPConn), nil
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

func connects(t target, stop <-chan struct{}) (n float64, err error) {
	for !stopped(stop) {
		c, err := dial(t, echoPort)
		if err != nil {
			return n, err
		}
		_ = c.SetLinger(0)
		c.Close()
		n++
	}
	return n, nil
}

func echoes(t target, stop <-chan struct{}) (n float64, err error) {
	c, err := dial(t, echoPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	out, in := make([]byte, 1024), make([]byte, 1024)
	for !stopped(stop) {
		if _, err := c.Write(out); err != nil {
			return n, err
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func downloads(t target, stop <-chan struct{}) (float64, error) {
	c, err := dial(t, flowPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("d")); err != nil {
		return 0, err
	}
	return flow(c.Read, stop)
}

func uploads(t target, stop <-chan struct{}) (float64, error) {
	c, err := dial(t, flowPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("u")); err != nil {
		return 0, err
	}
	return flow(c.Write, stop)
}

// flow moves bytes with f until stop and returns MiB.
func flow(f func([]byte) (int, error), stop <-chan struct{}) (float64, error) {
	buf := make([]byte, pieceSize)
	var total float64
	for !stopped(stop) {
		n, err := f(buf)
		if err != nil {
			return total, err
		}
		total += float64(n) / (1 << 20)
	}
	return total, nil
}

// startOrigins serves the raw ports.
func startOrigins(ctx context.Context) error {
	for port, serve := range map[string]func(*net.TCPConn){echoPort: serveEcho, flowPort: serveFlow} {
		if err := listenAndServe(ctx, net.JoinHostPort(world.Address, port), serve); err != nil {
			return err
		}
	}
	return nil
}

func listenAndServe(ctx context.Context, addr string, serve func(*net.TCPConn)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return nil
}

func serveEcho(c *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func serveFlow(c *net.TCPConn) {
	buf := make([]byte, pieceSize)
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return
	}
	move := c.Read
	if buf[0] == 'd' {
		move = c.Write
	}
	for {
		if _, err := move(buf); err != nil {
			return
		}
	}
}

// floorAddress is where the floor listens.
const floorAddress = "127.0.0.1:3129"

// startFloor runs the floor in a process of its own, as the daemon is.
func startFloor() (t target, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return target{}, nil, err
	}
	cmd := exec.Command(self, floorRole)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return target{}, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if err := waitFor(floorAddress); err != nil {
		stop()
		return target{}, nil, err
	}
	return target{name: "floor", proxy: floorAddress, pid: cmd.Process.Pid}, stop, nil
}

// floorRole is the argument that makes this program the floor.
const floorRole = "be-the-floor"

// floor is the least a Go relay can do: CONNECT, then io.Copy, which splices.
func floor(ctx context.Context) error {
	err := listenAndServe(ctx, floorAddress, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReaderSize(c, 1024))
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		defer up.Close()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		var once atomic.Bool
		done := make(chan struct{})
		end := func() {
			if once.CompareAndSwap(false, true) {
				close(done)
			}
		}
		go func() { _, _ = io.Copy(up, c); end() }()
		go func() { _, _ = io.Copy(c, up); end() }()
		<-done
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func waitFor(addr string) error {
	var err error
	for range 200 {
		var c net.Conn
		if c, err = net.Dial("tcp", addr); err == nil {
			c.Close()
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("the daemon did not open %s: %w", addr, err)
}

// cpuTime is the user and system time of a process so far.
func cpuTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// measureIdle opens tunnels that do nothing and reads what the daemon spends.
func measureIdle(t target, n int) error {
	rss, fds := residentKiB(t.pid), descriptors(t.pid)
	var open []*net.TCPConn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range n {
		c, err := dial(t, echoPort)
		if err != nil {
			return fmt.Errorf("idle tunnel %d: %w", len(open), err)
		}
		open = append(open, c)
	}
	time.Sleep(time.Second)
	fmt.Printf("\nidle: %d tunnels, %.1f KiB resident and %.2f descriptors each\n", n,
		float64(residentKiB(t.pid)-rss)/float64(n), float64(descriptors(t.pid)-fds)/float64(n))
	return nil
}

func residentKiB(pid int) int { return statusKiB(pid, "VmRSS:") }

func statusKiB(pid int, field string) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

func descriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}
