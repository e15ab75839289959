package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	gossh "golang.org/x/crypto/ssh"
)

// Authorized says who may log in: the owners of keys, and of certificates that an
// authority made. The zero value lets nobody in.
type Authorized struct {
	keys        []gossh.PublicKey
	authorities []authority
}

// authority signs certificates for some principals; without any, for the login name
// that the client gives.
type authority struct {
	key        gossh.PublicKey
	principals []string
}

// maxAuthorized bounds the file.
const maxAuthorized = 1 << 20

// ParseAuthorized reads a file like authorized_keys (sshd(8)). A line that cannot be
// read, and an option other than cert-authority and principals, is an error: what would
// restrict a key must not be lost.
func ParseAuthorized(text []byte) (*Authorized, error) {
	if len(text) > maxAuthorized {
		return nil, fmt.Errorf("it is larger than %d bytes", maxAuthorized)
	}
	a := &Authorized{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := a.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if len(a.keys)+len(a.authorities) == 0 {
		return nil, errors.New("it has no key")
	}
	return a, nil
}

func (a *Authorized) add(line []byte) error {
	key, _, options, _, err := gossh.ParseAuthorizedKey(line)
	if err != nil {
		return err
	}
	if _, ok := key.(*gossh.Certificate); ok {
		return errors.New("it is a certificate; name the key of its authority, with the option cert-authority")
	}
	isAuthority, ca := false, authority{key: key}
	for _, o := range options {
		list, quoted := strings.CutPrefix(o, `principals="`)
		switch {
		case o == "cert-authority":
			isAuthority = true
		case quoted && strings.HasSuffix(list, `"`):
			ca.principals = strings.Split(strings.TrimSuffix(list, `"`), ",")
		default:
			return fmt.Errorf("the option %q is not supported", o)
		}
	}
	switch {
	case isAuthority:
		a.authorities = append(a.authorities, ca)
	case ca.principals != nil:
		return errors.New("the option principals needs cert-authority")
	default:
		a.keys = append(a.keys, key)
	}
	return nil
}

// byCertificate marks the permissions of who logged in with a certificate.
const byCertificate = "login-by-certificate@splitpod"

// check judges a key or certificate. What it returns belongs to this key alone, so that
// a client that offers several gets the permissions of the one it proves.
func (a *Authorized) check(conn gossh.ConnMetadata, key gossh.PublicKey) (*gossh.Permissions, error) {
	cert, ok := key.(*gossh.Certificate)
	if !ok {
		if slices.ContainsFunc(a.keys, func(k gossh.PublicKey) bool { return same(k, key) }) {
			return &gossh.Permissions{}, nil
		}
		return nil, errors.New("this key is not authorised")
	}
	if cert.CertType != gossh.UserCert {
		return nil, errors.New("this is no user's certificate")
	}
	err := errors.New("no authority of ours made this certificate")
	for _, ca := range a.authorities {
		if !same(ca.key, cert.SignatureKey) {
			continue
		}
		principals := ca.principals
		if principals == nil {
			principals = []string{conn.User()}
		}
		for _, p := range principals {
			var checker gossh.CertChecker // refuses critical options: it honours none
			if err = checker.CheckCert(p, cert); err == nil {
				granted := maps.Clone(cert.Extensions)
				if granted == nil {
					granted = make(map[string]string)
				}
				granted[byCertificate] = ""
				return &gossh.Permissions{Extensions: granted}, nil
			}
		}
	}
	return nil, err
}

// permits reports whether who logged in may use an extension of certificates. Without
// a certificate everything is permitted.
func permits(p *gossh.Permissions, extension string) bool {
	if p == nil || p.Extensions == nil {
		return true
	}
	if _, ok := p.Extensions[byCertificate]; !ok {
		return true
	}
	_, ok := p.Extensions[extension]
	return ok
}

func same(a, b gossh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
