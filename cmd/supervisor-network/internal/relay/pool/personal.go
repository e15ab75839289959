package pool

import "strings"

// Personal reports whether the credentials in an Authorization field are those of the
// connection and not of the request: origins that speak NTLM or Negotiate take every
// further request on it for the same user's (RFC 4559 section 6).
func Personal(authorization string) bool {
	scheme, _, _ := strings.Cut(authorization, " ")
	return strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate")
}
