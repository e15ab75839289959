package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Limits of a file of headers.
const (
	MaxHeaders     = 16
	MaxHeaderBytes = 8 << 10 // of the file
)

// Headers is a file of what is sent with every request, a line "name: value" each, such
// as an authorisation. It is read for every request, so that a changed one counts at
// once, and it is sent over TLS only. Its values are never part of an error.
type Headers string

// Check reports whether the file can be used.
func (h Headers) Check() error {
	_, err := h.read()
	return err
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (h Headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return h.read()
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (h Headers) RequireTransportSecurity() bool { return true }

func (h Headers) read() (map[string]string, error) {
	f, err := os.Open(string(h))
	if err != nil {
		return nil, fmt.Errorf("read the collector's headers: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxHeaderBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the collector's headers: %w", err)
	case len(data) > MaxHeaderBytes:
		return nil, fmt.Errorf("the collector's headers in %s are more than %d bytes", string(h), MaxHeaderBytes)
	}
	out := make(map[string]string)
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		name, value, err := header(strings.TrimSuffix(line, "\r"))
		if _, twice := out[name]; twice && err == nil {
			err = errors.New("the name was there before")
		}
		if err != nil {
			return nil, fmt.Errorf("the collector's headers in %s, line %d: %w", string(h), i+1, err)
		}
		out[name] = value
	}
	if len(out) > MaxHeaders {
		return nil, fmt.Errorf("the collector's headers in %s are more than %d", string(h), MaxHeaders)
	}
	return out, nil
}

// header takes one line. Names are those that gRPC lets applications use.
func header(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.ToLower(name), strings.Trim(value, " \t")
	bad := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.", c))
	}
	switch {
	case !ok || value == "":
		return "", "", errors.New("say name: value")
	case name == "" || strings.ContainsFunc(name, bad) || strings.HasPrefix(name, "grpc-") || strings.HasSuffix(name, "-bin"):
		return "", "", errors.New("the name is none that can be sent")
	case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }):
		return "", "", errors.New("the value has other characters than printable ASCII")
	case name == "te" || name == "content-type" || name == "user-agent" || name == "host" || name == "connection":
		return "", "", errors.New("the name is the protocol's own")
	}
	return name, value, nil
}
