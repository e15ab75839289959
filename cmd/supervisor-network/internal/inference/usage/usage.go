// Package usage reads out of a model provider's answer how many tokens it took, while the
// answer passes by.
//
// It answers the threat of an answer that fills the daemon's memory or holds up what it is
// about: nothing of an answer is kept but the numbers, an answer of any length takes a Meter
// of one size, and it passes whether or not it can be read. Nor does a text that a model was
// made to write count: only the object that the provider's own envelope names is looked at.
// It does not answer a provider that states wrong numbers; they are its word.
//
// Invariant: the numbers are the same however the answer is cut into pieces.
//
// Sources: OpenAI's chat completions, completions, embeddings and responses (usage), and
// Anthropic's messages (usage, message.usage), as JSON (RFC 8259) or as events of the HTML
// standard (9.2, server-sent events).
package usage

import (
	"bytes"
	"mime"
)

// Meter reads one answer. Make it with New. It belongs to one goroutine.
type Meter struct {
	form  form
	field int // how much of an event's line was the name of the field, so far; -1: it is another
	text  scanner
}

// form is what an answer is read as.
type form uint8

const (
	other    form = iota // nothing that is looked at
	document             // one JSON text
	events               // a stream of events, each with a JSON text
)

// New makes a Meter for an answer with this Content-Type. Of anything but JSON and event
// streams nothing is looked at; of one in a content coding nothing is found.
func New(contentType string) *Meter {
	m := &Meter{}
	switch media, _, _ := mime.ParseMediaType(contentType); media { // whatever its parameters are
	case "application/json":
		m.form = document
	case "text/event-stream":
		m.form = events
	}
	return m
}

// Write reads on. It takes everything and never fails.
func (m *Meter) Write(p []byte) (int, error) {
	switch m.form {
	case document:
		m.text.scan(p)
	case events:
		m.lines(p)
	}
	return len(p), nil
}

// Tokens are what the request and the answer came to, so far: of a stream of events the last
// numbers count. What an Anthropic model read from its cache, or wrote to it, is of the request.
// A number that was not said is 0; known is false when none was, or one cannot be.
func (m *Meter) Tokens() (in, out uint64, known bool) {
	c := &m.text.counts
	if !c.said || c.wrong {
		return 0, 0, false
	}
	if in = c.tokens[input] + c.tokens[created] + c.tokens[read]; c.prompted {
		in = c.tokens[prompt]
	}
	return in, c.tokens[output], true
}

// data is the one field of an event that is read.
const data = "data:"

// lines reads a stream of events. A line ends with a newline, behind a carriage return or
// not; a carriage return alone, which the standard lets end one too, is sent by nobody.
func (m *Meter) lines(p []byte) {
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		m.line(line)
		if ended {
			m.endLine()
		}
		p = rest
	}
}

func (m *Meter) line(p []byte) {
	for len(p) > 0 && m.field >= 0 && m.field < len(data) {
		switch {
		case p[0] == data[m.field]:
			m.field++
		case p[0] != '\r' || m.field > 0:
			m.field = -1
		}
		p = p[1:]
	}
	if m.field == len(data) {
		m.text.scan(p)
	}
}

// endLine ends a line, and with one that is empty an event.
func (m *Meter) endLine() {
	switch m.field {
	case 0:
		m.text.position = position{}
	case len(data):
		m.text.scan([]byte("\n"))
	}
	m.field = 0
}
