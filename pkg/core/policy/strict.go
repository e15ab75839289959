package policy

// ReadStrict reads a file of another kind by the rules of the policy file: the same
// YAML, the same limits, every problem at once and with its place. It calls read
// with the file's value, unless there is nothing to look at. The error is of type
// Problems; the warnings are returned in both cases.
func ReadStrict(file string, data []byte, read func(top Node)) (warnings []Problem, err error) {
	r := &reader{file: file}
	if root, ok := r.root(data); ok {
		read(Node{root})
	}
	return r.outcome()
}

// Node is one value of a file that ReadStrict reads. Its methods report what is
// wrong with it.
type Node struct{ v value }

// At is where the value stands.
func (n Node) At() Position { return n.v.at() }

// Fail reports an error at the value, Warn a warning.
func (n Node) Fail(format string, args ...any) { n.v.fail(format, args...) }

// Warn reports a warning at the value.
func (n Node) Warn(format string, args ...any) { n.v.warn(format, args...) }

// Text reads a text.
func (n Node) Text() (string, bool) { return n.v.text() }

// Number reads a whole number in a range.
func (n Node) Number(low, high int64) (int64, bool) { return n.v.number(low, high) }

// List reads the elements of a list.
func (n Node) List() []Node {
	vs, _ := n.v.list()
	out := make([]Node, len(vs))
	for i, v := range vs {
		out[i] = Node{v}
	}
	return out
}

// Entry is one key of a map, with its value.
type Entry struct {
	Name string
	Key  Node
	Node
}

// Entries reads a map whose keys are not known beforehand, in the file's order.
func (n Node) Entries() []Entry {
	es, _ := n.v.entries()
	out := make([]Entry, len(es))
	for i, e := range es {
		out[i] = Entry{e.name, Node{e.key}, Node{e.value}}
	}
	return out
}

// Object reads a map with known keys, and reports all others.
func (n Node) Object(known ...string) (Object, bool) {
	o, ok := n.v.object(known...)
	return Object{o}, ok
}

// Object is a map with known keys.
type Object struct{ o object }

// At is where the map stands.
func (o Object) At() Position { return o.o.at() }

// Has reports whether the key is there.
func (o Object) Has(key string) bool { return o.o.has(key) }

// Get returns the value of a key that Has.
func (o Object) Get(key string) Node { return Node{o.o.fields[key]} }

// Missing reports that a key is not there.
func (o Object) Missing(key, format string, args ...any) { o.o.missing(key, format, args...) }

// Text reads a key that holds text; "" when it is absent or wrong.
func (o Object) Text(key string) string { return o.o.text(key) }

// Word reads a key that holds one of some words; "" when it is absent or wrong.
func (o Object) Word(key string, words ...string) string { return o.o.word(key, words...) }

// Flag reads a key that holds true or false.
func (o Object) Flag(key string, otherwise bool) bool { return o.o.flag(key, otherwise) }

// Texts reads a key that holds a list of texts; wrong entries are left out.
func (o Object) Texts(key string) []string {
	ts := o.o.texts(key)
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = t.s
	}
	return out
}

// Version reads the key version, which has to be 1.
func (o Object) Version() { o.o.version() }

// Quoted quotes what a message repeats from a file.
func Quoted(s string) string { return quoted(s) }
