package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// upload is a body whose trailer is there when it has ended. Its length is stated, unless it
// is -1, in HTTP/2.
func (w *world) upload(http2 bool, host, path, body string, length int64, trailer http.Header, fields ...string) (*http.Response, string) {
	w.t.Helper()
	announced := make(http.Header)
	r, end := io.Pipe()
	go func() {
		_, _ = io.WriteString(end, body)
		for name, values := range trailer {
			announced[name] = values
		}
		_ = end.Close()
	}()
	req, err := http.NewRequestWithContext(w.t.Context(), "POST", "https://"+host+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	for name := range trailer {
		announced[name] = nil
	}
	if req.Trailer = announced; http2 {
		req.ContentLength = length
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := w.client(http2).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(answer)
}

// TestTrailersOfRequests reach the origin behind the body, whatever both sides speak and
// whoever reads the body on its way, and are no fields of the head.
func TestTrailersOfRequests(t *testing.T) {
	const host, calls = "api.example.com", ", protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: ping}}]"
	const call = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	for name, c := range map[string]struct {
		endpoint, body string
		length         int64
		credentials    bool
		fields         []string
	}{
		"streamed":            {"access: full", strings.Repeat("body", 1<<14), -1, false, nil},
		"of a length":         {"access: full", "body", 4, false, nil},
		"searched":            {"access: full", strings.Repeat("body", 1<<14), -1, true, []string{"Authorization", "Bearer " + marker}},
		"searched ahead":      {"access: full", "body", 4, true, []string{"Authorization", "Bearer " + marker}},
		"with a credential":   {"access: full, request_body_credential_rewrite: true", `{"k":"` + marker + `"}`, -1, true, []string{"Content-Type", "application/json"}},
		"judged":              {calls, call, -1, false, []string{"Content-Type", "application/json"}},
		"behind nothing":      {"access: full", "", -1, false, nil},
		"behind nothing read": {"access: full, request_body_credential_rewrite: true", "", -1, true, nil},
	} {
		for _, client := range []string{"http/1.1", "h2"} {
			for _, origin := range []string{"http/1.1", "h2", "h2 http/1.1"} {
				t.Run(fmt.Sprintf("%s from %s to %s", name, client, origin), func(t *testing.T) {
					rules := ", protocol: rest, enforcement: enforce, " + c.endpoint
					if c.endpoint == calls {
						rules = calls
					}
					w := newWorld(t, generous, endpoint(host, 443, rules))
					if c.credentials {
						w.Vault = keysOf(t, host)
					}
					w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						body, err := io.ReadAll(r.Body)
						if want := strings.ReplaceAll(c.body, marker, ""); err != nil || len(body) < len(want) || r.Header.Get("X-Sum") != "" {
							t.Errorf("the origin got %d bytes, %v, %v", len(body), err, r.Header)
						}
						fmt.Fprint(rw, r.Trailer)
					}), strings.Fields(origin)...)
					resp, got := w.upload(client == "h2", host, "/up", c.body, c.length, http.Header{"X-Sum": {"1"}, "X_other": {"2"}}, c.fields...)
					if want := fmt.Sprint(http.Header{"X-Sum": {"1"}, "X_other": {"2"}}); resp.StatusCode != 200 || got != want {
						t.Errorf("%s %s, want %s", resp.Status, got, want)
					}
				})
			}
		}
	}
}

// TestTrailersAreNoWayAround what was judged, and what credentials go into: such a request
// has an answer of its own, and its origin never sees it as a whole.
func TestTrailersAreNoWayAround(t *testing.T) {
	const host = "api.example.com"
	for name, c := range map[string]struct {
		trailer http.Header
		fields  []string
		status  int
		record  string
	}{
		"authorizes":                     {http.Header{"Cookie": {"a=b"}}, nil, 400, "a trailer does not frame"},
		"overrides":                      {http.Header{"X.http_method-Override": {"DELETE"}}, nil, 400, "a trailer does not frame"},
		"of the head":                    {http.Header{"X-Team": {"b"}}, []string{"X-Team", "a"}, 400, "a trailer has the name"},
		"of the head as a variable":      {http.Header{"X_team": {"b"}}, []string{"X-Team", "a"}, 400, "a trailer has the name"},
		"of a credential":                {http.Header{"X-Api-Key": {"b"}}, []string{"X-Api-Key", marker}, 400, "a trailer has the name"},
		"with a placeholder":             {http.Header{"X-Sum": {marker}}, nil, 403, "placeholder"},
		"with a placeholder as its name": {http.Header{"X-" + strings.ReplaceAll(marker, ":", "-"): {marker}}, nil, 403, "placeholder"},
	} {
		for _, client := range []string{"http/1.1", "h2"} {
			for _, origin := range []string{"http/1.1", "h2"} {
				t.Run(fmt.Sprintf("%s from %s to %s", name, client, origin), func(t *testing.T) {
					w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
					w.Vault = keysOf(t, host)
					w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						if _, err := io.ReadAll(r.Body); err == nil {
							t.Errorf("the origin got all of it, and %v", r.Trailer)
						}
					}), origin)
					resp, got := w.upload(client == "h2", host, "/up", "body", -1, c.trailer, c.fields...)
					records := fmt.Sprint(w.records.list())
					if resp.StatusCode != c.status || !strings.Contains(got, c.record) || !strings.Contains(records, resp.Header.Get("X-Splitpod-Request-Id")) || !strings.Contains(records, c.record) {
						t.Errorf("%s %s\n%s", resp.Status, got, records)
					}
				})
			}
		}
	}
}

// TestTrailersThatCannotCome are not waited for: what was announced has no body to be behind.
func TestTrailersThatCannotCome(t *testing.T) {
	const host = "api.example.com"
	for _, origin := range []string{"http/1.1", "h2"} {
		w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
		w.Vault = keysOf(t, host)
		w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			fmt.Fprint(rw, len(body), err, r.Trailer)
		}), origin)
		for _, http2 := range []bool{false, true} {
			got := w.traced(http2, host, new([]string), "Trailer", "X-Sum")
			if got.StatusCode != 200 {
				t.Errorf("to %s: %s", origin, got.Status)
			}
		}
	}
}

// TestTrailersOfAnswersAreAnnounced to clients of HTTP/1.1 that take them, where their origin
// has announced them, and to those of HTTP/2.
func TestTrailersOfAnswersAreAnnounced(t *testing.T) {
	const host = "api.example.com"
	for _, origin := range []string{"http/1.1", "h2"} {
		for _, c := range []struct {
			http2 bool
			te    []string
			want  http.Header
		}{
			{false, nil, nil},
			{false, []string{"Te", "trailers"}, http.Header{"X-Sum": nil, "X-Other": nil}},
			{true, nil, http.Header{"X-Sum": nil, "X-Other": nil}},
		} {
			w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
			wait := make(chan struct{})
			w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Trailer", "X-Sum, X-Other, Set-Cookie")
				_, _ = io.WriteString(rw, "done")
				_ = http.NewResponseController(rw).Flush()
				<-wait
			}), origin)
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(c.te); i += 2 {
				req.Header.Add(c.te[i], c.te[i+1])
			}
			resp, err := w.client(c.http2).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, resp.Trailer); diff != "" {
				t.Errorf("from %s, HTTP/2 %v: %s", origin, c.http2, diff)
			}
			close(wait)
			resp.Body.Close()
		}
	}
}
