package policy

import (
	"net/netip"
	"strings"
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
func (v value) checkHost(host string) bool {
	before := v.r.errors
	switch {
	case strings.Contains(host, "://"):
		v.fail("%s has a scheme; write the host name only", quoted(host))
	case isPrefix(host):
		v.fail("%s is a range of addresses; leave host out and write the range into allowed_ips", quoted(host))
	case strings.ContainsAny(host, "/\\"):
		v.fail("%s has a path; write the host name only and put the path into path", quoted(host))
	case strings.ContainsAny(host, " \t"):
		v.fail("%s has a space; write the host name only", quoted(host))
	case !ascii(host):
		v.fail("%s is not ASCII; write the punycode form, which starts with xn--", quoted(host))
	case strings.Contains(host, "@"):
		v.fail("%s has a user; write the host name only", quoted(host))
	case strings.Contains(host, ":") || strings.ContainsAny(host, "[]%"):
		v.checkIPv6(host)
	default:
		v.checkName(host)
	}
	return v.r.errors == before
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
func (v value) checkIPv6(host string) {
	inner := strings.TrimPrefix(host, "[")
	bracketed := inner != host
	if end := strings.LastIndex(inner, "]"); end >= 0 {
		inner = inner[:end]
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil && strings.Count(host, ":") == 1 && !bracketed:
		v.fail("%s has a port; write the host only and put the port into port", quoted(host))
	case err != nil:
		v.fail("%s is not a host; only letters, digits, -, _ and dots may stand in one, and * as a wildcard", quoted(host))
	case addr.Zone() != "":
		v.fail("%s has a zone; write the address without it", quoted(host))
	case bracketed:
		v.fail("%s is in brackets; write %s", quoted(host), quoted(addr.String()))
	default:
		v.checkAddress(host, addr)
	}
}

// checkAddress checks a host that is an IP address.
func (v value) checkAddress(host string, addr netip.Addr) {
	switch canonical := addr.Unmap().String(); {
	case canonical != host:
		v.fail("%s is not the usual form of this address; write %s", quoted(host), quoted(canonical))
	case blockedRange(netip.PrefixFrom(addr, addr.BitLen())) != "":
		v.fail("%s is refused in every mode (%s); remove the endpoint", quoted(host), blockedRange(netip.PrefixFrom(addr, addr.BitLen())))
	}
}

func (v value) checkName(host string) {
	labels := strings.Split(host, ".")
	switch {
	case strings.HasSuffix(host, "."):
		v.fail("%s ends with a dot; remove it", quoted(host))
	case len(host) > 253:
		v.fail("the host has %d characters; 253 are allowed", len(host))
	case metadata[host]:
		v.fail("%s serves a cloud's credentials and is refused in every mode; remove the endpoint: docs/credentials.md has what to use instead, under Clouds", quoted(host))
	case !v.checkLabels(host, labels):
	case strings.Contains(host, "*"):
		v.checkWildcards(host, labels)
	case numeric(labels[len(labels)-1]):
		addr, err := netip.ParseAddr(host)
		if err != nil {
			v.fail("%s is read as a number by some programs; write an address as four decimal numbers without leading zeros", quoted(host))
			return
		}
		v.checkAddress(host, addr)
	}
}

func (v value) checkLabels(host string, labels []string) bool {
	for _, l := range labels {
		switch {
		case l == "":
			v.fail("%s has an empty label; remove the extra dot", quoted(host))
			return false
		case len(l) > 63:
			v.fail("a label of the host has %d characters; 63 are allowed", len(l))
			return false
		case !labelCharacters(l):
			v.fail("%s is not a host; only letters, digits, -, _ and dots may stand in one, and * as a wildcard", quoted(host))
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

func (v value) checkWildcards(host string, labels []string) {
	last := len(labels) - 1
	switch {
	case host == "*" || host == "**":
		v.fail("%s is every host; name a domain, such as *.example.com", quoted(host))
		return
	case len(labels) < 3:
		v.fail("%s is too wide; a host with a wildcard needs three labels, such as *.example.com", quoted(host))
		return
	case strings.Count(host, "*") > maxStars:
		v.fail("the host has %d stars; %d are allowed", strings.Count(host, "*"), maxStars)
		return
	case strings.Contains(labels[last], "*") || numeric(labels[last]):
		v.fail("%s does not end with a domain; the last label must be written out", quoted(host))
		return
	}
	for i, l := range labels {
		switch {
		case strings.Contains(l, "**") && (i > 0 || l != "**"):
			v.fail("%s has ** inside; ** must be the whole first label", quoted(host))
			return
		case i > 0 && l != "*" && strings.Contains(l, "*"):
			v.fail("%s has a partial wildcard behind the first label; write * for the whole label", quoted(host))
			return
		}
	}
	if labels[last-1] == "*" {
		v.warn("%s is wide: anybody can register a domain that it matches", quoted(host))
	}
}
