package hello

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Limits of one ClientHello.
const (
	MaxHello      = 64 << 10 // the message; crypto/tls has the same limit
	MaxRecords    = 2048     // into which it may be cut
	maxRecord     = 16 << 10
	maxName       = 253
	maxProtocols  = 128
	clientHello   = 1 // type of message
	recordHeader  = 5
	messageHeader = 4
)

// MaxBytes is the longest stream that Parse asks for.
const MaxBytes = MaxHello + MaxRecords*recordHeader

// ErrMore means that the stream is a proper ClientHello as far as it goes.
var ErrMore = errors.New("the ClientHello is not complete")

// ErrMalformed is wrapped by every other error of Parse.
var ErrMalformed = errors.New("the ClientHello cannot be read in one way")

// Hello is what a ClientHello says, as far as this daemon cares. All of it is the
// client's word.
type Hello struct {
	Name      string   // server_name in lower case; empty when there is none
	Protocols []string // ALPN, in the client's order
	// Versions are the TLS versions the client speaks: supported_versions, or else
	// the one version of an old client. They include what nobody has defined.
	Versions  []uint16
	ECH       bool // an encrypted hello, or noise that looks like one
	EarlyData bool // the client means to send data before the handshake ends
}

// Names reports whether the hello is for host: a lower-case name, or an address, for
// which TLS has no name.
func (h *Hello) Names(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return h.Name == ""
	}
	return h.Name == host
}

// Parse reads the ClientHello at the start of a stream. It fails with ErrMore as long
// as the answer needs more of the stream, and never asks for more than MaxBytes;
// with an error that wraps ErrMalformed as soon as it can. What follows the record
// in which the hello ends is not looked at. The Hello does not refer to stream.
func Parse(stream []byte) (*Hello, error) {
	message, err := collect(stream)
	if err != nil {
		return nil, err
	}
	return parse(message)
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// collect puts together the message from its records.
func collect(stream []byte) ([]byte, error) {
	var head [messageHeader]byte
	have, want := 0, messageHeader
	rest := stream
	for n := 0; have < want; n++ {
		if n == MaxRecords {
			return nil, malformed("it is cut into too many records")
		}
		fragment, size, err := record(rest)
		if err != nil {
			return nil, err
		}
		if have < messageHeader {
			copy(head[have:], fragment)
		}
		end := have + size
		have += len(fragment)
		if have > 0 && head[0] != clientHello {
			return nil, malformed("the first message is not a ClientHello")
		}
		if have >= messageHeader {
			want = messageHeader + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
		}
		switch {
		case want > messageHeader+MaxHello:
			return nil, malformed("it is too long")
		case have >= messageHeader && end > want:
			return nil, malformed("something stands behind it in its record")
		case size == 0 || have < end:
			return nil, ErrMore
		}
		rest = rest[recordHeader+size:]
	}
	return join(stream[:len(stream)-len(rest)], want), nil
}

// record reads one record: what has come of its contents, and their whole size. That
// is zero as long as it has not come.
func record(b []byte) (fragment []byte, size int, err error) {
	if begins, _ := startsTLS(b); !begins {
		return nil, 0, malformed("a record is not of a TLS handshake")
	}
	if len(b) < recordHeader {
		return nil, 0, nil
	}
	size = int(binary.BigEndian.Uint16(b[3:]))
	if size == 0 || size > maxRecord {
		return nil, 0, malformed("a record is empty or too long")
	}
	b = b[recordHeader:]
	return b[:min(size, len(b))], size, nil
}

// join copies the contents of whole records.
func join(records []byte, size int) []byte {
	out := make([]byte, 0, size)
	for len(records) > 0 {
		n := recordHeader + int(binary.BigEndian.Uint16(records[3:]))
		out = append(out, records[recordHeader:n]...)
		records = records[n:]
	}
	return out
}

func parse(message []byte) (*Hello, error) {
	s := cryptobyte.String(message)
	var version uint16
	var session, suites, compressions, extensions cryptobyte.String
	switch {
	case !s.Skip(messageHeader) || !s.ReadUint16(&version) || !s.Skip(32):
		return nil, malformed("it is cut short")
	case !s.ReadUint8LengthPrefixed(&session) || len(session) > 32:
		return nil, malformed("the session id")
	case !s.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0:
		return nil, malformed("the cipher suites")
	case !s.ReadUint8LengthPrefixed(&compressions) || bytes.IndexByte(compressions, 0) < 0:
		return nil, malformed("the compression methods")
	case s.Empty(): // older than extensions
		return &Hello{Versions: []uint16{version}}, nil
	case !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty():
		return nil, malformed("the length of its extensions")
	}
	h := &Hello{}
	if err := h.extensions(extensions); err != nil {
		return nil, err
	}
	if h.Versions == nil {
		h.Versions = []uint16{version}
	}
	return h, nil
}

// Extensions that are read.
const (
	serverName        = 0
	alpn              = 16
	earlyData         = 42
	supportedVersions = 43
	ech               = 0xfe0d
	esni              = 0xffce // a draft of ECH; to us the same
)

func (h *Hello) extensions(list cryptobyte.String) error {
	seen := make(map[uint16]bool)
	for !list.Empty() {
		var id uint16
		var data cryptobyte.String
		if !list.ReadUint16(&id) || !list.ReadUint16LengthPrefixed(&data) {
			return malformed("an extension is cut short")
		}
		if seen[id] {
			return malformed("an extension stands twice")
		}
		seen[id] = true
		if err := h.extension(id, data); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hello) extension(id uint16, data cryptobyte.String) (err error) {
	switch id {
	case serverName:
		h.Name, err = name(data)
	case alpn:
		h.Protocols, err = protocols(data)
	case supportedVersions:
		h.Versions, err = versions(data)
	case earlyData:
		if h.EarlyData = true; !data.Empty() {
			err = malformed("early_data")
		}
	case ech, esni:
		h.ECH = true
	}
	return err
}

// name reads exactly one name, of the only type there is.
func name(data cryptobyte.String) (string, error) {
	var list, value cryptobyte.String
	var kind uint8
	switch {
	case !data.ReadUint16LengthPrefixed(&list) || !data.Empty() || !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&value):
		return "", malformed("server_name")
	case !list.Empty():
		return "", malformed("server_name: more than one name")
	case kind != 0:
		return "", malformed("server_name: not the name of a host")
	}
	host := strings.Map(lower, string(value))
	if err := checkName(host); err != nil {
		return "", err
	}
	return host, nil
}

func lower(c rune) rune {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func checkName(host string) error {
	if len(host) == 0 || len(host) > maxName {
		return malformed("server_name: a name has 1 to 253 bytes")
	}
	if strings.ContainsFunc(host, func(c rune) bool { return !nameByte(c) }) {
		return malformed("server_name: a name has letters, digits, hyphens, underscores and dots")
	}
	if host[0] == '.' || host[len(host)-1] == '.' || strings.Contains(host, "..") {
		return malformed("server_name: an empty label")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return malformed("server_name: an address")
	}
	return nil
}

func nameByte(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

func protocols(data cryptobyte.String) ([]string, error) {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || !data.Empty() || list.Empty() {
		return nil, malformed("application_layer_protocol_negotiation")
	}
	var out []string
	for !list.Empty() {
		var p cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&p) || p.Empty() || len(out) == maxProtocols {
			return nil, malformed("application_layer_protocol_negotiation")
		}
		out = append(out, string(p))
	}
	return slices.Clip(out), nil
}

func versions(data cryptobyte.String) ([]uint16, error) {
	var list cryptobyte.String
	if !data.ReadUint8LengthPrefixed(&list) || !data.Empty() || list.Empty() {
		return nil, malformed("supported_versions")
	}
	var out []uint16
	for !list.Empty() {
		var v uint16
		if !list.ReadUint16(&v) {
			return nil, malformed("supported_versions")
		}
		out = append(out, v)
	}
	return out, nil
}
