package sshd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/pkg/core"
)

// half is one direction of a connection, with room for what nobody has read yet: both
// ends of SSH begin by writing.
type half struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte // guarded by mu
	closed bool   // guarded by mu
	silent bool   // guarded by mu; nothing arrives any more
}

func (h *half) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.closed && (len(h.data) == 0 || h.silent) {
		h.change.Wait()
	}
	if len(h.data) == 0 || h.silent {
		return 0, io.EOF
	}
	n := copy(p, h.data)
	h.data = h.data[n:]
	return n, nil
}

func (h *half) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	h.data = append(h.data, p...)
	h.change.Broadcast()
	return len(p), nil
}

func (h *half) set(field *bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*field = true
	h.change.Broadcast()
}

// wire is one end of a connection.
type wire struct {
	net.Conn // what nobody uses
	in, out  *half
}

func (e wire) Read(p []byte) (int, error)  { return e.in.Read(p) }
func (e wire) Write(p []byte) (int, error) { return e.out.Write(p) }
func (e wire) Close() error                { e.in.set(&e.in.closed); e.out.set(&e.out.closed); return nil }
func (e wire) SetDeadline(time.Time) error { return nil }
func (e wire) LocalAddr() net.Addr         { return &net.UnixAddr{} }
func (e wire) RemoteAddr() net.Addr        { return &net.UnixAddr{} }

func newWire() (client, server wire) {
	a, b := &half{}, &half{}
	a.change.L, b.change.L = &a.mu, &b.mu
	return wire{in: a, out: b}, wire{in: b, out: a}
}

// program is what the server launches here.
type program struct {
	request Request
	exit    chan core.Exit
	signals chan syscall.Signal
}

func (p *program) Wait(ctx context.Context) (core.Exit, error) {
	select {
	case e := <-p.exit:
		for _, f := range p.request.Files {
			f.Close()
		}
		return e, nil
	case <-ctx.Done():
		return core.Exit{}, ctx.Err()
	}
}

func (p *program) Signal(sig syscall.Signal) error {
	p.signals <- sig
	if sig == syscall.SIGKILL {
		p.exit <- core.Exit{Code: 137, Signal: 9}
	}
	return nil
}

// testServer launches programs and hands them to the test.
func testServer(t *testing.T, change func(*Config)) (*Server, chan *program) {
	t.Helper()
	launched := make(chan *program, 100)
	cfg := Config{
		Admit: func(net.Conn) error { return nil }, Log: slog.New(slog.DiscardHandler),
		Launch: func(_ context.Context, r Request) (launch.Program, error) {
			p := &program{r, make(chan core.Exit, 4), make(chan syscall.Signal, 16)}
			launched <- p
			return p, nil
		},
		Dial: func(context.Context, string, uint16) (net.Conn, error) { return nil, errors.New("nobody listens") },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, launched
}

// dial logs in.
func dial(s *Server, user string, auth ...gossh.AuthMethod) (*gossh.Client, wire, error) {
	client, server := newWire()
	go s.Serve(server)
	conn, channels, requests, err := gossh.NewClientConn(client, "sandbox", &gossh.ClientConfig{
		User: user, Auth: auth, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		client.Close()
		return nil, client, err
	}
	return gossh.NewClient(conn, channels, requests), client, nil
}

func mustDial(t *testing.T, s *Server) *gossh.Client {
	t.Helper()
	c, _, err := dial(s, "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestAnyKeyWillDoWhereNoneIsNeeded: some clients (Paramiko) show one without having asked.
// This one does so because the first thing it asks, to need none, is refused here.
func TestAnyKeyWillDoWhereNoneIsNeeded(t *testing.T) {
	s, _ := testServer(t, nil)
	for name, tt := range map[string]struct {
		auth gossh.AuthMethod
		in   bool
	}{"a key": {gossh.PublicKeys(signer(t)), true}, "a password": {gossh.Password("x"), false}} {
		config := s.config(nil)
		config.AuthLogCallback = nil
		config.AddHostKey(signer(t))
		ours, theirs := newWire()
		go func() { _, _, _, _ = gossh.NewServerConn(theirs, config) }()
		_, _, _, err := gossh.NewClientConn(ours, "sandbox", &gossh.ClientConfig{User: "agent", Auth: []gossh.AuthMethod{tt.auth}, HostKeyCallback: gossh.InsecureIgnoreHostKey()})
		if (err == nil) != tt.in {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChannelsOfAConnectionAreLimited(t *testing.T) {
	s, _ := testServer(t, nil)
	c := mustDial(t, s)
	var open []*gossh.Session
	for i := range maxChannels {
		session, err := c.NewSession()
		if err != nil {
			t.Fatalf("channel %d of %d: %v", i+1, maxChannels, err)
		}
		open = append(open, session)
	}
	if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "too many channels") {
		t.Fatalf("channel %d: %v", maxChannels+1, err)
	}
	open[0].Close()
	again := func() bool { _, err := c.NewSession(); return err == nil }
	for deadline := time.Now().Add(time.Minute); !again(); {
		if time.Now().After(deadline) {
			t.Fatal("a channel that was closed is not given back")
		}
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s, _ := testServer(t, nil)
	var open []*gossh.Client
	for range maxConnections {
		open = append(open, mustDial(t, s))
	}
	if _, _, err := dial(s, "agent"); err == nil {
		t.Fatalf("connection %d was served", maxConnections+1)
	}
	open[0].Close()
	for deadline := time.Now().Add(time.Minute); ; {
		if _, _, err := dial(s, "agent"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a connection that ended is not given back")
		}
	}
}

// TestASilentHandshakeEnds, so that clients that only connect take no place for ever.
func TestASilentHandshakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := testServer(t, nil)
		client, server := newWire()
		go s.Serve(server)
		start := time.Now()
		text, _ := io.ReadAll(client)
		if took := time.Since(start); took != handshakeTimeout || !strings.HasPrefix(string(text), "SSH-2.0-Splitpod") {
			t.Errorf("ended after %s with %q, want %s", took, text, handshakeTimeout)
		}
	})
}

// TestAQuietSessionStays for hours, and one whose client is gone does not.
func TestAQuietSessionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, launched := testServer(t, nil)
		c, raw, err := dial(s, "agent")
		if err != nil {
			t.Fatal(err)
		}
		session, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Start("sleep"); err != nil {
			t.Fatal(err)
		}
		p := <-launched
		time.Sleep(5 * time.Hour)
		select {
		case sig := <-p.signals:
			t.Fatalf("a quiet session got %v", sig)
		default:
		}
		raw.in.set(&raw.in.silent) // the client hears nothing any more and answers nothing
		gone := time.Now()
		if sig := <-p.signals; sig != syscall.SIGHUP || time.Since(gone) > 4*keepalive {
			t.Errorf("got %v after %s", sig, time.Since(gone))
		}
		if sig := <-p.signals; sig != syscall.SIGCONT {
			t.Errorf("got %v, want SIGCONT", sig)
		}
		hungUp := time.Now()
		if sig := <-p.signals; sig != syscall.SIGKILL || time.Since(hungUp) != killAfter {
			t.Errorf("got %v after %s, want SIGKILL after %s", sig, time.Since(hungUp), killAfter)
		}
		raw.Close()
		synctest.Wait()
	})
}

// TestWhatAChannelStartedEndsWithIt, although its connection stays, and so does what its
// other channels started.
func TestWhatAChannelStartedEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, dialled := net.Pipe()
		s, launched := testServer(t, func(c *Config) {
			c.Dial = func(context.Context, string, uint16) (net.Conn, error) { return dialled, nil }
		})
		c := mustDial(t, s)
		start := func() (*gossh.Session, *program) {
			session, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := session.Start("sleep"); err != nil {
				t.Fatal(err)
			}
			return session, <-launched
		}
		_, other := start()
		session, p := start()
		session.Close()
		closed := time.Now()
		for _, want := range []syscall.Signal{syscall.SIGHUP, syscall.SIGCONT, syscall.SIGKILL} {
			if sig := <-p.signals; sig != want {
				t.Errorf("got %v, want %v", sig, want)
			}
		}
		if took := time.Since(closed); took != killAfter {
			t.Errorf("it was killed after %s, want %s", took, killAfter)
		}
		forwarded, err := c.Dial("tcp", "127.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		forwarded.Close()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the workload's server read %v, want the end", err)
		}
		select {
		case sig := <-other.signals:
			t.Errorf("the other session got %v", sig)
		default:
		}
		other.exit <- core.Exit{}
		c.Close()
		synctest.Wait()
	})
}

// TestASessionThatWantsNoWindowTakesItsSizes: a connection must not wait for a channel.
func TestASessionThatWantsNoWindowTakesItsSizes(t *testing.T) {
	s, launched := testServer(t, nil)
	c := mustDial(t, s)
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if err := session.RequestSubsystem("sftp"); err != nil {
		t.Fatal(err)
	}
	p := <-launched
	for i := range 100 {
		if err := session.WindowChange(i, i); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil { // answered behind them
		t.Error(err)
	}
	p.exit <- core.Exit{}
}

func TestSignalsGoInAndComeOut(t *testing.T) {
	s, launched := testServer(t, nil)
	for name, tt := range map[string]struct {
		exit   core.Exit
		signal string
		code   int
	}{
		"by itself": {core.Exit{Code: 7}, "", 7}, "by SIGTERM": {core.Exit{Code: 143, Signal: 15}, "TERM", 0},
		"by SIGSEGV": {core.Exit{Code: 139, Signal: 11}, "SEGV", 0}, "by a signal without a name": {core.Exit{Code: 128 + 31, Signal: 31}, "KILL", 0},
	} {
		session, err := mustDial(t, s).NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Start("x"); err != nil {
			t.Fatal(err)
		}
		p := <-launched
		if err := session.Signal(gossh.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if sig := <-p.signals; sig != syscall.SIGUSR1 {
			t.Errorf("%s: the program got %v", name, sig)
		}
		p.exit <- tt.exit
		e, ok := errors.AsType[*gossh.ExitError](session.Wait())
		if !ok || e.Signal() != tt.signal || tt.signal == "" && e.ExitStatus() != tt.code {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// TestEarlySignalsWaitForTheProgram in their order, more than can be meant are lost, and
// nothing is left of them when it has ended.
func TestEarlySignalsWaitForTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, launched := testServer(t, nil)
		c := mustDial(t, s)
		session, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		sent := []gossh.Signal{gossh.SIGUSR1, gossh.SIGUSR2, gossh.SIGTERM}
		for i := range 200 {
			if err := session.Signal(sent[i%len(sent)]); err != nil {
				t.Fatal(err)
			}
		}
		if err := session.Start("x"); err != nil {
			t.Fatal(err)
		}
		p := <-launched
		for i, want := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGUSR1} {
			if sig := <-p.signals; sig != want {
				t.Errorf("signal %d is %v, want %v", i+1, sig, want)
			}
		}
		synctest.Wait()
		p.exit <- core.Exit{}
		if err := session.Wait(); err != nil {
			t.Error(err)
		}
		c.Close()
		synctest.Wait()
	})
}

func TestOnlyHarmlessVariablesAreAccepted(t *testing.T) {
	s, launched := testServer(t, nil)
	session, err := mustDial(t, s).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"LANG": "C.UTF-8", "LC_ALL": "C", "TZ": "UTC", "COLORTERM": "truecolor", "LD_PRELOAD": "/tmp/x.so", "HTTPS_PROXY": "http://evil", "PATH": "/tmp",
		"BASH_ENV": "/tmp/x", "SSL_CERT_FILE": "/tmp/ca", "LC_LONG": strings.Repeat("x", 257), "LC_EDGE": strings.Repeat("x", 256), "LC_NUL": "a\x00b", "LC_LINE": "a\nb",
	} {
		_ = session.Setenv(name, value)
	}
	if err := session.Start("x"); err != nil {
		t.Fatal(err)
	}
	p := <-launched
	p.exit <- core.Exit{}
	slices.Sort(p.request.Environ)
	want := []string{"COLORTERM=truecolor", "LANG=C.UTF-8", "LC_ALL=C", "LC_EDGE=" + strings.Repeat("x", 256), "TZ=UTC"}
	if !slices.Equal(p.request.Environ, want) {
		t.Errorf("the program gets %q", p.request.Environ)
	}
}

// TestVariablesAreBounded: a client that sets them without end, and asks for no program.
func TestVariablesAreBounded(t *testing.T) {
	s, launched := testServer(t, nil)
	session, err := mustDial(t, s).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	set, value := 0, strings.Repeat("x", 200)
	for ; err == nil && set <= maxEnviron; set++ {
		err = session.Setenv(fmt.Sprintf("LC_%d", set), value)
	}
	if set--; err == nil || set*len(value) > maxEnviron {
		t.Fatalf("%d variables of %d bytes were taken (%v)", set, len(value), err)
	}
	if err := session.Start("x"); err != nil {
		t.Fatal(err)
	}
	p := <-launched
	p.exit <- core.Exit{}
	if got := len(p.request.Environ); got != set {
		t.Errorf("the program gets %d of %d variables", got, set)
	}
}

// TestForwardingReachesOnlyLoopback, however it is spelled.
func TestForwardingReachesOnlyLoopback(t *testing.T) {
	var dialled []string
	s, _ := testServer(t, func(c *Config) {
		c.Dial = func(_ context.Context, host string, _ uint16) (net.Conn, error) {
			dialled = append(dialled, host)
			return nil, errors.New("nobody listens")
		}
	})
	c := mustDial(t, s)
	for to, reason := range map[struct {
		host string
		port uint32
	}]gossh.RejectionReason{
		{"localhost", 80}: gossh.ConnectionFailed, {"127.0.0.1", 1}: gossh.ConnectionFailed, {"127.8.9.1", 65535}: gossh.ConnectionFailed, {"::1", 80}: gossh.ConnectionFailed,
		{"LocalHost", 80}: gossh.ConnectionFailed, {"[::1]", 80}: gossh.ConnectionFailed, {"0:0:0:0:0:0:0:1", 80}: gossh.ConnectionFailed, {"::ffff:127.0.0.1", 80}: gossh.ConnectionFailed,
		{"localhost", 0}: gossh.ConnectionFailed, {"localhost", 65536 + 80}: gossh.ConnectionFailed,
		{"10.0.0.1", 80}: gossh.Prohibited, {"0.0.0.0", 80}: gossh.Prohibited, {"::", 80}: gossh.Prohibited, {"169.254.169.254", 80}: gossh.Prohibited,
		{"localhost.evil.test", 80}: gossh.Prohibited, {"127.1", 80}: gossh.Prohibited, {"2130706433", 80}: gossh.Prohibited, {"", 80}: gossh.Prohibited,
		{"/run/splitpod/ssh.sock", 1}: gossh.Prohibited, {"127.0.0.1%eth0", 1}: gossh.Prohibited,
		{"::1%eth0", 1}: gossh.Prohibited, {"[::1", 1}: gossh.Prohibited, {"::1]", 1}: gossh.Prohibited, {"[localhost]", 1}: gossh.Prohibited, {"localhost.", 1}: gossh.Prohibited,
		{"::ffff:10.0.0.1", 1}: gossh.Prohibited,
	} {
		_, _, err := c.OpenChannel("direct-tcpip", gossh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{to.host, to.port, "127.0.0.1", 1}))
		if e, ok := errors.AsType[*gossh.OpenChannelError](err); !ok || e.Reason != reason {
			t.Errorf("%v: %v, want %v", to, err, reason)
		}
	}
	slices.Sort(dialled)
	if want := []string{"127.0.0.1", "127.0.0.1", "127.8.9.1", "::1", "::1", "::1", "localhost", "localhost"}; !slices.Equal(dialled, want) {
		t.Errorf("%q were dialled", dialled)
	}
}

func TestOtherChannelsAndRequestsAreRefused(t *testing.T) {
	s, _ := testServer(t, nil)
	c := mustDial(t, s)
	for _, kind := range []string{"x11", "auth-agent@openssh.com", "forwarded-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com"} {
		if _, _, err := c.OpenChannel(kind, nil); err == nil {
			t.Errorf("a channel %s was opened", kind)
		}
	}
	for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "no-such-request"} {
		if ok, _, err := c.SendRequest(kind, true, gossh.Marshal(struct {
			Host string
			Port uint32
		}{"0.0.0.0", 9999})); ok || err != nil {
			t.Errorf("%s: %t, %v", kind, ok, err)
		}
	}
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestSubsystem("no-such-subsystem; id"); err == nil {
		t.Error("an unknown subsystem was started")
	}
}

// TestOldAlgorithmsAreRefused: what a client insists on has to be strong.
func TestOldAlgorithmsAreRefused(t *testing.T) {
	for name, weak := range map[string]gossh.Config{
		"key exchange": {KeyExchanges: []string{"diffie-hellman-group1-sha1"}}, "group": {KeyExchanges: []string{"diffie-hellman-group14-sha1"}}, "group exchange": {KeyExchanges: []string{"diffie-hellman-group-exchange-sha1"}},
		"cipher": {Ciphers: []string{"3des-cbc"}}, "stream cipher": {Ciphers: []string{"arcfour"}}, "block cipher": {Ciphers: []string{"aes128-cbc"}},
		"authentication code": {Ciphers: []string{"aes128-ctr"}, MACs: []string{"hmac-sha1-96", "hmac-sha1"}},
	} {
		s, _ := testServer(t, nil)
		client, server := newWire()
		go s.Serve(server)
		_, _, _, err := gossh.NewClientConn(client, "sandbox", &gossh.ClientConfig{Config: weak, HostKeyCallback: gossh.InsecureIgnoreHostKey()})
		if err == nil {
			t.Errorf("a weak %s was accepted", name)
		}
		client.Close()
	}
}

// TestWhatIsNoSSHEnds in time, unanswered.
func TestWhatIsNoSSHEnds(t *testing.T) {
	for name, greeting := range map[string]string{
		"the first version of the protocol": "SSH-1.5-old\r\n", "an endless greeting": strings.Repeat("x", 1<<20), "no SSH at all": "GET / HTTP/1.0\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := testServer(t, nil)
			client, server := newWire()
			go s.Serve(server)
			_, _ = client.Write([]byte(greeting))
			start := time.Now()
			answer, _ := io.ReadAll(client)
			if len(answer) > 2048 || bytes.Contains(answer, []byte("sha1")) || time.Since(start) > handshakeTimeout {
				t.Errorf("%s: %d bytes, ended after %s: %q", name, len(answer), time.Since(start), answer)
			}
		})
	}
}

// signer makes a key.
func signer(t *testing.T) gossh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gossh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// certified has ca sign a certificate for user.
func certified(t *testing.T, ca, user gossh.Signer, change func(*gossh.Certificate)) gossh.Signer {
	t.Helper()
	cert := &gossh.Certificate{Key: user.PublicKey(), CertType: gossh.UserCert, ValidPrincipals: []string{"agent"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		Permissions: gossh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""}}}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	s, err := gossh.NewCertSigner(cert, user)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(s gossh.Signer) string { return string(gossh.MarshalAuthorizedKey(s.PublicKey())) }

func TestWhoMayLogIn(t *testing.T) {
	good, bad, ca, otherCA, named := signer(t), signer(t), signer(t), signer(t), signer(t)
	file := "# people\n\n" + line(good) + "cert-authority " + line(ca) + `cert-authority,principals="robot,agent2" ` + line(named)
	s, _ := testServer(t, func(c *Config) { c.Authorized = func() (*Authorized, error) { return ParseAuthorized([]byte(file)) } })
	user := signer(t)
	for name, tt := range map[string]struct {
		auth []gossh.AuthMethod
		ok   bool
	}{
		"nothing":                            {nil, false},
		"a password":                         {[]gossh.AuthMethod{gossh.Password("x")}, false},
		"an authorised key":                  {[]gossh.AuthMethod{gossh.PublicKeys(good)}, true},
		"another key":                        {[]gossh.AuthMethod{gossh.PublicKeys(bad)}, false},
		"another key, then the right one":    {[]gossh.AuthMethod{gossh.PublicKeys(bad, good)}, true},
		"the authority's own key":            {[]gossh.AuthMethod{gossh.PublicKeys(ca)}, false},
		"a certificate":                      {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, nil))}, true},
		"a certificate of another authority": {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, otherCA, user, nil))}, false},
		"a certificate signed by a user":     {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, good, user, nil))}, false},
		"an expired certificate": {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, func(c *gossh.Certificate) {
			c.ValidBefore = uint64(time.Now().Add(-time.Minute).Unix())
		}))}, false},
		"a certificate of tomorrow": {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, func(c *gossh.Certificate) {
			c.ValidAfter = uint64(time.Now().Add(time.Minute).Unix())
		}))}, false},
		"a certificate for another name": {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, func(c *gossh.Certificate) { c.ValidPrincipals = []string{"other"} }))}, false},
		"a host's certificate":           {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, func(c *gossh.Certificate) { c.CertType = gossh.HostCert }))}, false},
		"a certificate that demands what we cannot do": {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, func(c *gossh.Certificate) {
			c.CriticalOptions = map[string]string{"force-command": "true"}
		}))}, false},
		"a principal of the file":        {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, named, user, func(c *gossh.Certificate) { c.ValidPrincipals = []string{"robot"} }))}, true},
		"the login name, which is none":  {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, named, user, nil))}, false},
		"a principal of another's entry": {[]gossh.AuthMethod{gossh.PublicKeys(certified(t, ca, user, func(c *gossh.Certificate) { c.ValidPrincipals = []string{"robot"} }))}, false},
		"a changed certificate":          {[]gossh.AuthMethod{gossh.PublicKeys(changed(t, certified(t, ca, user, nil), user))}, false},
	} {
		c, _, err := dial(s, "agent", tt.auth...)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if c != nil {
			c.Close()
		}
	}
	file = line(bad) // the file is another now
	if _, _, err := dial(s, "agent", gossh.PublicKeys(good)); err == nil {
		t.Error("a key that was taken out of the file is accepted")
	}
	file = "" // and now it is broken
	if _, _, err := dial(s, "agent", gossh.PublicKeys(bad)); err == nil {
		t.Error("a file without keys lets somebody in")
	}
}

// changed adds a principal behind the authority's back.
func changed(t *testing.T, s, user gossh.Signer) gossh.Signer {
	t.Helper()
	cert := *s.PublicKey().(*gossh.Certificate)
	cert.ValidPrincipals = append(slices.Clone(cert.ValidPrincipals), "root")
	forged, err := gossh.NewCertSigner(&cert, user)
	if err != nil {
		t.Fatal(err)
	}
	return forged
}

// TestACertificatePermitsWhatItSays and no more, whatever else was offered before it.
func TestACertificatePermitsWhatItSays(t *testing.T) {
	ca, user := signer(t), signer(t)
	s, _ := testServer(t, func(c *Config) {
		c.Authorized = func() (*Authorized, error) { return ParseAuthorized([]byte("cert-authority " + line(ca))) }
	})
	narrow := certified(t, ca, user, func(c *gossh.Certificate) { c.Extensions = nil })
	for name, tt := range map[string]struct {
		auth    gossh.AuthMethod
		permits bool
	}{"everything": {gossh.PublicKeys(certified(t, ca, user, nil)), true}, "nothing": {gossh.PublicKeys(narrow), false}} {
		c, _, err := dial(s, "agent", tt.auth)
		if err != nil {
			t.Fatal(err)
		}
		session, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.RequestPty("xterm", 24, 80, nil); (err == nil) != tt.permits {
			t.Errorf("%s: a terminal: %v", name, err)
		}
		_, err = c.Dial("tcp", "127.0.0.1:80")
		if e, ok := errors.AsType[*gossh.OpenChannelError](err); !ok || (e.Reason == gossh.Prohibited) == tt.permits {
			t.Errorf("%s: a forwarding: %v", name, err)
		}
		c.Close()
	}
}

func TestAuthorizedFilesAreReadStrictly(t *testing.T) {
	key := strings.TrimSpace(line(signer(t)))
	cert := strings.TrimSpace(line(certified(t, signer(t), signer(t), nil)))
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":                        {"", "no key"},
		"comments only":                  {"# x\n\n", "no key"},
		"a line that is no key":          {key + "\nhello\n", "line 2"},
		"an option that would restrict":  {`restrict ` + key, "restrict"},
		"a command":                      {`command="true" ` + key, "command"},
		"a source":                       {`from="10.0.0.1" ` + key, "from"},
		"principals without authority":   {`principals="a" ` + key, "needs cert-authority"},
		"a certificate in place of keys": {cert, "it is a certificate"},
		"too large":                      {key + "\n" + strings.Repeat("#", maxAuthorized), "larger"},
	} {
		if a, err := ParseAuthorized([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v; want an error with %q", name, a, err, tt.want)
		}
	}
	edge := key + "\n"
	edge += strings.Repeat("#", maxAuthorized-len(edge))
	if _, err := ParseAuthorized([]byte(edge)); err != nil {
		t.Errorf("as large as it may be: %v", err)
	}
}
