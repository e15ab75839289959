package usage

// scanner reads JSON texts, one after the other, as far as it takes to know where in them
// it is: how deep, and whether on the way to the usage, which is the member of that name of
// the outermost object, or of that one's member message or response. What is no JSON is read
// as something, and counts only where it looks like a usage.
type scanner struct {
	position
	counts
}

// position is a place in a text. The zero position is where it begins.
type position struct {
	state  state
	depth  int    // objects and arrays that are open
	path   int    // so many of them, from the outermost, are objects on the way to the usage
	inside bool   // the last of those is the usage
	key    bool   // the next text is a key of the last of those
	escape bool   // the next byte of a text is escaped
	member member // whose value comes next
	name   [maxName]byte
	length int // of the name that is read; above maxName: it is none that we know
	number uint64
}

// state is what the next byte is part of.
type state uint8

const (
	between state = iota
	inText
	inNumber
)

// member is a member of an object on the way to the usage, or of the usage.
type member uint8

const (
	unknown member = iota
	outer          // message or response
	usage
	prompt // all of the request
	input  // the request, of which the two that follow are not a part
	created
	read
	output
	members
)

const (
	maxName   = len("cache_creation_input_tokens")
	maxTokens = 1e12
)

// counts are the numbers of the usages so far.
type counts struct {
	tokens   [members]uint64
	prompted bool // prompt was one of them
	said     bool // there was one
	wrong    bool // one was negative, no whole number or above maxTokens
}

func (c *counts) set(m member, n uint64) {
	c.tokens[m], c.said = n, true
	c.prompted = c.prompted || m == prompt
	c.wrong = c.wrong || n > maxTokens
}

func (s *scanner) scan(p []byte) {
	for len(p) > 0 {
		switch s.state {
		case inText:
			p = s.readText(p)
		case inNumber:
			p = s.readNumber(p)
		default:
			p = s.readBetween(p)
		}
	}
}

// readText reads to the end of a text, and returns what is behind it.
func (s *scanner) readText(p []byte) []byte {
	for i, c := range p {
		switch {
		case s.escape:
			s.escape = false
		case c == '\\': // none of the names that we know is written with one
			s.escape, s.length = true, maxName+1
		case c == '"':
			s.state = between
			if s.key {
				s.key, s.member = false, s.named()
			}
			return p[i+1:]
		case s.key && s.length < maxName:
			s.name[s.length] = c
			s.length++
		case s.key:
			s.length = maxName + 1
		}
	}
	return nil
}

// named is the member whose name was read.
func (s *scanner) named() member {
	if s.length > maxName {
		return unknown
	}
	name := s.name[:s.length]
	if !s.inside {
		switch string(name) {
		case "usage":
			return usage
		case "message", "response":
			if s.path == 1 {
				return outer
			}
		}
		return unknown
	}
	switch string(name) {
	case "prompt_tokens":
		return prompt
	case "input_tokens":
		return input
	case "cache_creation_input_tokens":
		return created
	case "cache_read_input_tokens":
		return read
	case "completion_tokens", "output_tokens":
		return output
	}
	return unknown
}

// readNumber reads to the end of a number of the usage, and returns what is behind it. One
// that is not whole and positive becomes one that is too large.
func (s *scanner) readNumber(p []byte) []byte {
	for i, c := range p {
		switch c {
		case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			s.number = min(s.number*10+uint64(c-'0'), maxTokens+1)
		case '-', '+', '.', 'e', 'E':
			s.number = maxTokens + 1
		default:
			s.set(s.member, s.number)
			s.state, s.member = between, unknown
			return p[i:]
		}
	}
	return nil
}

// readBetween reads to the next text, or number of the usage, and returns it and what is
// behind it.
func (s *scanner) readBetween(p []byte) []byte {
	for i, c := range p {
		switch c {
		case '"':
			s.state, s.length = inText, 0
			return p[i+1:]
		case '{', '[':
			s.open(c == '{')
		case '}', ']':
			s.close()
		case ',':
			if s.depth == s.path {
				s.key, s.member = s.path > 0, unknown
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			if s.inside && s.member != unknown {
				s.state, s.number = inNumber, 0
				return p[i:]
			}
		}
	}
	return nil
}

// open goes into an object or array.
func (s *scanner) open(object bool) {
	onPath := object && s.depth == s.path && (s.path == 0 || s.member == outer || s.member == usage)
	s.inside = s.inside || onPath && s.member == usage
	s.depth++
	if onPath {
		s.path = s.depth
	}
	s.key, s.member = onPath, unknown
}

// close leaves an object or array.
func (s *scanner) close() {
	if s.depth == 0 {
		return
	}
	if s.depth == s.path {
		s.path--
		s.inside = false
	}
	s.depth--
	s.key, s.member = false, unknown
}
