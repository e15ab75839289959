package http1

import (
	"strconv"
	"strings"
)

// BodyKind says how a body ends.
type BodyKind uint8

// The body kinds.
const (
	NoBody     BodyKind = iota
	Length              // Framing.Length bytes
	Chunked             // by its last chunk
	UntilClose          // responses only: with the connection
)

// Framing is where a message ends.
type Framing struct {
	Kind   BodyKind
	Length int64
}

// requestFraming applies RFC 9112 section 6.3 without any of its leniency.
func requestFraming(f Fields, minor int) (Framing, error) {
	te, coded := f.Get("Transfer-Encoding")
	length, hasLength, err := contentLength(f)
	switch {
	case err != nil:
		return Framing{}, err
	case coded > 0 && hasLength:
		return Framing{}, bad("a message has Content-Length or Transfer-Encoding, not both")
	case coded > 1 || coded == 1 && asciiLower(te) != "chunked":
		return Framing{}, bad("Transfer-Encoding is exactly one field with the value chunked")
	case coded == 1 && minor == 0:
		return Framing{}, bad("HTTP/1.0 has no Transfer-Encoding")
	case coded == 1:
		return Framing{Kind: Chunked}, nil
	case hasLength && length > 0:
		return Framing{Kind: Length, Length: length}, nil
	default:
		return Framing{}, nil
	}
}

// ContentLength is the length a message states, and whether it states one.
func ContentLength(f Fields) (n int64, stated bool) {
	n, stated, err := contentLength(f)
	return n, stated && err == nil
}

// contentLength takes equal repetitions as one field, and nothing but digits.
func contentLength(f Fields) (n int64, has bool, err error) {
	var first string
	for i := range f {
		if !f[i].Is("Content-Length") {
			continue
		}
		if has && f[i].Value != first {
			return 0, false, bad("Content-Length has one value")
		}
		first, has = f[i].Value, true
	}
	if !has {
		return 0, false, nil
	}
	for i := range len(first) {
		if first[i] < '0' || first[i] > '9' {
			return 0, false, bad("Content-Length is a decimal number")
		}
	}
	n, perr := strconv.ParseInt(first, 10, 64)
	if perr != nil {
		return 0, false, bad("Content-Length is a decimal number below 2^63")
	}
	return n, true, nil
}

// Response is a response head.
type Response struct {
	Status  int
	Phrase  string
	Fields  Fields
	Framing Framing
	Close   bool // the origin will close
}

// ParseResponse reads one response head to a request of the given method. Only
// what frames it alike for every reader is accepted.
func ParseResponse(head []byte, method string) (*Response, error) {
	return ParseResponseIn(&Response{}, head, method)
}

// ParseResponseIn is ParseResponse in the memory of a response, and of its fields, that
// nobody needs any more.
func ParseResponseIn(r *Response, head []byte, method string) (*Response, error) {
	line, fields, plain := plainHead(head, r.Fields)
	rest, err := "", error(nil)
	if !plain {
		if line, rest, err = splitHead(head); err != nil {
			return nil, err
		}
	}
	*r = Response{Fields: fields}
	minor := 1
	version, after, _ := strings.Cut(line, " ")
	code, phrase, _ := strings.Cut(after, " ")
	if version == "HTTP/1.0" {
		minor = 0
	} else if version != "HTTP/1.1" {
		return nil, bad("a response starts with HTTP/1.0 or HTTP/1.1")
	}
	r.Status, err = strconv.Atoi(code)
	if err != nil || len(code) != 3 || r.Status < 100 || strings.IndexFunc(phrase, controlByte) >= 0 {
		return nil, bad("a status code has three digits")
	}
	r.Phrase = phrase
	if !plain {
		if r.Fields, err = parseFields(rest); err != nil {
			return nil, err
		}
	}
	r.Close = minor == 0 || r.Fields.Has("Connection", "close")
	r.Framing, err = responseFraming(r, method, minor)
	return r, err
}

func responseFraming(r *Response, method string, minor int) (Framing, error) {
	framing, err := requestFraming(r.Fields, minor)
	switch {
	case err != nil:
		return Framing{}, err
	case method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304:
		return Framing{}, nil
	case framing.Kind != NoBody:
		return framing, nil
	}
	if _, has := r.Fields.Get("Content-Length"); has > 0 {
		return Framing{}, nil // it is zero
	}
	return Framing{Kind: UntilClose}, nil
}
