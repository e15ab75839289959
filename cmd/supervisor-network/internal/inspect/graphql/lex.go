package graphql

import "strings"

// Limits of one document.
const (
	MaxTokens = 20000 // comments are tokens too
	MaxDepth  = 128   // of brackets in one another
)

// scan bounds a document before it is parsed: the parser recurses with every
// bracket. It also refuses the places that are known to be lexed in two ways.
func scan(text string) error {
	l := lexer{text: text}
	depth, tokens := 0, 0
	for {
		c, err := l.token()
		switch {
		case err != nil:
			return err
		case c == 0:
			return nil
		case c == '{' || c == '[' || c == '(':
			if depth++; depth > MaxDepth {
				return bad("brackets of a GraphQL document lie at most 128 deep in one another")
			}
		case c == '}' || c == ']' || c == ')':
			depth--
		}
		if tokens++; tokens > MaxTokens {
			return bad("a GraphQL document has at most 20000 tokens")
		}
	}
}

// lexer tells where tokens begin and end, not whether they are valid.
type lexer struct {
	text string
	pos  int
}

// token reads one token and returns its first byte, 0 at the end.
func (l *lexer) token() (byte, error) {
	l.pos += len(l.text) - l.pos - len(strings.TrimLeft(l.text[l.pos:], " \t\r\n,"))
	if l.pos == len(l.text) {
		return 0, nil
	}
	c := l.text[l.pos]
	switch {
	case c == '#':
		return c, l.comment()
	case strings.HasPrefix(l.text[l.pos:], `"""`):
		l.pos += 3
		return c, l.block()
	case c == '"':
		l.pos++
		return c, l.quoted()
	case nameByte(c) || c == '-':
		l.pos++
		for l.pos < len(l.text) && (nameByte(l.text[l.pos]) || strings.IndexByte("+-.", l.text[l.pos]) >= 0 && c <= '9') {
			l.pos++
		}
		return c, nil
	case c < ' ' || c >= 0x7f:
		return 0, bad("a GraphQL document is ASCII outside of texts and comments")
	case strings.HasPrefix(l.text[l.pos:], "..."):
		l.pos += 3
	default:
		l.pos++
	}
	return c, nil
}

// comment ends with its line. What ends a line has changed: drafts of the language
// counted two characters that no longer count.
func (l *lexer) comment() error {
	line := l.text[l.pos:]
	if end := strings.IndexAny(line, "\r\n"); end >= 0 {
		line = line[:end]
	}
	if strings.ContainsAny(line, "\u2028\u2029") {
		return bad("a comment of a GraphQL document contains no other end of a line than CR and LF")
	}
	l.pos += len(line)
	return nil
}

func (l *lexer) quoted() error {
	for l.pos < len(l.text) {
		switch l.text[l.pos] {
		case '"':
			l.pos++
			return nil
		case '\\':
			l.pos++
		case '\r', '\n':
			return bad("a text of a GraphQL document ends in its line")
		}
		l.pos++
	}
	return bad("a text of a GraphQL document ends with a quotation mark")
}

// block ends at the first three quotation marks; some lexers take the last three of
// a longer row, so that a longer row is refused.
func (l *lexer) block() error {
	for l.pos < len(l.text) {
		rest := l.text[l.pos:]
		switch {
		case strings.HasPrefix(rest, `\"""`):
			l.pos += 4
		case strings.HasPrefix(rest, `""""`):
			return bad("a block of text ends with exactly three quotation marks")
		case strings.HasPrefix(rest, `"""`):
			l.pos += 3
			return nil
		default:
			l.pos++
		}
	}
	return bad("a block of text ends with three quotation marks")
}

func nameByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
