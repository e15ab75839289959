package inference

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Limits of a routes file.
const (
	MaxRoutes      = 64
	maxModelBytes  = 256
	maxTimeout     = time.Hour
	defaultTimeout = time.Minute
	// defaultHead is how long a streamed answer may take to begin: a model that thinks, or
	// that is not asked to stream, says nothing before it is done.
	defaultHead = 10 * time.Minute
)

// Route is one provider and model.
type Route struct {
	Name      string
	Model     string
	Provider  string // "openai", "anthropic" and so on: how it is spoken to
	Protocols []Protocol
	KeyFile   string // empty: it wants no key
	// Timeout bounds the whole of a short answer, and the wait for a streamed one to begin.
	// Zero: defaultTimeout and defaultHead.
	Timeout time.Duration

	endpoint *url.URL
	key      secret.Value
	problem  string // why there is no key
}

// provider is how the services of one maker are spoken to.
type provider struct {
	key       string // the field of the key; a bearer token when it is Authorization
	protocols []Protocol
	pass      []string          // fields of the workload that go on, beside passed
	defaults  map[string]string // fields with which a request goes that does not have them
}

var openAI = []Protocol{ChatCompletions, Completions, Responses, Embeddings, Discovery}

var providers = map[string]provider{
	"openai":    {key: "Authorization", protocols: openAI, pass: []string{"Openai-Organization", "X-Model-Id"}},
	"nvidia":    {key: "Authorization", protocols: openAI, pass: []string{"X-Model-Id"}},
	"deepinfra": {key: "Authorization", protocols: openAI, pass: []string{"X-Model-Id"}},
	"anthropic": {key: "X-Api-Key", protocols: []Protocol{Messages, Discovery}, pass: []string{"Anthropic-Version", "Anthropic-Beta"},
		defaults: map[string]string{"Anthropic-Version": "2023-06-01"}},
}

// internal is the name of a route of the reference that no workload is served by.
const internal = "sandbox-system"

var routeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Parse reads a routes file. It returns its routes, or an error of type
// strictyaml.Problems with everything that is wrong; warnings in both cases. Keys are not
// read.
func Parse(file string, data []byte) ([]*Route, []strictyaml.Problem, error) {
	var routes []*Route
	warnings, err := strictyaml.Read(file, data, func(top strictyaml.Value) {
		o, ok := top.Object("version", "routes")
		if !ok {
			return
		}
		if o.Has("version") { // which files of the reference leave out
			o.Version()
		}
		if !o.Has("routes") {
			o.FailKey("routes", "the routes are missing; write routes: [] for none")
			return
		}
		list, _ := o.Fields["routes"].List()
		if len(list) > MaxRoutes {
			o.Fields["routes"].Fail("there are %d routes; %d are allowed", len(list), MaxRoutes)
			return
		}
		for _, v := range list {
			if r := parseRoute(v, routes); r != nil {
				routes = append(routes, r)
			}
		}
	})
	if err != nil {
		return nil, warnings, err
	}
	return routes, warnings, nil
}

// parseRoute reads one route; nil when there is none to serve by.
func parseRoute(v strictyaml.Value, before []*Route) *Route {
	o, ok := v.Object("name", "endpoint", "model", "provider_type", "protocols", "api_key_file", "timeout", "api_key", "api_key_env")
	if !ok {
		return nil
	}
	r := &Route{Name: o.Text("name"), Model: o.Text("model"), KeyFile: o.Text("api_key_file"), Timeout: timeout(o)}
	switch {
	case !o.Has("name") || !routeName.MatchString(r.Name):
		o.FailKey("name", "a route has a name of up to 63 letters, digits and . _ -, which records and metrics use")
	case slices.ContainsFunc(before, func(b *Route) bool { return b.Name == r.Name }):
		o.Fields["name"].Fail("another route has this name; choose a new one")
	}
	if !o.Has("model") || r.Model == "" || len(r.Model) > maxModelBytes {
		o.FailKey("model", "a route says which model its provider is asked for, in up to %d bytes", maxModelBytes)
	}
	r.endpoint = endpoint(o)
	if r.Provider = o.Word("provider_type", known()...); r.Provider == "" {
		r.Provider = "openai" // also what most others speak
	}
	r.Protocols = protocols(o, r.Provider)
	for _, inline := range []string{"api_key", "api_key_env"} {
		if o.Has(inline) {
			o.Fields[inline].Fail("a key is read from a file, which can be replaced while the daemon runs; mount its Secret and write api_key_file: /path/of/it")
		}
	}
	if o.Has("api_key_file") && !strings.HasPrefix(r.KeyFile, "/") {
		o.Fields["api_key_file"].Fail("this is not an absolute path; the key stands in that file, not here")
	}
	if r.Name == internal {
		v.Warn("a route of this name serves no workload, and nothing else asks for models here")
		return nil
	}
	return r
}

func timeout(o strictyaml.Object) time.Duration {
	s := o.Text("timeout")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > maxTimeout {
		o.Fields["timeout"].Fail("this is not a duration from 1s to %s; write for example 90s", maxTimeout)
		return 0
	}
	return d
}

func known() (names []string) {
	for name := range providers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func protocols(o strictyaml.Object, of string) (out []Protocol) {
	may := providers[of].protocols
	for _, t := range o.Texts("protocols") {
		p := Protocol(t.S)
		switch {
		case !slices.Contains(may, p):
			t.Fail("provider_type %s has the protocols %v, and this is none of them", of, may)
		case slices.Contains(out, p):
			t.Fail("this protocol stands twice; remove one")
		default:
			out = append(out, p)
		}
	}
	if !o.Has("protocols") {
		return may
	}
	if len(out) == 0 {
		o.Fields["protocols"].Fail("a route without a protocol serves nothing; leave protocols out for all that the provider has")
	}
	return out
}

// endpoint reads the URL that a provider's API is below.
func endpoint(o strictyaml.Object) *url.URL {
	text := o.Text("endpoint")
	if !o.Has("endpoint") {
		o.FailKey("endpoint", "the endpoint is missing; write the base URL of the provider's API, such as https://host/v1")
		return nil
	}
	u, err := url.Parse(text)
	fail := func(why string) *url.URL {
		o.Fields["endpoint"].Fail("%s", why)
		return nil
	}
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "" || u.Scheme != "https" && u.Scheme != "http":
		return fail("this is not a base URL; write https://host/v1")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return fail("a base URL has no user, no query and no fragment; remove it")
	case u.Scheme == "http" && !credentials.Nearby(u.Hostname()):
		return fail("plain http goes to this pod or to a service of the cluster (name.namespace.svc) only, because it shows the key and the prompts to whoever is between; write https://")
	case strings.Contains(u.EscapedPath(), "//") || strings.Contains(u.EscapedPath()+"/", "/../") || strings.Contains(u.EscapedPath()+"/", "/./"):
		return fail("the path has empty or dot segments; write it without them")
	case strings.EqualFold(u.Hostname(), decide.InferenceHost):
		return fail("this is where the workload asks; write the provider's own URL")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fail("this is not a port; say 1 to 65535")
		}
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(u.RawPath, "/")
	u.Host = strings.ToLower(u.Host)
	return u
}

// Endpoint is the base URL of the provider's API.
func (r *Route) Endpoint() string { return r.endpoint.String() }

// port is the endpoint's.
func (r *Route) port() uint16 {
	if p := r.endpoint.Port(); p != "" {
		n, _ := strconv.ParseUint(p, 10, 16) // the file was checked
		return uint16(n)
	}
	if r.endpoint.Scheme == "https" {
		return 443
	}
	return 80
}
