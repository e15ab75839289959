// Command agent is the workload of the cluster's tests: it asks, connects, holds
// connections open and says what happened, a JSON line each, so that a test compares
// facts and not a tool's wording. `agent pause` is the image of every pod's first
// container. It is static, so that its image needs no library.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		os.Args = append(os.Args, "pause")
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "pause":
		wait := make(chan os.Signal, 1)
		signal.Notify(wait, syscall.SIGTERM, syscall.SIGINT)
		<-wait
	case "get":
		get(args[0])
	case "dial":
		for _, target := range args {
			dial(target)
		}
	case "lines":
		lines()
	case "load":
		load(args[0])
	case "tunnels":
		n, _ := strconv.Atoi(args[1])
		tunnels(args[0], n)
	case "denied":
		denied(args[0])
	case "knock":
		knock(args[0])
	case "eat":
		eat()
	default:
		fmt.Fprintln(os.Stderr, "agent: unknown command", os.Args[1])
		os.Exit(64)
	}
}

// patience is longer than anything that comes, however busy the machine is.
const patience = 2 * time.Minute

func say(v any) {
	line, _ := json.Marshal(v)
	fmt.Println(string(line))
}

func proxy() string {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		if u, err := url.Parse(os.Getenv(name)); err == nil && u.Host != "" {
			return u.Host
		}
	}
	return ""
}

// get asks for one URL through the proxy, as an ordinary client does.
func get(target string) {
	client := &http.Client{Timeout: patience}
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		say(map[string]any{"error": err.Error()})
		os.Exit(64)
	}
	resp, err := client.Do(req)
	if err != nil {
		say(map[string]any{"error": err.Error()})
		os.Exit(1)
	}
	defer resp.Body.Close()
	say(map[string]any{"status": resp.StatusCode})
}

// dial tries one way around the proxy: NETWORK/ADDRESS.
func dial(target string) {
	network, addr, _ := strings.Cut(target, "/")
	conn, err := net.DialTimeout(network, addr, 30*time.Second)
	if err == nil && strings.HasPrefix(network, "udp") { // the answer to the first datagram comes with the second
		_, _ = conn.Write([]byte("x"))
		time.Sleep(50 * time.Millisecond)
		_, err = conn.Write([]byte("x"))
	}
	outcome := "open"
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		outcome = "timeout"
	case err != nil:
		outcome = "refused"
	}
	say(map[string]any{"target": target, "outcome": outcome, "error": fmt.Sprint(err)})
}

// lines answers every line with a number and this process's id: whoever reads sees
// whether it is the same process, with the same standard files.
func lines() {
	say(map[string]any{"pid": os.Getpid(), "started": time.Now().UnixNano()})
	go func() {
		wait := make(chan os.Signal, 1)
		signal.Notify(wait, syscall.SIGTERM)
		<-wait
		os.Exit(0)
	}()
	n := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n++
		say(map[string]any{"pid": os.Getpid(), "n": n, "line": in.Text()})
	}
	select {} // whoever asked is gone; this goes on
}

// connect opens a tunnel and returns it.
func connect(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", proxy(), patience)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr); err != nil {
		c.Close()
		return nil, fmt.Errorf("ask: %w", err)
	}
	in := bufio.NewReader(c) // nobody speaks first behind the head
	status, err := in.ReadString('\n')
	for line := status; err == nil && strings.TrimSpace(line) != ""; {
		line, err = in.ReadString('\n')
	}
	if err != nil || !strings.Contains(status, " 200 ") {
		c.Close()
		return nil, fmt.Errorf("answer %q: %w", status, errors.Join(err, errors.New("not 200")))
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// ending is closed by a line on standard input: signals do not cross from one session
// of a sandbox to another.
func ending() <-chan struct{} {
	end := make(chan struct{})
	go func() {
		if bufio.NewScanner(os.Stdin).Scan() {
			close(end)
		}
	}()
	return end
}

// load opens a new tunnel every 10 ms, says every second how it went, and ends when it
// is told to. A connection that waits is not a failure; one that is refused is.
func load(addr string) {
	var ok, failed, waiting atomic.Int64
	var mu sync.Mutex
	worst, last := time.Duration(0), ""
	report := func(final bool) {
		mu.Lock()
		defer mu.Unlock()
		say(map[string]any{"pid": os.Getpid(), "ok": ok.Load(), "failed": failed.Load(), "waiting": waiting.Load(),
			"worst_ms": worst.Milliseconds(), "last": last, "final": final})
	}
	end := ending()
	tick, second := time.NewTicker(10*time.Millisecond), time.NewTicker(time.Second)
	for {
		select {
		case <-end:
			report(true)
			return
		case <-second.C:
			report(false)
		case <-tick.C:
			waiting.Add(1)
			go func() {
				defer waiting.Add(-1)
				start := time.Now()
				c, err := connect(addr)
				mu.Lock()
				worst = max(worst, time.Since(start))
				mu.Unlock()
				if err != nil {
					failed.Add(1)
					mu.Lock()
					last = err.Error()
					mu.Unlock()
					return
				}
				ok.Add(1)
				c.Close()
			}()
		}
	}
}

// tunnels opens n of them, some at one time, keeps them, and says when they end.
func tunnels(addr string, n int) {
	var open, ended atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c, err := connect(addr)
			if err != nil {
				say(map[string]any{"error": err.Error(), "open": open.Load()})
				return
			}
			open.Add(1)
			go func() {
				_, _ = c.Read(make([]byte, 1))
				open.Add(-1)
				ended.Add(1)
			}()
		})
	}
	wg.Wait()
	for {
		say(map[string]any{"pid": os.Getpid(), "open": open.Load(), "ended": ended.Load()})
		time.Sleep(200 * time.Millisecond)
	}
}

// denied asks for something that is refused, again and again until it is told to end,
// and says how often it was told so.
func denied(target string) {
	end := ending()
	told := 0
	for {
		select {
		case <-end:
			say(map[string]any{"pid": os.Getpid(), "told": told, "final": true})
			return
		default:
		}
		client := &http.Client{Timeout: patience}
		if resp, err := client.Get(target); err == nil {
			if resp.StatusCode == http.StatusForbidden {
				told++
			}
			resp.Body.Close()
		}
		client.CloseIdleConnections()
		if told == 1 {
			say(map[string]any{"pid": os.Getpid(), "told": told})
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// knock tries one way around the proxy, ADDRESS over TCP, again and again until it is
// told to end, and says how often it was open.
func knock(addr string) {
	end := ending()
	tried, opened := 0, 0
	for {
		select {
		case <-end:
			say(map[string]any{"pid": os.Getpid(), "tried": tried, "opened": opened, "final": true})
			return
		default:
		}
		if c, err := net.DialTimeout("tcp", addr, 5*time.Second); err == nil {
			opened++
			c.Close()
		}
		if tried++; tried == 1 {
			say(map[string]any{"pid": os.Getpid(), "tried": tried})
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// eat takes memory until it is stopped.
func eat() {
	say(map[string]any{"pid": os.Getpid()})
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		_ = all
	}
}
