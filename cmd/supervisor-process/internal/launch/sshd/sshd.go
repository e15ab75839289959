// Package sshd serves SSH sessions in the sandbox: shells, commands, terminals, file
// transfer, and connections to the workload's own loopback.
//
// It answers the threats of a session that is less confined than the workload (every
// one is launched by the same function), of a forwarding that leads out of the
// sandbox (only its loopback is dialled, from inside its namespace), and of clients
// that hold sessions open or open too many. It listens on no TCP port; who may
// connect is decided before a byte is read.
//
// Invariant: a session's processes are signalled when its channel or its connection ends;
// no output is lost that was written before the exit.
//
// Sources: RFC 4253, RFC 4254 (sections 6.2, 6.7 to 6.10, 7.2).
package sshd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/console"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits.
const (
	maxConnections   = 64
	maxChannels      = 16       // of one connection
	maxEnviron       = 16 << 10 // bytes of a channel's variables, with what frames them
	handshakeTimeout = 15 * time.Second
	keepalive        = 15 * time.Second
	killAfter        = 2 * time.Second // from hanging up to SIGKILL
	drainTimeout     = 2 * time.Second // without output after the exit
)

// Request is one session to launch.
type Request struct {
	Command  string // for the shell; empty: a login shell
	SFTP     bool   // the file transfer server in place of a command
	Environ  []string
	Terminal bool // Files are a terminal
	Files    [3]*os.File
}

// Config is what a Server needs of the sandbox.
type Config struct {
	Admit        func(c net.Conn) error // of a new connection
	Launch       func(ctx context.Context, r Request) (launch.Program, error)
	OpenTerminal func() (*launch.Terminal, error)
	// Dial connects to a port of the workload's loopback.
	Dial func(ctx context.Context, host string, port uint16) (net.Conn, error)
	// Main is the main program's console, and SignalMain signals that program.
	Main       *console.Console
	SignalMain func(sig syscall.Signal) error
	// Authorized, if not nil, is asked for every connection who may log in; an error
	// lets nobody in. If nil, everybody may whom Admit lets pass.
	Authorized func() (*Authorized, error)
	// Record takes what clients did and were refused; nil: nobody wants to know.
	Record func(reason core.Reason, detail string)
	Log    *slog.Logger
}

// Server serves connections. Make it with New.
type Server struct {
	cfg         Config
	ssh         *ssh.Server
	drain       time.Duration // drainTimeout; tests change it
	refusals    refusals
	failures    refusals
	open        atomic.Int64 // connections
	telling     sync.RWMutex // held by those who look at the main program, until they know its end
	Fingerprint string       // of the host key, which lives as long as the Server
}

// New makes a Server with a new host key.
func New(cfg Config) (*Server, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the host key: %w", err)
	}
	signer, err := gossh.NewSignerFromKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the host key: %w", err)
	}
	s := &Server{cfg: cfg, drain: drainTimeout, Fingerprint: gossh.FingerprintSHA256(signer.PublicKey())}
	s.ssh = &ssh.Server{
		Version: "Splitpod", HostSigners: []ssh.Signer{signer}, Handler: s.session,
		SubsystemHandlers: map[string]ssh.SubsystemHandler{"sftp": s.session, subsystemMain: s.attach, subsystemMainOld: s.attach},
		ChannelHandlers:   map[string]ssh.ChannelHandler{"session": s.limited(ssh.DefaultSessionHandler), "direct-tcpip": s.limited(s.forward), "default": s.unserved},
		ConnCallback:      s.begin,
		RequestHandlers: map[string]ssh.RequestHandler{
			"keepalive@openssh.com": func(ssh.Context, *ssh.Server, *gossh.Request) (bool, []byte) { return true, nil },
			"tcpip-forward":         s.unlistened, "streamlocal-forward@openssh.com": s.unlistened,
		},
		SessionRequestCallback: s.served,
		ConnectionFailedCallback: func(_ net.Conn, err error) {
			s.refused(core.EventSSHFailed, "nobody logged in: %v", err)
		},
	}
	s.ssh.PtyCallback = func(ctx ssh.Context, _ ssh.Pty) bool { return permits(granted(ctx), "permit-pty") }
	s.ssh.ServerConfigCallback = s.config
	return s, nil
}

// strong is what the library supports without SHA-1, which it still offers.
func strong() gossh.Config {
	all := gossh.SupportedAlgorithms()
	weak := func(name string) bool { return strings.Contains(name, "sha1") }
	return gossh.Config{Ciphers: all.Ciphers, KeyExchanges: slices.DeleteFunc(all.KeyExchanges, weak), MACs: slices.DeleteFunc(all.MACs, weak)}
}

// config demands a key, if that is configured. The library believes that nobody has to
// show anything where it has no handler of its own, and its handler cannot say what a
// key permits.
func (s *Server) config(ctx ssh.Context) *gossh.ServerConfig {
	log := func(meta gossh.ConnMetadata, method string, err error) {
		if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
			s.attempted(c, meta, method, err)
		}
	}
	if s.cfg.Authorized == nil {
		// Some clients show a key without asking whether one is needed; any will do.
		return &gossh.ServerConfig{Config: strong(), AuthLogCallback: log,
			PublicKeyCallback: func(gossh.ConnMetadata, gossh.PublicKey) (*gossh.Permissions, error) {
				return &gossh.Permissions{}, nil
			}}
	}
	authorized, err := s.cfg.Authorized()
	if err != nil {
		s.cfg.Log.Error("nobody can log in by SSH", slog.Any("error", err))
		authorized = &Authorized{}
	}
	return &gossh.ServerConfig{
		Config:               strong(),
		AuthLogCallback:      log,
		NoClientAuthCallback: func(gossh.ConnMetadata) (*gossh.Permissions, error) { return nil, errors.New("a key is needed") },
		PublicKeyCallback:    authorized.check,
	}
}

// granted is what the login of a connection permits.
func granted(ctx ssh.Context) *gossh.Permissions {
	if conn, ok := ctx.Value(ssh.ContextKeyConn).(*gossh.ServerConn); ok {
		return conn.Permissions
	}
	return nil
}

// Run accepts on l until ctx ends, and closes l and every connection.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { s.ssh.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	return link.Accept(ctx, l, s.cfg.Log, func(c *net.UnixConn) {
		if err := s.cfg.Admit(c); err != nil {
			s.cfg.Log.Warn("an SSH connection was refused", slog.Any("error", err))
			c.Close()
			return
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.Serve(c)
		})
	})
}

// Told waits until everybody who looks at the main program was told how it ended, but
// not longer than patience.
func (s *Server) Told(patience time.Duration) {
	told := make(chan struct{})
	go func() {
		s.telling.Lock()
		defer s.telling.Unlock()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(patience):
	}
}

// Serve serves one connection that was admitted already, and closes it.
func (s *Server) Serve(c net.Conn) {
	defer s.open.Add(-1)
	if n := s.open.Add(1); n > maxConnections {
		s.cfg.Log.Warn("an SSH connection was refused: there are too many", slog.Int64("open", n-1))
		s.refused(core.EventSSHRefused, "a connection: %d are open", n-1)
		c.Close()
		return
	}
	known := &tracked{c, &connection{}}
	defer s.ended(known.is, time.Now())
	s.ssh.HandleConn(known)
}

// tracked is a connection with what is known of it.
type tracked struct {
	net.Conn
	is *connection
}

// connection is what is known of one connection.
type connection struct {
	channels atomic.Int64
	alive    sync.Once
	opened   atomic.Bool // somebody logged in
}

type connectionKey struct{}

// begin bounds the handshake.
func (s *Server) begin(ctx ssh.Context, c net.Conn) net.Conn {
	known, ok := c.(*tracked)
	if !ok {
		panic("BUG: a connection that Serve does not know")
	}
	ctx.SetValue(connectionKey{}, known.is)
	time.AfterFunc(handshakeTimeout, func() {
		if ctx.Value(ssh.ContextKeyConn) == nil {
			c.Close()
		}
	})
	return c
}

// limited bounds the channels of a connection, and keeps it alive: a client that is
// gone is noticed, one that is only quiet is not cut. What a channel started ends with it.
func (s *Server) limited(next ssh.ChannelHandler) ssh.ChannelHandler {
	return func(srv *ssh.Server, conn *gossh.ServerConn, channel gossh.NewChannel, ctx ssh.Context) {
		c, ok := ctx.Value(connectionKey{}).(*connection)
		if !ok || c.channels.Add(1) > maxChannels {
			if ok {
				c.channels.Add(-1)
			}
			s.refused(core.EventSSHRefused, "a channel: %d are open", maxChannels)
			_ = channel.Reject(gossh.ResourceShortage, "too many channels on one connection")
			return
		}
		defer c.channels.Add(-1)
		c.alive.Do(func() { go stayAlive(ctx, conn) })
		told := newAside()
		own, end := context.WithCancel(context.WithValue(ctx, asideKey{}, told))
		defer end()
		next(srv, conn, frugal{channel, told}, channelContext{ctx, own})
	}
}

// frugal is a channel of which the library hears what it can deal with. It keeps every variable
// it is told of, until a program is asked for: there may be so many and no more. Signals and
// windows it writes while others read them, it waits for whoever takes them, and it leaves
// goroutines behind: they go past it.
type frugal struct {
	gossh.NewChannel
	told *aside
}

// aside is what a client says beside the data. What nobody takes holds nothing up.
type aside struct {
	signals chan ssh.Signal // those that find no place are lost
	windows chan ssh.Window // the newest
}

type asideKey struct{}

func newAside() *aside {
	return &aside{make(chan ssh.Signal, 16), make(chan ssh.Window, 1)}
}

// Accept implements gossh.NewChannel.
func (f frugal) Accept() (gossh.Channel, <-chan *gossh.Request, error) {
	channel, requests, err := f.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	taken := make(chan *gossh.Request)
	go func() {
		defer close(taken)
		left := maxEnviron
		for r := range requests {
			switch r.Type {
			case "signal":
				_ = r.Reply(f.told.signal(r.Payload), nil)
				continue
			case "window-change":
				_ = r.Reply(f.told.window(r.Payload), nil)
				continue
			case "env":
				if left -= len(r.Payload); left < 0 {
					_ = r.Reply(false, nil)
					continue
				}
			}
			taken <- r
		}
	}()
	return channel, taken, nil
}

// signal takes a request of RFC 4254 section 6.9.
func (a *aside) signal(payload []byte) bool {
	var s struct{ Name string }
	if gossh.Unmarshal(payload, &s) != nil {
		return false
	}
	select {
	case a.signals <- ssh.Signal(s.Name):
		return true
	default:
		return false
	}
}

// window takes a request of RFC 4254 section 6.7. One goroutine calls it.
func (a *aside) window(payload []byte) bool {
	var w struct{ Columns, Rows, Width, Height uint32 }
	if gossh.Unmarshal(payload, &w) != nil || w.Columns == 0 || w.Rows == 0 {
		return false
	}
	select {
	case <-a.windows: // it is older
	default:
	}
	a.windows <- ssh.Window{Width: int(w.Columns), Height: int(w.Rows)}
	return true
}

// asideOf is what the client of a session says beside its data.
func asideOf(c ssh.Session) *aside { return c.Context().Value(asideKey{}).(*aside) }

// channelContext ends with a channel, which may be before its connection does: several
// sessions share one. It is the connection's context otherwise.
type channelContext struct {
	ssh.Context
	own context.Context
}

func (c channelContext) Deadline() (time.Time, bool) { return c.own.Deadline() }
func (c channelContext) Done() <-chan struct{}       { return c.own.Done() }
func (c channelContext) Err() error                  { return c.own.Err() }
func (c channelContext) Value(key any) any           { return c.own.Value(key) }

func stayAlive(ctx context.Context, conn *gossh.ServerConn) {
	tick := time.NewTicker(keepalive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		gone := time.AfterFunc(2*keepalive, func() { conn.Close() })
		_, _, err := conn.SendRequest("keepalive@openssh.com", true, nil)
		gone.Stop()
		if err != nil {
			return
		}
	}
}

// accepted are the variables a client may set.
func accepted(environ []string) (out []string) {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if (name == "LANG" || name == "COLORTERM" || name == "TZ" || strings.HasPrefix(name, "LC_")) && len(value) <= 256 && !strings.ContainsAny(value, "\x00\n") {
			out = append(out, e)
		}
	}
	return out
}
