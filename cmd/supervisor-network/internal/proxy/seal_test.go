package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// TestARequestThatIsCutWhileItIsSealedIsNotLate: its body is read whole, to be searched.
func TestARequestThatIsCutWhileItIsSealedIsNotLate(t *testing.T) {
	rest := func(method string) string {
		return endpoint("api.test", 443, ", protocol: rest, enforcement: enforce, rules: [{allow: {method: "+method+", path: /**}}]")
	}
	for name, tc := range map[string]struct {
		end    func(*world, *tls.Conn)
		status int
		reason core.Reason
	}{
		"by another policy":        {func(w *world, _ *tls.Conn) { w.publish(rest("GET")) }, 403, core.ReasonPolicyChanged},
		"by the end of its client": {func(_ *world, c *tls.Conn) { _ = c.CloseWrite() }, 400, core.ReasonBadRequest},
		"by its time":              {func(*world, *tls.Conn) {}, 408, core.ReasonRequestTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2*time.Second, rest("POST"))
			w.Vault = keysOf(t, "api.test")
			w.origin("api.test", 443, http.NotFoundHandler(), "http/1.1")
			c := w.secure("api.test", "http/1.1")
			_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\nbegin")
			w.until("its body is read", func() bool { return w.Bodies.Held() > 0 })
			tc.end(w, c)
			resp, body := answer(t, bufio.NewReader(c), "POST")
			if resp.StatusCode != tc.status || !strings.Contains(body, `"`+string(tc.reason)+`"`) {
				t.Errorf("%s: %s", resp.Status, body)
			}
		})
	}
}

// TestAStreamThatIsCutWhileItIsSealedIsNotLate: as TestARequestThatIsCutWhileItIsSealedIsNotLate.
func TestAStreamThatIsCutWhileItIsSealedIsNotLate(t *testing.T) {
	rest := func(method string) string {
		return endpoint("api.test", 443, ", protocol: rest, enforcement: enforce, rules: [{allow: {method: "+method+", path: /**}}]")
	}
	w := newWorld(t, generous, rest("POST"))
	w.Vault = keysOf(t, "api.test")
	w.origin("api.test", 443, http.NotFoundHandler(), "http/1.1")
	r, body := io.Pipe()
	defer body.Close()
	go func() { _, _ = io.WriteString(body, "begin") }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.test/a", r)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 10
	go func() {
		w.until("its body is read", func() bool { return w.Bodies.Held() > 0 })
		w.publish(rest("GET"))
	}()
	resp, err := w.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if said, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 || !strings.Contains(string(said), string(core.ReasonPolicyChanged)) {
		t.Errorf("%s: %s", resp.Status, said)
	}
}
