package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
)

// OTLP is where the collector is, and whether it is spoken to in the clear.
func (c *Config) OTLP() (address string, clear bool, err error) {
	return endpoint(c.OTLPEndpoint, "http://collector:4317")
}

// GatewayAddress is where the gateway is, and whether it is spoken to in the clear.
func (c *Config) GatewayAddress() (address string, clear bool, err error) {
	return endpoint(c.Gateway, "https://gateway.example.com:8080")
}

// endpoint reads a URL of a scheme, a host and a port. An error does not repeat the
// setting, which may hold a password that does not belong there.
func endpoint(setting, example string) (address string, clear bool, err error) {
	u, err := url.Parse(setting)
	if err != nil {
		return "", false, errors.New("is no URL")
	}
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", false, errors.New("needs https:// or http:// in front")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return "", false, errors.New("is a scheme, a host and a port, and nothing else")
	case u.Hostname() == "" || portErr != nil || port == 0:
		return "", false, errors.New("needs a host and a port, for example " + example)
	}
	return net.JoinHostPort(u.Hostname(), u.Port()), u.Scheme == "http", nil
}

// gatewayProblems are what is wrong with the settings about the gateway.
func (c *Config) gatewayProblems() (errs []error) {
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	files := []struct{ name, path string }{
		{"token", c.GatewayToken}, {"service-account-token", c.GatewayServiceAccountToken},
		{"ca", c.GatewayCA}, {"cert", c.GatewayCert}, {"key", c.GatewayKey},
	}
	for _, f := range files {
		bad(f.path == "" || filepath.IsAbs(f.path), "--gateway-%s %q: needs an absolute path", f.name, f.path)
	}
	if c.Gateway == "" {
		for _, f := range append(files, struct{ name, path string }{"sandbox", c.GatewaySandbox}, struct{ name, path string }{"server-name", c.GatewayServerName}) {
			bad(f.path == "", "--gateway-%s: needs --gateway", f.name)
		}
		return errs
	}
	_, clear, err := c.GatewayAddress()
	bad(err == nil, "--gateway: %v", err)
	bad(c.GatewaySandbox != "", "--gateway-sandbox: which sandbox of the gateway is this?")
	bad((c.GatewayToken == "") != (c.GatewayServiceAccountToken == ""), "--gateway-token, --gateway-service-account-token: name one of them")
	bad(c.GatewayPoll > 0, "--gateway-poll %s: needs more than zero", c.GatewayPoll)
	bad(c.Listen == "", "--gateway: is for a sandbox, not for --listen")
	if err == nil {
		bad(clear || c.GatewayCA != "", "--gateway-ca: which authority is the gateway's certificate from?")
		bad(!clear || cmp.Or(c.GatewayCA, c.GatewayCert, c.GatewayKey, c.GatewayServerName) == "", "--gateway-ca, -cert, -key, -server-name: need --gateway with https://")
	}
	bad((c.GatewayCert == "") == (c.GatewayKey == ""), "--gateway-cert, --gateway-key: one needs the other")
	return errs
}
