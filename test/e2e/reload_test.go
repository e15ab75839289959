package e2e_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

// reloadPolicy allows everything below /ok, and what some of its versions do not:
// /sometimes, the raw port 7022 and the WebSocket's texts.
func reloadPolicy(version int, sometimes bool) string {
	text := fmt.Sprintf("# version %d\n", version) + "version: 1\n" + who + `network_policies:
  site:
    endpoints:
      - {host: api.demo.test, port: 7011, path: "/ok/**", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/ok/**"}}, {allow: {method: POST, path: "/ok/**"}}]}
      - {host: api.demo.test, port: 7011, path: "/ws", protocol: websocket, enforcement: enforce, access: read-write}
      - {host: api.demo.test, port: 7021, protocol: tcp}
`
	if sometimes {
		text += `      - {host: api.demo.test, port: 7011, path: "/sometimes", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/sometimes"}}]}
      - {host: api.demo.test, port: 7011, path: "/ws-quiet", protocol: websocket, enforcement: enforce, access: read-write}
      - {host: api.demo.test, port: 7022, protocol: tcp}
`
	}
	return text + "    binaries: [{path: /usr/bin/curl}]\n"
}

// configMap is a folder as the kubelet keeps it: policy.yaml is a link through ..data.
type configMap struct {
	t   *testing.T
	dir string
	n   int
}

func newConfigMap(t *testing.T, text string) *configMap {
	t.Helper()
	dir, err := os.MkdirTemp("", "splitpod-map-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	m := &configMap{t: t, dir: dir}
	m.swap(text)
	must(t, os.Symlink("..data/policy.yaml", dir+"/policy.yaml"))
	return m
}

// swap puts a new version in place as the kubelet does.
func (m *configMap) swap(text string) {
	m.n++
	name := fmt.Sprintf("..version_%d", m.n)
	must(m.t, os.Mkdir(filepath.Join(m.dir, name), 0o755))
	must(m.t, os.WriteFile(filepath.Join(m.dir, name, "policy.yaml"), []byte(text), 0o644))
	must(m.t, os.Symlink(name, m.dir+"/..data_tmp"))
	must(m.t, os.Rename(m.dir+"/..data_tmp", m.dir+"/..data"))
	if m.n > 2 {
		must(m.t, os.RemoveAll(filepath.Join(m.dir, fmt.Sprintf("..version_%d", m.n-2))))
	}
}

// rawEcho is an origin that sends everything back.
func rawEcho(t *testing.T, port int) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, fmt.Sprint(port)))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
}

func newReloadWorld(t *testing.T, m *configMap, args ...string) *clientWorld {
	t.Helper()
	w := &clientWorld{site: startSite(t)}
	rawEcho(t, 7021)
	rawEcho(t, 7022)
	w.pair = standalone(t, reloadPolicy(0, true), append([]string{"--policy", m.dir + "/policy.yaml"}, args...)...)
	return w
}

// loads is how many versions of the policy were put in force.
func (p *pair) loads() int { return strings.Count(p.network.out.String(), `"policy_loaded"`) }

// ping sends bytes through a raw tunnel and back.
func ping(c net.Conn) error {
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	buf := make([]byte, 4)
	_, err := io.ReadFull(c, buf)
	if err == nil && string(buf) != "ping" {
		err = fmt.Errorf("got %q", buf)
	}
	return err
}

// TestAHundredReloadsASecond (H8, F11): under keep-alive requests, HTTP/2 streams, a
// WebSocket and a raw tunnel, none of which any version forbids, nothing fails; what
// no version allows is refused every time.
func TestAHundredReloadsASecond(t *testing.T) {
	m := newConfigMap(t, reloadPolicy(0, true))
	w := newReloadWorld(t, m)
	before := w.loads()
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	var wg sync.WaitGroup
	var counts [4]atomic.Int64
	load := func(kind int, what string, once func() error) {
		wg.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond) // or they would take the machine from each other
			defer pace.Stop()
			for ; ctx.Err() == nil; <-pace.C {
				if err := once(); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				counts[kind].Add(1)
			}
		})
	}
	for _, version := range []int{1, 1, 2, 2} {
		c := w.client(version)
		load(version-1, fmt.Sprintf("HTTP/%d", version), func() error { return expect(c, "/ok/hello", 200) })
		load(version-1, fmt.Sprintf("HTTP/%d, with a body", version), func() error { return post(c, "/ok/echo") })
		load(version-1, fmt.Sprintf("HTTP/%d, denied", version), func() error { return expect(c, "/never", 403) })
		load(version-1, fmt.Sprintf("HTTP/%d, sometimes", version), func() error {
			if err := expect(c, "/sometimes", 403, 404); errors.Is(err, errAnswer) {
				return err
			}
			return nil // or its response was cut
		})
	}
	conn := w.websocketDial(t, "/ws")
	load(2, "WebSocket", func() error {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			return err
		}
		_, data, err := conn.Read(t.Context())
		if err == nil && string(data) != "hello" {
			err = fmt.Errorf("got %q", data)
		}
		return err
	})
	raw, _ := connect(t, "api.demo.test:7021")
	load(3, "raw tunnel", func() error { return ping(raw) })

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	enough := func() bool { // a machine that is busy otherwise takes several swaps together, and longer
		return w.loads()-before >= 100 && !slices.ContainsFunc([]int{0, 1, 2, 3}, func(kind int) bool { return counts[kind].Load() < 10 })
	}
	swaps, start := 0, time.Now()
	for (swaps < 400 || !enough()) && ctx.Err() == nil && !t.Failed() {
		<-tick.C
		swaps++
		m.swap(reloadPolicy(swaps, swaps%2 == 0))
	}
	if !enough() && !t.Failed() {
		t.Errorf("only %d reloads of %d swaps", w.loads()-before, swaps)
	}
	stop()
	wg.Wait()
	t.Logf("%d swaps, %d reloads in %s; %d requests over HTTP/1, %d over HTTP/2, %d messages, %d turns of the tunnel",
		swaps, w.loads()-before, time.Since(start), counts[0].Load(), counts[1].Load(), counts[2].Load(), counts[3].Load())
	if slices.Contains(w.site.arrived(), "GET /never") {
		t.Error("what no version allows arrived")
	}
	last := reloadPolicy(swaps+1, false) // allows no /sometimes, the one before it does
	m.swap(reloadPolicy(swaps, true))
	m.swap(last)
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(last)))
	eventually(t, "the last version", func() bool { return strings.Contains(w.network.out.String(), "sha256 "+digest) })
	must(t, expect(w.client(1), "/sometimes", 403))
}

// post makes a request that no client makes twice.
func post(c *http.Client, path string) error {
	resp, err := c.Post(siteURL+path, "text/plain", strings.NewReader("0123456789"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "got 10" {
		return fmt.Errorf("%s: %w: %s %s %v", path, errAnswer, resp.Status, body, err)
	}
	return nil
}

// errAnswer is a complete answer that is wrong.
var errAnswer = errors.New("a wrong answer")

// expect makes a request that is answered with one of statuses.
func expect(c *http.Client, path string, statuses ...int) error {
	resp, err := c.Get(siteURL + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	for _, s := range statuses {
		if resp.StatusCode == s {
			return nil
		}
	}
	return fmt.Errorf("%s: %w: %s %s", path, errAnswer, resp.Status, body)
}

// TestAReloadEndsWhatItForbidsAndNothingElse (A25, rows 89 and 90).
func TestAReloadEndsWhatItForbidsAndNothingElse(t *testing.T) {
	m := newConfigMap(t, reloadPolicy(0, true))
	w := newReloadWorld(t, m)
	c := w.client(1)
	must(t, expect(c, "/sometimes", 404))
	kept, _ := connect(t, "api.demo.test:7021")
	revoked, _ := connect(t, "api.demo.test:7022")
	must(t, ping(kept))
	must(t, ping(revoked))
	keptSocket, revokedSocket := w.websocketDial(t, "/ws"), w.websocketDial(t, "/ws-quiet")
	streamed := map[int]io.ReadCloser{}
	for _, version := range []int{1, 2} { // responses under way
		resp, err := w.client(version).Get(siteURL + "/ok/events")
		must(t, err)
		streamed[version] = resp.Body
		defer resp.Body.Close()
	}

	m.swap(reloadPolicy(1, false))

	if err := ping(revoked); err == nil { // it may have been quicker
		_, err = io.ReadAll(revoked)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the revoked tunnel goes on")
		}
	}
	_, _, err := revokedSocket.Read(t.Context())
	if websocket.CloseStatus(err) != 1012 {
		t.Errorf("the revoked WebSocket ends with %v, want 1012", err)
	}
	if err := expect(c, "/sometimes", 403); err != nil {
		t.Errorf("on the kept connection: %v", err)
	}
	must(t, ping(kept))
	must(t, keptSocket.Write(t.Context(), websocket.MessageText, []byte("x")))
	if _, _, err := keptSocket.Read(t.Context()); err != nil {
		t.Errorf("the other WebSocket: %v", err)
	}
	for version, body := range streamed {
		buf := make([]byte, 9)
		if _, err := io.ReadFull(body, buf); err != nil || string(buf) != "data: 0\n\n" {
			t.Errorf("the stream over HTTP/%d: %q, %v", version, buf, err)
		}
	}
	whole := make(chan struct{})
	defer close(whole)
	go func() {
		for {
			select {
			case w.site.slow <- struct{}{}:
			case <-whole:
				return
			}
		}
	}()
	for version, body := range streamed {
		if rest, err := io.ReadAll(body); err != nil || !strings.HasSuffix(string(rest), "data: 4\n\n") {
			t.Errorf("the rest of the stream over HTTP/%d: %q, %v", version, rest, err)
		}
	}
}

// TestARevokedResponseEnds: a response under way of a request that is no longer
// allowed is cut, and not to be taken for complete.
func TestARevokedResponseEnds(t *testing.T) {
	m := newConfigMap(t, reloadPolicy(0, true))
	w := newReloadWorld(t, m)
	bodies := map[int]io.ReadCloser{}
	for _, version := range []int{1, 2} {
		resp, err := w.client(version).Get(siteURL + "/ok/events")
		must(t, err)
		bodies[version] = resp.Body
		defer resp.Body.Close()
	}
	m.swap(strings.ReplaceAll(reloadPolicy(1, false), "/ok/**", "/other/**"))
	for version, body := range bodies {
		if data, err := io.ReadAll(body); err == nil {
			t.Errorf("HTTP/%d: the response ends as if complete: %q", version, data)
		}
	}
	eventually(t, "records of both", func() bool {
		n := 0
		for _, r := range w.connectionRecords() {
			if r.Unmapped.Reason == "policy_changed" {
				n++
			}
		}
		return n >= 2
	})
}

// TestAnEditorsRenameIsSeen, and so is a write in place.
func TestAnEditorsRenameIsSeen(t *testing.T) {
	w := &clientWorld{site: startSite(t)}
	w.pair = standalone(t, reloadPolicy(0, true))
	c := w.client(1)
	must(t, expect(c, "/sometimes", 404))
	w.policy(reloadPolicy(1, false)) // a rename
	eventually(t, "the renamed version", func() bool { return expect(c, "/sometimes", 403) == nil })
	must(t, os.WriteFile(w.pair.dir+"/config/policy.yaml", []byte(reloadPolicy(2, true)), 0o644))
	eventually(t, "the version written in place", func() bool { return expect(c, "/sometimes", 404) == nil })
}

// TestAFolderThatIsNeverQuiet does not keep a new version out.
func TestAFolderThatIsNeverQuiet(t *testing.T) {
	w := &clientWorld{site: startSite(t)}
	w.pair = standalone(t, reloadPolicy(0, true))
	c := w.client(1)
	must(t, expect(c, "/sometimes", 404))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_ = os.WriteFile(w.pair.dir+"/config/noise", []byte(fmt.Sprint(i)), 0o644)
			}
		}
	})
	w.policy(reloadPolicy(1, false))
	eventually(t, "the new version", func() bool { return expect(c, "/sometimes", 403) == nil })
	close(stop)
	wg.Wait()
}

// TestAnInvalidCandidate (row 91) keeps what is in force, or denies everything, as
// configured; the next valid one decides again.
func TestAnInvalidCandidate(t *testing.T) {
	for setting, status := range map[string]int{"keep": 404, "deny": 403} {
		t.Run(setting, func(t *testing.T) {
			m := newConfigMap(t, reloadPolicy(0, true))
			w := newReloadWorld(t, m, "--invalid-policy", setting)
			c := w.client(1)
			must(t, expect(c, "/sometimes", 404))
			tunnel, _ := connect(t, "api.demo.test:7021")
			must(t, ping(tunnel))
			m.swap("version: 1\nnetwork_policies: {x: {endpoints: 5}}\n")
			eventually(t, "the finding", func() bool { return strings.Contains(w.network.out.String(), `"policy_invalid"`) })
			if err := expect(w.client(1), "/sometimes", status); (err == nil) == (setting == "deny") {
				t.Errorf("a new connection: %v", err) // with deny there is not even a tunnel
			}
			if setting == "deny" {
				_, resp := connect(t, "api.demo.test:7011")
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 403 || !strings.Contains(string(body), `"not_ready"`) || !strings.Contains(string(body), "no policy is in force") {
					t.Errorf("a CONNECT is answered %s %s, %v", resp.Status, body, err)
				}
			}
			err := ping(tunnel)
			if err == nil && setting == "deny" { // it may have been quicker
				_, err = io.ReadAll(tunnel)
				if err == nil {
					err = io.EOF
				}
			}
			if (err != nil) != (setting == "deny") || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the tunnel: %v", err)
			}
			m.swap(reloadPolicy(0, true)) // what was in force before, to the letter
			eventually(t, "the valid version", func() bool { return expect(w.client(1), "/sometimes", 404) == nil })
		})
	}
}

// TestANodeWithoutWatchersIsPolled: inotify's are as many for one user on a node as others
// leave; without any a daemon starts, and a change of its files takes longer.
func TestANodeWithoutWatchersIsPolled(t *testing.T) {
	need.Root(t)
	for _, none := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(none, func(t *testing.T) {
			t.Parallel() // each waits for a poll
			dir, port := t.TempDir(), map[string]string{"max_inotify_instances": "13901", "max_inotify_watches": "13902"}[none]
			for name, text := range map[string]string{"policy": "version: 1\n", "secret": "x", "credentials": "version: 1\ncredentials: {KEY: {file: " + dir + "/secret, bindings: [{host: a.test, port: 443}]}}\n"} {
				must(t, os.WriteFile(dir+"/"+name, []byte(text), 0o600))
			}
			d := start(t, "unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/`+none+` && exec "$@"`, "sh",
				binary(t, "supervisor-network"), "serve", "--policy", dir+"/policy", "--credentials", dir+"/credentials", "--state-dir", dir,
				"--listen", "127.0.0.1:0", "--identity", "ignore", "--admin-listen", "127.0.0.1:"+port)
			defer func() {
				d.kill(syscall.SIGKILL)
				<-d.ended
			}()
			says := func(text string) func() bool {
				return func() bool {
					select {
					case <-d.ended:
						t.Fatalf("the daemon ended: %s", d.err)
					default:
					}
					_, body := fetch(t, "http://127.0.0.1:"+port+"/readyz?verbose")
					return strings.Contains(string(body), text)
				}
			}
			eventually(t, "the first policy", says("generation 1"))
			must(t, os.WriteFile(dir+"/policy", []byte("version: 1 # another\n"), 0o600))
			eventually(t, "the second", says("generation 2"))
		})
	}
}
