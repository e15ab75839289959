package propose

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// RuleName is the name of a rule about a host and port. Two rules share a name only if
// host and port are the same: for a host with other characters than lower-case letters,
// digits and dots, the name contains a part of the host's hash.
func RuleName(host string, port uint16) string {
	plain := true
	name := strings.Map(func(c rune) rune {
		switch {
		case c == '.':
			return '_'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		}
		plain = false
		switch {
		case 'A' <= c && c <= 'Z':
			return c
		case c == '-' || c == '_':
			return '_'
		}
		return -1
	}, host[:min(len(host), 80)])
	if !plain || len(host) > 80 {
		sum := sha256.Sum256([]byte(host))
		name += "_" + hex.EncodeToString(sum[:4])
	}
	return "allow_" + name + "_" + strconv.Itoa(int(port))
}
