package credentials

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Limits of a credentials file.
const (
	MaxKeys     = 1024
	MaxBindings = 256 // of one key or grant
	MaxGrants   = 64
)

// Parse reads a credentials file. It returns a valid Document, or an error of type
// strictyaml.Problems with everything that is wrong.
func Parse(file string, data []byte) (*Document, []strictyaml.Problem, error) {
	p := parser{doc: &Document{}}
	warnings, err := strictyaml.Read(file, data, p.top)
	if err != nil {
		return nil, warnings, err
	}
	return p.doc, warnings, nil
}

type parser struct{ doc *Document }

func (p *parser) top(n strictyaml.Value) {
	o, ok := n.Object("version", "credentials", "signing", "token_grants")
	if !ok {
		return
	}
	o.Version()
	if o.Has("credentials") {
		entries, _ := o.Fields["credentials"].Entries()
		if len(entries) > MaxKeys {
			o.Fields["credentials"].Fail("there are %d keys; %d are allowed", len(entries), MaxKeys)
			return
		}
		for _, e := range entries {
			p.key(e)
		}
	}
	if o.Has("signing") {
		list, _ := o.Fields["signing"].List()
		for _, n := range list {
			p.signing(n)
		}
	}
	if o.Has("token_grants") {
		p.grants(o.Fields["token_grants"])
	}
}

func (p *parser) find(name string) *Key {
	for i := range p.doc.Keys {
		if p.doc.Keys[i].Name == name {
			return &p.doc.Keys[i]
		}
	}
	return nil
}

func (p *parser) key(e strictyaml.Entry) {
	k := Key{Name: e.Name, Form: placeholder.Canonical, At: e.Key.At()}
	o, ok := e.Object("file", "environment", "placeholder", "alias_prefix", "expires", "expires_after", "bindings", "anywhere", "response_hygiene")
	if !ok {
		return
	}
	checkName(e)
	k.File = path(o, "file")
	k.Environment = o.Flag("environment", true)
	k.form(o)
	k.expiry(o)
	k.where(o)
	switch o.Word("response_hygiene", "headers", "bodies", "none") {
	case "bodies":
		k.Hygiene = HygieneBodies
	case "none":
		k.Hygiene = HygieneOff
	}
	p.doc.Keys = append(p.doc.Keys, k)
}

func checkName(e strictyaml.Entry) {
	switch {
	case placeholder.Reserved(e.Name):
		e.Key.Fail("a key does not start with v<digits>_ or s<64 hexadecimal digits>_, which placeholders use; choose another name")
	case !placeholder.ValidKey(e.Name) || e.Name[0] >= '0' && e.Name[0] <= '9':
		e.Key.Fail("a key is the name of an environment variable: up to %d letters, digits and _, not beginning with a digit", placeholder.MaxKeyBytes)
	}
}

// path reads an absolute path. What is none is not repeated: it may be the secret itself,
// and so may what stands for a time or the name of a key.
func path(o strictyaml.Object, key string) string {
	if !o.Has(key) {
		o.FailKey(key, "the file is missing; write the path of the mounted secret")
		return ""
	}
	s := o.Text(key)
	if s != "" && (!filepath.IsAbs(s) || filepath.Clean(s) != s) {
		o.Fields[key].Fail("this is not a plain absolute path; write it from / on, without . or ..; the secret stands in that file, not here")
	}
	if n := o.Fields[key]; s == "" {
		if _, ok := n.Text(); ok {
			n.Fail("the path is empty; write the path of the mounted secret")
		}
	}
	return s
}

func (k *Key) form(o strictyaml.Object) {
	switch o.Word("placeholder", "canonical", "revision", "stable", "alias") {
	case "revision":
		k.Form = placeholder.Revision
	case "stable":
		k.Form = placeholder.Stable
	case "alias":
		k.Form = placeholder.Alias
	}
	k.Prefix = o.Text("alias_prefix")
	switch {
	case k.Form == placeholder.Alias && !placeholder.ValidPrefix(k.Prefix):
		o.FailKey("alias_prefix", "an alias needs a prefix of letters, digits, and the characters . _ ~ -; write for example alias_prefix: sk-")
	case k.Form != placeholder.Alias && o.Has("alias_prefix"):
		o.Fields["alias_prefix"].Fail("alias_prefix has no effect without placeholder: alias; add that or remove this")
	case !k.Environment && o.Has("placeholder"):
		o.Fields["placeholder"].Fail("the workload gets no placeholder of a key with environment: false; remove one of the two")
	}
}

// maxLife bounds durations of the file.
const maxLife = 10 * 365 * 24 * time.Hour

func (k *Key) expiry(o strictyaml.Object) {
	if o.Has("expires") && o.Has("expires_after") {
		o.Fields["expires"].Fail("expires and expires_after are both set; keep one")
		return
	}
	k.Expiry.After = duration(o, "expires_after", time.Second, maxLife)
	s := o.Text("expires")
	switch {
	case s == "":
	case s == "jwt":
		k.Expiry.JWT = true
	default:
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			o.Fields["expires"].Fail(`this is not a time; write "2026-12-31T23:59:59Z", or jwt for what the token itself says`)
			return
		}
		k.Expiry.At = at
	}
}

func duration(o strictyaml.Object, key string, low, high time.Duration) time.Duration {
	s := o.Text(key)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < low || d > high {
		o.Fields[key].Fail("this is not a duration from %s to %s; write for example 1h30m", low, high)
		return 0
	}
	return d
}

// where reads what a key is bound to. That it is bound to nothing has to be said.
func (k *Key) where(o strictyaml.Object) {
	k.Anywhere = o.Flag("anywhere", false)
	if o.Has("bindings") {
		k.Bindings = bindings(o.Fields["bindings"])
	}
	switch {
	case k.Anywhere && o.Has("bindings"):
		o.Fields["anywhere"].Fail("bindings and anywhere exclude each other; keep the bindings")
	case k.Anywhere:
		o.Fields["anywhere"].Warn("the key goes to every host that the policy permits; write bindings if you can")
	case !o.Has("bindings") && k.Environment:
		o.FailKey("bindings", "the key is bound to no endpoint; write bindings with host and port, or anywhere: true if every permitted host may get it")
	}
}

func bindings(n strictyaml.Value) []Binding {
	list, _ := n.List()
	switch {
	case len(list) == 0:
		n.Fail("the list is empty; write at least one host and port")
	case len(list) > MaxBindings:
		n.Fail("there are %d bindings; %d are allowed", len(list), MaxBindings)
		return nil
	}
	var out []Binding
	for _, n := range list {
		o, ok := n.Object("host", "port", "ports", "path")
		if !ok {
			continue
		}
		b, err := Binding{Host: host(o), Ports: ports(o), Path: scope(o)}.compile()
		if err == nil { // else it is reported
			out = append(out, b)
		}
	}
	return out
}

func host(o strictyaml.Object) string {
	s := strings.ToLower(o.Text("host"))
	_, err := glob.CompileSelector(s)
	switch {
	case !o.Has("host") || s == "":
		o.FailKey("host", "the host is missing; write for example api.example.com")
	case strings.Trim(s, "*.") == "":
		o.Fields["host"].Fail("%s is every host; name a domain, or write anywhere: true in the place of bindings", strictyaml.Quoted(s))
	case err != nil:
		o.Fields["host"].Fail("%s is not a host selector: %v", strictyaml.Quoted(s), err)
	case strings.Contains(s, "*") && strings.Count(strings.TrimLeft(s, "*."), ".") == 0:
		o.Fields["host"].Warn("%s is wide: anybody can register a domain that it matches", strictyaml.Quoted(s))
	}
	return s
}

func ports(o strictyaml.Object) (out []uint16) {
	var list []strictyaml.Value
	switch {
	case o.Has("port") && o.Has("ports"):
		o.Fields["port"].Fail("port and ports are both set; keep ports")
	case o.Has("port"):
		list = []strictyaml.Value{o.Fields["port"]}
	case o.Has("ports"):
		if list, _ = o.Fields["ports"].List(); len(list) == 0 {
			o.Fields["ports"].Fail("the list is empty; write at least one port")
		}
	default:
		o.FailKey("port", "the port is missing; write port or ports")
	}
	for _, n := range list {
		if port, ok := n.Number(1, 65535); ok && !slices.Contains(out, uint16(port)) {
			out = append(out, uint16(port))
		}
	}
	return out
}

func scope(o strictyaml.Object) string {
	s := o.Text("path")
	switch err := glob.CompileScope(s).Err(); {
	case s == "":
	case s != "**" && s[0] != '/':
		o.Fields["path"].Fail("%s does not start with /; write a path, or ** for all", strictyaml.Quoted(s))
	case err != nil:
		o.Fields["path"].Fail("%s is not a valid pattern: %v", strictyaml.Quoted(s), err)
	}
	return s
}
