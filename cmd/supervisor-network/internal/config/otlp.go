package config

import (
	"errors"
	"net"
	"net/url"
	"strconv"
)

// OTLP is where the collector is, and whether it is spoken to in the clear. An error
// does not repeat the setting, which may hold a password that does not belong there.
func (c *Config) OTLP() (address string, clear bool, err error) {
	u, err := url.Parse(c.OTLPEndpoint)
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
		return "", false, errors.New("needs a host and a port, for example http://collector:4317")
	}
	return net.JoinHostPort(u.Hostname(), u.Port()), u.Scheme == "http", nil
}
