package launch

import (
	"slices"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
)

func environment(t *testing.T, e Environment) map[string]string {
	t.Helper()
	list := e.Strings()
	if !slices.IsSorted(list) {
		t.Error("the environment is not sorted")
	}
	vars := make(map[string]string)
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := vars[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		vars[name] = value
	}
	return vars
}

var someone = prepare.Account{Name: "sandbox", UID: 1, GID: 1, Home: "/sandbox", Shell: "/bin/sh"}

func TestNothingOfOursReachesTheWorkload(t *testing.T) {
	vars := environment(t, Environment{Account: someone, Base: []string{
		"SPLITPOD_PROCESS_RUN_DIR=/x", "SPLITPOD_ANYTHING=1", "OPENSHELL_TOKEN=1", "KUBERNETES_SERVICE_HOST=10.0.0.1",
		"DB_SERVICE_HOST=10.0.0.2", "DB_SERVICE_PORT=1", "DB_SERVICE_PORT_HTTP=1", "DB_PORT=tcp://10.0.0.2:1",
		"DB_PORT_1_TCP=tcp://x", "DB_PORT_1_TCP_ADDR=x", "DB_PORT_1_TCP_PROTO=tcp", "DB_PORT_1_TCP_PORT=1",
		"SPIFFE_ENDPOINT_SOCKET=/s", "GODEBUG=x=1", "malformed",
		"FTP_PROXY=http://other", "Http_Proxy=http://other",
	}})
	want := []string{"HOME", "LOGNAME", "OPENSHELL_SANDBOX", "PATH", "SHELL", "TERM", "USER"}
	for name := range vars {
		if !slices.Contains(want, name) {
			t.Errorf("%s=%s is in the environment", name, vars[name])
		}
	}
	if len(vars) != len(want) {
		t.Errorf("got %v", vars)
	}
}

func TestTheImagesOwnVariablesStay(t *testing.T) {
	vars := environment(t, Environment{Account: someone, Base: []string{
		"PATH=/opt/bin", "LANG=de_DE.UTF-8", "NODE_VERSION=24", "PORT=8080", "APP_PORT=8080", "TERM=xterm", "HOME=/root", "EMPTY=",
	}})
	for name, want := range map[string]string{
		"PATH": "/opt/bin", "LANG": "de_DE.UTF-8", "NODE_VERSION": "24", "PORT": "8080", "APP_PORT": "8080", "TERM": "xterm", "HOME": "/sandbox", "EMPTY": "",
	} {
		if got, ok := vars[name]; !ok || got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
}

func TestProxyAndTrustWinOverEverything(t *testing.T) {
	vars := environment(t, Environment{
		Account: someone, ProxyPort: 3128, CAFile: "/run/splitpod/ca.pem", Bundle: "/run/splitpod/ca-bundle.pem",
		Base:     []string{"HTTPS_PROXY=http://evil", "SSL_CERT_FILE=/etc/evil", "AWS_CA_BUNDLE=/etc/evil"},
		Provided: map[string]string{"https_proxy": "http://evil", "TOKEN": "openshell:resolve:env:TOKEN", "BAD NAME": "x", "NUL": "a\x00b", "SPLITPOD_X": "y", "DENO_CERT": "/evil"},
	})
	for _, name := range []string{"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "YARN_HTTPS_PROXY"} {
		if vars[name] != "http://127.0.0.1:3128" {
			t.Errorf("%s=%q", name, vars[name])
		}
	}
	for name, want := range map[string]string{
		"NO_PROXY": "127.0.0.1,localhost,::1", "no_proxy": "127.0.0.1,localhost,::1", "NODE_USE_ENV_PROXY": "1",
		"NODE_EXTRA_CA_CERTS": "/run/splitpod/ca.pem", "DENO_CERT": "/run/splitpod/ca.pem",
		"SSL_CERT_FILE": "/run/splitpod/ca-bundle.pem", "GIT_SSL_CAINFO": "/run/splitpod/ca-bundle.pem", "HTTPLIB2_CA_CERTS": "/run/splitpod/ca-bundle.pem",
		"TOKEN": "openshell:resolve:env:TOKEN",
	} {
		if vars[name] != want {
			t.Errorf("%s=%q, want %q", name, vars[name], want)
		}
	}
	for _, name := range []string{"BAD NAME", "NUL", "SPLITPOD_X", "AWS_CA_BUNDLE"} {
		if _, ok := vars[name]; ok {
			t.Errorf("%q was accepted", name)
		}
	}
}

// TestJavaIsToldBehindWhatTheImageSays: it takes the last word.
func TestJavaIsToldBehindWhatTheImageSays(t *testing.T) {
	const proxy = "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128 -Daether.connector.http.useSystemProperties=true"
	store := func(file string) string {
		return "-Djavax.net.ssl.trustStore=" + file + " -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword=changeit"
	}
	for name, tt := range map[string]struct {
		e    Environment
		want string
	}{
		"no network, no image":    {Environment{}, ""},
		"no network":              {Environment{Base: []string{"JAVA_TOOL_OPTIONS=-Xmx1g"}}, "-Xmx1g"},
		"a proxy alone":           {Environment{ProxyPort: 3128}, proxy},
		"a proxy and trust":       {Environment{ProxyPort: 3128, JavaStore: "/run/x/cacerts.jks"}, proxy + " " + store("/run/x/cacerts.jks")},
		"the image's come before": {Environment{ProxyPort: 3128, JavaStore: "/s", Base: []string{"JAVA_TOOL_OPTIONS=-Dhttps.proxyHost=evil"}}, "-Dhttps.proxyHost=evil " + proxy + " " + store("/s")},
		"a space in the path":     {Environment{JavaStore: "/run/a b/s"}, store(`"/run/a b/s"`)},
	} {
		if got := environment(t, tt.e)["JAVA_TOOL_OPTIONS"]; got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
