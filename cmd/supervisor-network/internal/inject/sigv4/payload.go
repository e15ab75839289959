package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// Payload is how the body goes into the signature.
type Payload struct {
	// Buffer says that the whole body has to be read before the request is signed,
	// at most MaxBody bytes; a client that expects 100 Continue is told to go on.
	Buffer  bool
	literal string // in the place of a digest
	state   bool   // the digest is stated in a field of its own
}

const (
	unsigned         = "UNSIGNED-PAYLOAD"
	unsignedTrailer  = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	contentHashField = "X-Amz-Content-Sha256"
)

// Plan decides about the body before it is read. It fails with an *inject.Error.
func Plan(mode Mode, fields http1.Fields, body http1.Framing) (Payload, error) {
	hash, n := fields.Get(contentHashField)
	streaming := strings.HasPrefix(hash, "STREAMING-")
	switch {
	case n > 1:
		return Payload{}, refuse(400, "a request has one x-amz-content-sha256")
	case streaming && hash != unsignedTrailer:
		return Payload{}, refuse(400, "the body is signed chunk by chunk ("+clip(hash)+"), which cannot be signed anew; let the client send UNSIGNED-PAYLOAD or the digest of the whole body")
	case streaming && mode == Body:
		return Payload{}, refuse(400, "the body is sent in the client's own chunks, and the endpoint signs whole bodies (sigv4:body)")
	case streaming:
		return Payload{literal: unsignedTrailer, state: true}, nil
	case mode == NoBody, mode == Auto && hash == unsigned:
		return Payload{literal: unsigned, state: true}, nil
	case mode == Auto && n == 1 && !isDigest(hash):
		return Payload{}, refuse(400, "x-amz-content-sha256 is not a digest; send the digest of the body or UNSIGNED-PAYLOAD")
	case body.Kind == http1.Chunked || body.Kind == http1.UntilClose:
		return Payload{}, refuse(411, "a body that is signed has a Content-Length")
	case body.Kind == http1.Length && body.Length > MaxBody:
		return Payload{}, refuse(413, "a body that is signed has at most 10485760 bytes; let the client send UNSIGNED-PAYLOAD")
	case mode == Off:
		return Payload{}, refuse(500, "the endpoint signs no requests")
	}
	return Payload{Buffer: body.Kind == http1.Length && body.Length > 0, state: n == 1}, nil
}

// hash is what is signed of the body.
func (p Payload) hash(body []byte) string {
	if p.literal != "" {
		return p.literal
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// clip shows what the client sent, up to a bound and without surprises.
func clip(s string) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f {
			return '?'
		}
		return c
	}, s[:min(len(s), 64)])
}
