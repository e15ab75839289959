package launch

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
)

// Environment is what a program's environment is made of, the later fields over the
// earlier ones.
type Environment struct {
	Base     []string          // "NAME=value" of the container; what is ours or the cluster's is left out
	Account  prepare.Account   // HOME, USER, LOGNAME, SHELL
	Provided map[string]string // from the network daemon; placeholders only
	// ProxyPort is where the proxy listens on 127.0.0.1; 0: there is no proxy.
	ProxyPort uint16
	CAFile    string // the interception CA alone; empty: none
	Bundle    string // system roots and the CA; empty: none
	JavaStore string // the same as a key store, which is all that Java reads; empty: none
}

// DefaultPath is where programs are looked for when the container says nothing.
const DefaultPath = stage.DefaultPath

// marker tells programs that they run in a sandbox. The name is the reference's,
// because agents look for it.
const marker = "OPENSHELL_SANDBOX"

// Strings renders the environment, sorted.
func (e Environment) Strings() []string {
	vars := make(map[string]string)
	for _, entry := range e.Base {
		if name, value, ok := strings.Cut(entry, "="); ok && !withheld(name, value) {
			vars[name] = value
		}
	}
	for name, value := range e.Provided {
		if isName(name) && !withheld(name, value) && !strings.ContainsRune(value, 0) {
			vars[name] = value
		}
	}
	e.account(vars)
	e.proxy(vars)
	e.trust(vars)
	e.java(vars)
	vars[marker] = "1"
	var out []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		out = append(out, name+"="+vars[name])
	}
	return out
}

func (e Environment) account(vars map[string]string) {
	vars["HOME"], vars["USER"], vars["LOGNAME"] = e.Account.Home, e.Account.Name, e.Account.Name
	delete(vars, "SHELL")
	if e.Account.Shell != "" {
		vars["SHELL"] = e.Account.Shell
	}
	for name, value := range map[string]string{"PATH": DefaultPath, "TERM": "dumb"} {
		if vars[name] == "" {
			vars[name] = value
		}
	}
}

var (
	proxyNames = []string{
		"ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "grpc_proxy",
		"YARN_HTTP_PROXY", "YARN_HTTPS_PROXY", // Yarn reads no others from release 2 on
	}
	noProxyNames = []string{"NO_PROXY", "no_proxy"}
	caNames      = []string{"NODE_EXTRA_CA_CERTS", "DENO_CERT"} // added to a program's own roots
	bundleNames  = []string{                                    // in place of a program's own roots
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "CARGO_HTTP_CAINFO",
		"NIX_SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "HTTPLIB2_CA_CERTS",
	}
)

func (e Environment) proxy(vars map[string]string) {
	for name := range vars {
		if strings.HasSuffix(strings.ToLower(name), "_proxy") {
			delete(vars, name) // another proxy cannot be reached from here
		}
	}
	if e.ProxyPort == 0 {
		return
	}
	url := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(int(e.ProxyPort)))
	setAll(vars, url, proxyNames)
	setAll(vars, "127.0.0.1,localhost,::1", noProxyNames)
	vars["NODE_USE_ENV_PROXY"] = "1"
}

func (e Environment) trust(vars map[string]string) {
	if e.CAFile != "" {
		setAll(vars, e.CAFile, caNames)
	}
	if e.Bundle != "" {
		setAll(vars, e.Bundle, bundleNames)
		// Programs with AWS's library for Go and a transport of their own, as rclone, end
		// when it is set. What else reads it reads one of the others, too.
		delete(vars, "AWS_CA_BUNDLE")
	}
}

// javaOptions is read by every Java virtual machine, which says so on standard error. What
// stands last in it holds, and a command's own options hold over it.
const javaOptions = "JAVA_TOOL_OPTIONS"

// JavaPassword is that of the key store, which is no secret: it is the one of every Java's
// own store.
const JavaPassword = "changeit"

// java tells Java what it does not read in the variables of others.
func (e Environment) java(vars map[string]string) {
	var options []string
	if e.ProxyPort != 0 {
		for _, scheme := range []string{"http", "https"} {
			options = append(options, "-D"+scheme+".proxyHost=127.0.0.1", "-D"+scheme+".proxyPort="+strconv.Itoa(int(e.ProxyPort)))
		}
		options = append(options, "-Daether.connector.http.useSystemProperties=true") // Maven, from 3.9 on
	}
	if e.JavaStore != "" {
		file := e.JavaStore
		if strings.ContainsAny(file, " \t") {
			file = `"` + file + `"`
		}
		options = append(options, "-Djavax.net.ssl.trustStore="+file, "-Djavax.net.ssl.trustStoreType=JKS", "-Djavax.net.ssl.trustStorePassword="+JavaPassword)
	}
	if own := vars[javaOptions]; own != "" && len(options) > 0 {
		options = append([]string{own}, options...)
	}
	if len(options) > 0 {
		vars[javaOptions] = strings.Join(options, " ")
	}
}

func setAll(vars map[string]string, value string, names []string) {
	for _, n := range names {
		vars[n] = value
	}
}

// withheld reports whether a variable of the container stays out of the sandbox:
// our own settings and the reference's, the cluster's service links (which tell
// where things are that cannot be reached), and what steers this daemon's own
// runtime.
func withheld(name, value string) bool {
	for _, prefix := range []string{"SPLITPOD_", "OPENSHELL_", "KUBERNETES_", "GODEBUG", "GOTRACEBACK", "GOMEMLIMIT", "GOMAXPROCS", "GOGC"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "SPIFFE_ENDPOINT_SOCKET", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES":
		return true
	}
	return isServiceLink(name, value)
}

// isServiceLink recognises the variables Kubernetes makes of a service.
func isServiceLink(name, value string) bool {
	switch {
	case strings.HasSuffix(name, "_SERVICE_HOST"), strings.HasSuffix(name, "_SERVICE_PORT"), strings.Contains(name, "_SERVICE_PORT_"):
		return true
	case strings.Contains(name, "_PORT_") && (strings.HasSuffix(name, "_ADDR") || strings.HasSuffix(name, "_PROTO") || strings.HasSuffix(name, "_TCP") || strings.HasSuffix(name, "_UDP") || strings.HasSuffix(name, "_PORT")):
		return true
	default:
		return strings.HasSuffix(name, "_PORT") && (strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://"))
	}
}

// isName reports whether s is a portable variable name.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 256
}
