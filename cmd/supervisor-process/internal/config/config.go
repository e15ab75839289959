// Package config is the process daemon's configuration: one struct, flags over
// environment.
//
// It answers the threat of an agent image that configures its own supervisor: what
// weakens isolation has no setting at all, and an unknown variable with our prefix
// ends the start. It is the only package of this daemon that reads the environment.
package config

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/splitpod/splitpod/pkg/core/settings"
)

//go:generate go run github.com/splitpod/splitpod/docs/configdoc -package config -struct Config -prefix SPLITPOD_PROCESS_ -help help_gen.go -page ../../../../docs/configuration-process.md -title supervisor-process

// Prefix starts the name of every environment variable of this daemon.
const Prefix = "SPLITPOD_PROCESS_"

// Config is everything that can be set at start.
type Config struct {
	// Policy file to take the static sections from when there is no network daemon.
	// The workload then has no network at all. Empty: the network daemon sends them.
	Policy string `env:"POLICY" flag:"policy"`
	// RunDir holds the sockets between the two daemons. The workload sees an empty
	// directory there that holds only public certificates.
	RunDir string `env:"RUN_DIR" envDefault:"/run/splitpod" flag:"run-dir"`
	// NetworkUID is the uid of the network daemon, the only one that may speak on the
	// contract's sockets. A policy that runs the workload as this uid is refused.
	NetworkUID uint32 `env:"NETWORK_UID" envDefault:"65532" flag:"network-uid"`
	// Workdir is the workload's working directory. Empty: this daemon's own.
	Workdir string `env:"WORKDIR" flag:"workdir"`
	// PID is the root of the process tree that attach answers for. Other commands
	// ignore it.
	PID int `env:"PID" flag:"pid"`
	// SSH serves SSH on RunDir/ssh.sock: to this daemon's own uid and the network
	// daemon's, never over TCP, with every session confined as the workload is.
	SSH bool `env:"SSH" envDefault:"true" flag:"ssh"`
	// SSHAuthorizedKeys is a file of public keys, in the format of authorized_keys, of which
	// a client then has to prove one, too. A line that starts with cert-authority names one
	// that signs certificates for its principals="…", or without them for the login name
	// that a client gives; other options are refused. It is read again for every connection.
	// Empty: the socket's peer credentials are enough.
	SSHAuthorizedKeys string `env:"SSH_AUTHORIZED_KEYS" flag:"ssh-authorized-keys"`
	// Terminal gives the workload a terminal although the container has none, for
	// programs that people attach to (ssh -t -s sandbox splitpod-main). With one in the
	// container (tty: true) the workload has its own in any case.
	Terminal bool `env:"TERMINAL" flag:"terminal"`
	// StartTimeout ends a start that does not complete: attaching, configuration, fence,
	// hand-over, readiness. It never opens anything.
	StartTimeout time.Duration `env:"START_TIMEOUT" envDefault:"120s" flag:"start-timeout"`
	// Grace is the time between SIGTERM and SIGKILL when the workload is ended.
	Grace time.Duration `env:"GRACE" envDefault:"10s" flag:"grace"`
	// Timeout ends the workload after this time, like SIGTERM, with exit code 124. 0:
	// never.
	Timeout time.Duration `env:"TIMEOUT" envDefault:"0s" flag:"timeout"`
	// PIDs is how many processes and threads the workload may have. It needs a cgroup of its
	// own; where the container may not make one, the start is refused. 0: the container's
	// limit alone.
	PIDs int `env:"PIDS" envDefault:"0" flag:"pids"`
	// RequirePIDLimit refuses to start when neither PIDs nor the container's own cgroup limits
	// its processes. With a limit, a fork bomb stays inside the pod. The limit that the kubelet
	// sets for a whole pod (podPidsLimit) bounds it, too, but cannot be seen from inside.
	// Without this setting, a limit that is not seen is only recorded.
	RequirePIDLimit bool `env:"REQUIRE_PID_LIMIT" flag:"require-pid-limit"`
	// ExitTimeout is how long the daemon stays after the workload's end to deliver
	// its last events.
	ExitTimeout time.Duration `env:"EXIT_TIMEOUT" envDefault:"2s" flag:"exit-timeout"`
	// AdminListen is the address of /livez, /readyz and /metrics. The workload cannot
	// reach it. Empty: none.
	AdminListen string `env:"ADMIN_LISTEN" envDefault:":9902" flag:"admin-listen"`
	// LogLevel of the log on standard error: debug, info, warn or error. Records go
	// to standard output whatever the level.
	LogLevel string `env:"LOG_LEVEL" envDefault:"info" flag:"log-level"`
	// Records is where records are written: stdout, stderr, or a file to append to.
	// The workload's own output goes to this daemon's standard output too.
	Records string `env:"RECORDS" envDefault:"stdout" flag:"records"`
	// RecordFormat is how records are written there: ocsf, one JSON object of OCSF 1.8.0 a
	// line, or text, one line for people. Files (record-dir) are always ocsf.
	RecordFormat string `env:"RECORD_FORMAT" envDefault:"ocsf" flag:"record-format"`
	// RecordDir is a directory that gets the records in files, too: a new file every day and
	// at 64 MiB, of which three are kept. It must belong to this daemon alone, because
	// whoever can write there can forge records. Empty: none.
	RecordDir string `env:"RECORD_DIR" flag:"record-dir"`
	// SandboxName is the sandbox's name in records; in a pod, the pod's. Empty: the host
	// name.
	SandboxName string `env:"SANDBOX_NAME" flag:"sandbox-name"`
	// SandboxUID connects the records of both daemons; in a pod, it is the pod's uid. Give
	// both daemons the same value. Empty: each run of a daemon has its own.
	SandboxUID string `env:"SANDBOX_UID" flag:"sandbox-uid"`
	// SandboxImage is the workload's image in records. Empty: not recorded.
	SandboxImage string `env:"SANDBOX_IMAGE" flag:"sandbox-image"`
}

// Load reads the configuration from environ ("NAME=value" entries) and args. The
// remaining arguments are returned. flag.ErrHelp means that help was printed.
func Load(name string, args, environ []string) (*Config, []string, error) {
	cfg := &Config{}
	err := settings.Environment(environ, Prefix, cfg, func(given map[string]string) error {
		return env.ParseWithOptions(cfg, env.Options{Prefix: Prefix, Environment: given})
	})
	if err != nil {
		return nil, nil, err
	}
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(os.Stderr)
	settings.Bind(fs, cfg, help)
	if err := settings.Parse(fs, args); err != nil {
		return nil, nil, err
	}
	return cfg, fs.Args(), nil
}

// Environ is the process's environment, read here and nowhere else.
func Environ() []string { return os.Environ() }

// Threads is what an operator said of the threads that run Go code, to the runtime; empty:
// nothing.
func Threads() string { return os.Getenv("GOMAXPROCS") }

// Term is the kind of terminal that the caller of exec has.
func Term() string { return os.Getenv("TERM") }

// Validate returns every problem with the values, joined.
func (c *Config) Validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(filepath.IsAbs(c.RunDir), "--run-dir %q: needs an absolute path", c.RunDir)
	bad(c.Workdir == "" || filepath.IsAbs(c.Workdir), "--workdir %q: needs an absolute path", c.Workdir)
	bad(c.PID >= 0, "--pid %d: needs a process id", c.PID)
	bad(c.PIDs >= 0, "--pids %d: cannot be negative", c.PIDs)
	bad(c.StartTimeout > 0, "--start-timeout %s: needs more than zero", c.StartTimeout)
	bad(c.Grace >= 0, "--grace %s: cannot be negative", c.Grace)
	bad(c.Timeout >= 0, "--timeout %s: cannot be negative", c.Timeout)
	bad(c.ExitTimeout >= 0, "--exit-timeout %s: cannot be negative", c.ExitTimeout)
	_, _, err := net.SplitHostPort(c.AdminListen)
	bad(c.AdminListen == "" || err == nil, "--admin-listen %q: needs host:port", c.AdminListen)
	bad(c.RecordFormat == "ocsf" || c.RecordFormat == "text", "--record-format %q: say ocsf or text", c.RecordFormat)
	bad(c.RecordDir == "" || filepath.IsAbs(c.RecordDir), "--record-dir %q: needs an absolute path", c.RecordDir)
	bad(strings.Contains(" debug info warn error ", " "+c.LogLevel+" "), "--log-level %q: say debug, info, warn or error", c.LogLevel)
	bad(c.Records == "stdout" || c.Records == "stderr" || filepath.IsAbs(c.Records), "--records %q: say stdout, stderr or an absolute path", c.Records)
	return errors.Join(errs...)
}
