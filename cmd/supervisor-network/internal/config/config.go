// Package config is the network daemon's configuration: one struct, flags over
// environment.
//
// It answers the threat of a setting that is not what the operator believes: every
// problem is reported, nothing unknown is ignored. It is the only package of this
// daemon that reads the environment.
package config

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/splitpod/splitpod/pkg/core/settings"
)

//go:generate go run github.com/splitpod/splitpod/docs/configdoc -package config -struct Config -prefix SPLITPOD_NETWORK_ -help help_gen.go -page ../../../../docs/configuration-network.md -title supervisor-network

// Prefix starts the name of every environment variable of this daemon.
const Prefix = "SPLITPOD_NETWORK_"

// Config is everything that can be set at start. What may change while the daemon
// runs is in the policy file.
type Config struct {
	// Policy file, YAML. It or gateway is required. It is watched: a valid new version
	// replaces the old one as a whole, an invalid one is refused and reported (see
	// invalid-policy).
	Policy string `env:"POLICY" flag:"policy"`
	// Gateway is an OpenShell gateway that has the policy in the place of a file, and whose
	// users get into the sandbox (see docs/gateway.md): https://host:port, or
	// http://host:port for this pod and services of the cluster (name.namespace.svc).
	// Until it gives a policy everything is denied. Empty: none.
	Gateway string `env:"GATEWAY" flag:"gateway"`
	// GatewaySandbox is the id that the gateway has given this sandbox.
	GatewaySandbox string `env:"GATEWAY_SANDBOX" flag:"gateway-sandbox"`
	// GatewayToken is a file with the token that the gateway has made for this sandbox. It is
	// refreshed in memory; a changed file counts at once. This or
	// gateway-service-account-token is required with a gateway.
	GatewayToken string `env:"GATEWAY_TOKEN" flag:"gateway-token"`
	// GatewayServiceAccountToken is a file with a service account's token for the gateway's
	// audience, which the gateway exchanges for one of this sandbox.
	GatewayServiceAccountToken string `env:"GATEWAY_SERVICE_ACCOUNT_TOKEN" flag:"gateway-service-account-token"`
	// GatewayCA is a PEM file of the certificate authorities to trust for the gateway, and
	// no other. Required with https.
	GatewayCA string `env:"GATEWAY_CA" flag:"gateway-ca"`
	// GatewayCert is a PEM file of this sandbox's certificate for the gateway, with
	// gateway-key. Both are read for every connection. Empty: none.
	GatewayCert string `env:"GATEWAY_CERT" flag:"gateway-cert"`
	// GatewayKey is a PEM file of the key of gateway-cert.
	GatewayKey string `env:"GATEWAY_KEY" flag:"gateway-key"`
	// GatewayServerName is the name that the gateway's certificate has. Empty: the host of
	// gateway.
	GatewayServerName string `env:"GATEWAY_SERVER_NAME" flag:"gateway-server-name"`
	// GatewayPoll is how often the gateway is asked for the policy.
	GatewayPoll time.Duration `env:"GATEWAY_POLL" envDefault:"10s" flag:"gateway-poll"`
	// Listen is an address such as 127.0.0.1:3128 on which to run as a standalone
	// proxy, without a process daemon that hands over listeners. Empty: wait for the
	// process daemon. Whoever can reach the address can use the proxy.
	Listen string `env:"LISTEN" flag:"listen"`
	// Identity says how the binaries of rules are judged. process: ask the process daemon,
	// deny when it cannot say. off: do not ask; a policy with binary rules is refused.
	// ignore: do not ask and treat every binaries list as satisfied, which lets any program
	// use any endpoint of the policy.
	Identity string `env:"IDENTITY" envDefault:"process" flag:"identity"`
	// Credentials file, YAML: which keys there are, which files hold their secrets, and to
	// which endpoints they may go (see docs/credentials.md). It and the secrets are watched.
	// Empty: the workload gets no placeholder, and a request with one is refused.
	Credentials string `env:"CREDENTIALS" flag:"credentials"`
	// InferenceRoutes file, YAML: which model calls to https://inference.local go to which
	// provider, model and key file (see docs/inference.md). It and the keys are watched: an
	// invalid new version is refused and reported. Empty: every model call is refused.
	InferenceRoutes string `env:"INFERENCE_ROUTES" flag:"inference-routes"`
	// CAOut is where the interception CA's certificate is written for clients outside
	// a sandbox. Empty: nowhere. The private key stays in the state directory.
	CAOut string `env:"CA_OUT" flag:"ca-out"`
	// UpstreamRoots are PEM files, separated by commas, of certificate authorities to trust
	// for origins, in addition to those of this container's system. Each has to be readable
	// and hold certificates and nothing else, or the daemon does not start. Whoever holds
	// the key of one can impersonate any origin.
	UpstreamRoots []string `env:"UPSTREAM_ROOTS" flag:"upstream-roots"`
	// StateDir keeps the CA across restarts of this container. It must belong to this
	// daemon alone and should be in memory.
	StateDir string `env:"STATE_DIR" envDefault:"/var/lib/splitpod" flag:"state-dir"`
	// RunDir holds the sockets between the two daemons. Only their two containers may
	// see it.
	RunDir string `env:"RUN_DIR" envDefault:"/run/splitpod" flag:"run-dir"`
	// ProcessUID is the uid of the process daemon, the only one that may speak on the
	// contract's sockets.
	ProcessUID uint32 `env:"PROCESS_UID" envDefault:"0" flag:"process-uid"`
	// ProxyPort is the port of the proxy inside the workload's network namespace.
	ProxyPort uint16 `env:"PROXY_PORT" envDefault:"3128" flag:"proxy-port"`
	// AgentProposals lets agents in the sandbox propose changes of the policy. The
	// process daemon then installs the guide that tells them how, where the workload can
	// read it. It grants nothing by itself: a proposal is decided by an operator.
	AgentProposals bool `env:"AGENT_PROPOSALS" flag:"agent-proposals"`
	// Learn is for how long what the workload needs is recorded and every public destination
	// is allowed, whatever the policy says. Meanwhile the sandbox only records: never set it
	// where the workload is not trusted. It ends by itself, also across restarts; `learn
	// export` then prints the smallest policy for what was seen.
	Learn time.Duration `env:"LEARN" envDefault:"0s" flag:"learn"`
	// AdminListen is the address of /livez, /readyz and /metrics. They hold no secret
	// and the workload cannot reach them. The live view (/ and /view.json) is there too,
	// and answers 127.0.0.1 and ::1 only: kubectl port-forward, and the watch command.
	// Empty: none.
	AdminListen string `env:"ADMIN_LISTEN" envDefault:":9901" flag:"admin-listen"`
	// AdminToken is a file with a token of 32 to 512 characters, for example from a Secret.
	// With it, the live view answers only those who show the token (the page asks for it,
	// watch has --token), programs in the pod that forward to its loopback included, and
	// proposals can be approved and rejected on the page. A changed file counts at once.
	// Empty: the view is read-only, for everybody on the pod's own loopback.
	AdminToken string `env:"ADMIN_TOKEN" flag:"admin-token"`
	// InvalidPolicy says what happens when a changed policy file is invalid. keep: the last
	// valid policy stays in force. deny: everything is denied until the file is valid. A
	// gateway has a word of its own, and the stricter of the two counts.
	InvalidPolicy string `env:"INVALID_POLICY" envDefault:"keep" flag:"invalid-policy"`
	// MaxConnections bounds the workload's simultaneous connections and, separately, its
	// simultaneous requests over HTTP/2; more are answered 503. Each takes two descriptors.
	MaxConnections int `env:"MAX_CONNECTIONS" envDefault:"20000" flag:"max-connections"`
	// HeadTimeout bounds the time from accept to a complete request head.
	HeadTimeout time.Duration `env:"HEAD_TIMEOUT" envDefault:"30s" flag:"head-timeout"`
	// ConnectTimeout bounds resolving and dialling a destination together.
	ConnectTimeout time.Duration `env:"CONNECT_TIMEOUT" envDefault:"30s" flag:"connect-timeout"`
	// IdleTimeout ends a tunnel in which nothing moved in either direction, and a request
	// whose body or answer does not go on. Half of it is what a client may leave its
	// answer unread.
	IdleTimeout time.Duration `env:"IDLE_TIMEOUT" envDefault:"1h" flag:"idle-timeout"`
	// DrainTimeout is how long connections may go on after SIGTERM.
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" envDefault:"10s" flag:"drain-timeout"`
	// LogLevel of the log on standard error: debug, info, warn or error. Records go
	// to standard output whatever the level.
	LogLevel string `env:"LOG_LEVEL" envDefault:"info" flag:"log-level"`
	// RecordFormat is how records are written to standard output: ocsf, one JSON object
	// of OCSF 1.8.0 a line, or text, one line for people. Files (record-dir) are always
	// ocsf.
	RecordFormat string `env:"RECORD_FORMAT" envDefault:"ocsf" flag:"record-format"`
	// RecordDir is a directory that gets the records in files, too: a new file every day and
	// at 64 MiB, of which three are kept. It must belong to this daemon alone, because
	// whoever can write there can forge records. Empty: none.
	RecordDir string `env:"RECORD_DIR" flag:"record-dir"`
	// OTLPEndpoint is an OpenTelemetry collector that gets a copy of every record as a log
	// record, and a span for every connection and request, by OTLP over gRPC:
	// https://host:port with a certificate of this container's system roots, or
	// http://host:port in the clear. It learns every host and path. Records that it does not
	// take in time are dropped and counted. Environment variables of OpenTelemetry add
	// resource attributes and change nothing else. Empty: none.
	OTLPEndpoint string `env:"OTLP_ENDPOINT" flag:"otlp-endpoint"`
	// OTLPHeaders is a file of header fields for the collector, such as an authorisation,
	// one "name: value" a line: 16 lines and 8 KiB at most. It is read for every request,
	// and sent over https only. Empty: none.
	OTLPHeaders string `env:"OTLP_HEADERS" flag:"otlp-headers"`
	// OTLPCA is a PEM file of the certificate authorities to trust for the collector,
	// instead of those of this container's system. Empty: the system's.
	OTLPCA string `env:"OTLP_CA" flag:"otlp-ca"`
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

// maxLearn bounds what is meant to end.
const maxLearn = 7 * 24 * time.Hour

// Environ is the process's environment, read here and nowhere else.
func Environ() []string { return os.Environ() }

// Threads is what an operator said of the threads that run Go code, to the runtime; empty:
// nothing.
func Threads() string { return os.Getenv("GOMAXPROCS") }

// Validate returns every problem with the values, joined.
func (c *Config) Validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Policy != "" || c.Gateway != "", "--policy: which policy file?")
	bad(c.Policy == "" || c.Gateway == "", "--policy and --gateway: the policy comes from one of them; take out the other")
	errs = append(errs, c.gatewayProblems()...)
	bad(c.Identity == "process" || c.Identity == "off" || c.Identity == "ignore", "--identity %q: say process, off or ignore", c.Identity)
	bad(c.Listen != "" || c.Identity == "process", "--identity %s needs --listen: a sandbox's process daemon always identifies", c.Identity)
	bad(c.Credentials == "" || filepath.IsAbs(c.Credentials), "--credentials %q: needs an absolute path", c.Credentials)
	bad(c.InferenceRoutes == "" || filepath.IsAbs(c.InferenceRoutes), "--inference-routes %q: needs an absolute path", c.InferenceRoutes)
	bad(c.InvalidPolicy == "keep" || c.InvalidPolicy == "deny", "--invalid-policy %q: say keep or deny", c.InvalidPolicy)
	bad(c.ProxyPort != 0, "--proxy-port 0: say 1 to 65535")
	bad(c.MaxConnections > 0, "--max-connections %d: say 1 or more", c.MaxConnections)
	bad(!slices.Contains(c.UpstreamRoots, ""), "--upstream-roots: a file name is empty")
	bad(filepath.IsAbs(c.StateDir), "--state-dir %q: needs an absolute path", c.StateDir)
	bad(filepath.IsAbs(c.RunDir), "--run-dir %q: needs an absolute path", c.RunDir)
	for name, d := range map[string]time.Duration{"head": c.HeadTimeout, "connect": c.ConnectTimeout, "idle": c.IdleTimeout} {
		bad(d > 0, "--%s-timeout %s: needs more than zero", name, d)
	}
	bad(c.Learn >= 0 && c.Learn <= maxLearn, "--learn %s: say 0 to %s", c.Learn, maxLearn)
	bad(c.DrainTimeout >= 0, "--drain-timeout %s: cannot be negative", c.DrainTimeout)
	for name, addr := range map[string]string{"listen": c.Listen, "admin-listen": c.AdminListen} {
		_, _, err := net.SplitHostPort(addr)
		bad(addr == "" || err == nil, "--%s %q: needs host:port", name, addr)
	}
	bad(c.AdminToken == "" || filepath.IsAbs(c.AdminToken), "--admin-token %q: needs an absolute path", c.AdminToken)
	bad(c.AdminToken == "" || c.AdminListen != "", "--admin-token: there is no view to protect without --admin-listen")
	bad(c.RecordFormat == "ocsf" || c.RecordFormat == "text", "--record-format %q: say ocsf or text", c.RecordFormat)
	if c.OTLPEndpoint != "" {
		_, _, err := c.OTLP()
		bad(err == nil, "--otlp-endpoint: %v", err)
	}
	for name, file := range map[string]string{"headers": c.OTLPHeaders, "ca": c.OTLPCA} {
		_, clear, err := c.OTLP()
		bad(file == "" || filepath.IsAbs(file), "--otlp-%s %q: needs an absolute path", name, file)
		bad(file == "" || err == nil && !clear, "--otlp-%s: needs --otlp-endpoint with https://", name)
	}
	bad(c.RecordDir == "" || filepath.IsAbs(c.RecordDir), "--record-dir %q: needs an absolute path", c.RecordDir)
	bad(strings.Contains(" debug info warn error ", " "+c.LogLevel+" "), "--log-level %q: say debug, info, warn or error", c.LogLevel)
	return errors.Join(errs...)
}
