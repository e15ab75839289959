package policy

import (
	"net/netip"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// metadata are the names under which clouds serve credentials to their machines.
var metadata = map[string]bool{
	"metadata":                   true,
	"metadata.google.internal":   true,
	"metadata.goog":              true,
	"metadata.azure.internal":    true,
	"metadata.tencentyun.com":    true,
	"instance-data":              true,
	"instance-data.ec2.internal": true,
}

// MetadataName reports whether a host, in lower case, is a name that serves a cloud's
// credentials. No policy can name it.
func MetadataName(host string) bool { return metadata[host] }

// checkHost checks an endpoint's host, already in lower case.
func checkHost(v strictyaml.Value, host string) bool {
	before := v.Errors()
	switch {
	case strings.Contains(host, "://"):
		v.Fail("%s has a scheme; write the host name only", strictyaml.Quoted(host))
	case isPrefix(host):
		v.Fail("%s is a range of addresses; leave host out and write the range into allowed_ips", strictyaml.Quoted(host))
	case strings.ContainsAny(host, "/\\"):
		v.Fail("%s has a path; write the host name only and put the path into path", strictyaml.Quoted(host))
	case strings.ContainsAny(host, " \t"):
		v.Fail("%s has a space; write the host name only", strictyaml.Quoted(host))
	case !ascii(host):
		v.Fail("%s is not ASCII; write the punycode form, which starts with xn--", strictyaml.Quoted(host))
	case strings.Contains(host, "@"):
		v.Fail("%s has a user; write the host name only", strictyaml.Quoted(host))
	case strings.Contains(host, ":") || strings.ContainsAny(host, "[]%"):
		checkIPv6(v, host)
	default:
		checkName(v, host)
	}
	return v.Errors() == before
}

func isPrefix(host string) bool {
	_, err := netip.ParsePrefix(host)
	return err == nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// checkIPv6 checks a host that has a colon or a bracket in it.
func checkIPv6(v strictyaml.Value, host string) {
	inner := strings.TrimPrefix(host, "[")
	bracketed := inner != host
	if end := strings.LastIndex(inner, "]"); end >= 0 {
		inner = inner[:end]
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil && strings.Count(host, ":") == 1 && !bracketed:
		v.Fail("%s has a port; write the host only and put the port into port", strictyaml.Quoted(host))
	case err != nil:
		v.Fail("%s is not a host; only letters, digits, -, _ and dots may stand in one, and * as a wildcard", strictyaml.Quoted(host))
	case addr.Zone() != "":
		v.Fail("%s has a zone; write the address without it", strictyaml.Quoted(host))
	case bracketed:
		v.Fail("%s is in brackets; write %s", strictyaml.Quoted(host), strictyaml.Quoted(addr.String()))
	default:
		checkAddress(v, host, addr)
	}
}

// checkAddress checks a host that is an IP address.
func checkAddress(v strictyaml.Value, host string, addr netip.Addr) {
	switch canonical := addr.Unmap().String(); {
	case canonical != host:
		v.Fail("%s is not the usual form of this address; write %s", strictyaml.Quoted(host), strictyaml.Quoted(canonical))
	case blockedRange(netip.PrefixFrom(addr, addr.BitLen())) != "":
		v.Fail("%s is refused in every mode (%s); remove the endpoint", strictyaml.Quoted(host), blockedRange(netip.PrefixFrom(addr, addr.BitLen())))
	}
}

func checkName(v strictyaml.Value, host string) {
	labels := strings.Split(host, ".")
	switch {
	case strings.HasSuffix(host, "."):
		v.Fail("%s ends with a dot; remove it", strictyaml.Quoted(host))
	case len(host) > 253:
		v.Fail("the host has %d characters; 253 are allowed", len(host))
	case metadata[host]:
		v.Fail("%s serves a cloud's credentials and is refused in every mode; remove the endpoint: docs/credentials.md has what to use instead, under Clouds", strictyaml.Quoted(host))
	case !checkLabels(v, host, labels):
	case strings.Contains(host, "*"):
		checkWildcards(v, host, labels)
	case numeric(labels[len(labels)-1]):
		addr, err := netip.ParseAddr(host)
		if err != nil {
			v.Fail("%s is read as a number by some programs; write an address as four decimal numbers without leading zeros", strictyaml.Quoted(host))
			return
		}
		checkAddress(v, host, addr)
	}
}

func checkLabels(v strictyaml.Value, host string, labels []string) bool {
	for _, l := range labels {
		switch {
		case l == "":
			v.Fail("%s has an empty label; remove the extra dot", strictyaml.Quoted(host))
			return false
		case len(l) > 63:
			v.Fail("a label of the host has %d characters; 63 are allowed", len(l))
			return false
		case !labelCharacters(l):
			v.Fail("%s is not a host; only letters, digits, -, _ and dots may stand in one, and * as a wildcard", strictyaml.Quoted(host))
			return false
		}
	}
	return true
}

func labelCharacters(l string) bool {
	for i := range len(l) {
		c := l[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '*') {
			return false
		}
	}
	return true
}

// numeric reports whether inet_aton(3) would take a last label for a number.
func numeric(label string) bool {
	if digits, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// maxStars bounds the wildcards of one host.
const maxStars = 8

func checkWildcards(v strictyaml.Value, host string, labels []string) {
	last := len(labels) - 1
	switch {
	case host == "*" || host == "**":
		v.Fail("%s is every host; name a domain, such as *.example.com", strictyaml.Quoted(host))
		return
	case len(labels) < 3:
		v.Fail("%s is too wide; a host with a wildcard needs three labels, such as *.example.com", strictyaml.Quoted(host))
		return
	case strings.Count(host, "*") > maxStars:
		v.Fail("the host has %d stars; %d are allowed", strings.Count(host, "*"), maxStars)
		return
	case strings.Contains(labels[last], "*") || numeric(labels[last]):
		v.Fail("%s does not end with a domain; the last label must be written out", strictyaml.Quoted(host))
		return
	}
	for i, l := range labels {
		switch {
		case strings.Contains(l, "**") && (i > 0 || l != "**"):
			v.Fail("%s has ** inside; ** must be the whole first label", strictyaml.Quoted(host))
			return
		case i > 0 && l != "*" && strings.Contains(l, "*"):
			v.Fail("%s has a partial wildcard behind the first label; write * for the whole label", strictyaml.Quoted(host))
			return
		}
	}
	if labels[last-1] == "*" {
		v.Warn("%s is wide: anybody can register a domain that it matches", strictyaml.Quoted(host))
	}
}
