package websocket

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// DetailRequired is the detail of the 403 to a request that is no handshake, where an
// endpoint takes nothing else.
const DetailRequired = "websocket endpoint requires a valid WebSocket upgrade request"

// acceptGUID is the constant of RFC 6455 section 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Version is the one version of the protocol there is (RFC 6455 section 4.1).
const Version = "13"

// Handshake is a client's valid request for a WebSocket.
type Handshake struct {
	extended   bool // RFC 8441
	key        string
	protocols  []string
	extensions []extension
	offered    string // the extensions as sent
}

func bad(detail string) error {
	return &http1.SyntaxError{Status: 400, Reason: core.ReasonBadRequest, Detail: detail}
}

func wrong(detail string) error {
	return &http1.SyntaxError{Status: 502, Reason: core.ReasonUpstreamInvalid, Detail: detail}
}

// Wanted reports whether a request asks for a WebSocket, validly or not.
func Wanted(f http1.Fields) bool { return lists(f, "Upgrade", "websocket") }

// Read checks a handshake of HTTP/1.1. Its errors are *http1.SyntaxError.
func Read(r *http1.Request) (*Handshake, error) {
	key, keys := r.Fields.Get("Sec-WebSocket-Key")
	switch {
	case r.Method != "GET" || r.Minor != 1:
		return nil, bad("a WebSocket handshake is a GET request of HTTP/1.1")
	case r.Framing != http1.Framing{}:
		return nil, bad("a WebSocket handshake has no body")
	case !lists(r.Fields, "Upgrade", "websocket") || !lists(r.Fields, "Connection", "upgrade"):
		return nil, bad("a WebSocket handshake has Upgrade: websocket and Connection: Upgrade")
	case keys != 1 || !validKey(key):
		return nil, bad("a WebSocket handshake has one Sec-WebSocket-Key of 16 bytes in base64")
	}
	return read(&Handshake{key: key}, r.Fields)
}

// ReadExtended checks the fields of an extended CONNECT with the protocol websocket
// (RFC 8441). Its errors are *http1.SyntaxError.
func ReadExtended(f http1.Fields) (*Handshake, error) {
	for _, name := range []string{"Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Accept"} {
		if _, n := f.Get(name); n > 0 {
			return nil, bad("an extended CONNECT has no field of the HTTP/1.1 handshake")
		}
	}
	return read(&Handshake{extended: true, key: newKey()}, f)
}

// read checks what both forms have.
func read(h *Handshake, f http1.Fields) (*Handshake, error) {
	if version, n := f.Get("Sec-WebSocket-Version"); n != 1 || version != Version {
		return nil, &http1.SyntaxError{Status: 426, Reason: core.ReasonBadRequest, Detail: "the version of WebSocket is " + Version}
	}
	if _, n := f.Get("Sec-WebSocket-Accept"); n > 0 {
		return nil, bad("Sec-WebSocket-Accept belongs to the answer")
	}
	var err error
	if h.protocols, err = readProtocols(f); err != nil {
		return nil, bad(err.Error())
	}
	h.offered = strings.Join(values(f, "Sec-WebSocket-Extensions"), ", ")
	if h.extensions, err = parseExtensions(h.offered); err != nil {
		return nil, bad(err.Error())
	}
	return h, nil
}

// WithoutExtensions is the same handshake of a client that offers none.
func (h *Handshake) WithoutExtensions() *Handshake {
	plain := *h
	plain.extensions, plain.offered = nil, ""
	return &plain
}

// Fields lists the fields that belong to a handshake, lower-case. They are taken out
// of what the client sent before Offer.Fields are added, and out of the answer before
// Agreement.Fields are.
func Fields() []string {
	return []string{"connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions", "sec-websocket-accept"}
}

// Offer is what the origin is asked for.
type Offer struct {
	handshake *Handshake
	parsed    bool
	deflate   *extension // what is left of the offer when frames are parsed
}

// Offer makes the offer to the origin. Parsed says that the session is relayed frame by
// frame: of the extensions then only a permessage-deflate without memory remains, or
// none. Otherwise all stay as they are.
func (h *Handshake) Offer(parsed bool) *Offer {
	o := &Offer{handshake: h, parsed: parsed}
	if parsed {
		o.deflate = reduce(h.extensions)
	}
	return o
}

func (o *Offer) extensions() string {
	switch {
	case !o.parsed:
		return o.handshake.offered
	case o.deflate != nil:
		return o.deflate.String()
	default:
		return ""
	}
}

// Fields are the handshake's fields towards an HTTP/1.1 origin.
func (o *Offer) Fields() http1.Fields {
	f := http1.Fields{{Name: "Upgrade", Value: "websocket"}, {Name: "Connection", Value: "Upgrade"},
		{Name: "Sec-WebSocket-Key", Value: o.handshake.key}, {Name: "Sec-WebSocket-Version", Value: Version}}
	if p := o.handshake.protocols; len(p) > 0 {
		f = append(f, http1.Field{Name: "Sec-WebSocket-Protocol", Value: strings.Join(p, ", ")})
	}
	if e := o.extensions(); e != "" {
		f = append(f, http1.Field{Name: "Sec-WebSocket-Extensions", Value: e})
	}
	return f
}

// Agreement is what both sides have agreed on.
type Agreement struct {
	// Deflate says that messages may be compressed; only where frames are parsed.
	Deflate    bool
	Protocol   string
	extensions string
	handshake  *Handshake
}

// Check reads the origin's answer to Fields. Its errors are *http1.SyntaxError with
// status 502. An answer other than 101 is the origin's refusal, which the caller may
// hand on instead of asking.
func (o *Offer) Check(r *http1.Response) (*Agreement, error) {
	accept, accepts := r.Fields.Get("Sec-WebSocket-Accept")
	upgrade, upgrades := r.Fields.Get("Upgrade")
	switch {
	case r.Status != 101:
		return nil, wrong("the origin did not switch protocols")
	case upgrades != 1 || !strings.EqualFold(upgrade, "websocket") || !lists(r.Fields, "Connection", "upgrade"):
		return nil, wrong("the origin switched to another protocol than WebSocket")
	case accepts != 1 || accept != acceptOf(o.handshake.key):
		return nil, wrong("the origin's Sec-WebSocket-Accept does not belong to the key")
	}
	return o.agree(r.Fields)
}

func (o *Offer) agree(f http1.Fields) (*Agreement, error) {
	a := &Agreement{handshake: o.handshake}
	protocol, n := f.Get("Sec-WebSocket-Protocol")
	if n > 1 || n == 1 && !slices.Contains(o.handshake.protocols, protocol) {
		return nil, wrong("the origin chose a subprotocol that was not offered")
	}
	a.Protocol = protocol
	text := strings.Join(values(f, "Sec-WebSocket-Extensions"), ", ")
	chosen, err := parseExtensions(text)
	if err != nil {
		return nil, wrong("the origin's " + err.Error())
	}
	if !o.parsed {
		if err := onlyOffered(chosen, o.handshake.extensions); err != nil {
			return nil, err
		}
		a.extensions = text
		return a, nil
	}
	if len(chosen) == 0 {
		return a, nil
	}
	answer, err := accepted(o.deflate, chosen)
	if err != nil {
		return nil, err
	}
	a.Deflate, a.extensions = true, answer.String()
	return a, nil
}

// Fields are the handshake's fields of the answer to the client, 101 for HTTP/1.1 and
// 200 for an extended CONNECT.
func (a *Agreement) Fields() http1.Fields {
	var f http1.Fields
	if !a.handshake.extended {
		f = append(f, http1.Field{Name: "Upgrade", Value: "websocket"}, http1.Field{Name: "Connection", Value: "Upgrade"},
			http1.Field{Name: "Sec-WebSocket-Accept", Value: acceptOf(a.handshake.key)})
	}
	if a.Protocol != "" {
		f = append(f, http1.Field{Name: "Sec-WebSocket-Protocol", Value: a.Protocol})
	}
	if a.extensions != "" {
		f = append(f, http1.Field{Name: "Sec-WebSocket-Extensions", Value: a.extensions})
	}
	return f
}

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func validKey(key string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == 16
}

func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return base64.StdEncoding.EncodeToString(b[:])
}
