package health_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/splitpod/splitpod/pkg/core/health"
)

func TestReadinessIsComputedAtEveryRequest(t *testing.T) {
	checks := []health.Check{{Name: "policy", OK: true, Detail: "generation 1"}, {Name: "peer", OK: true}}
	s := health.New(http.NotFoundHandler(), func() []health.Check { return checks })
	for _, c := range []struct {
		name, method, url string
		ok                bool
		status            int
		body              string
	}{
		{"all hold", "GET", "/readyz", true, 200, "ready\n"},
		{"all hold, verbose", "GET", "/readyz?verbose", true, 200, "ok policy: generation 1\nok peer: \nready\n"},
		{"one stops to hold", "GET", "/readyz", false, 503, "FAILED peer: gone\n"},
		{"one stops to hold, verbose", "GET", "/readyz?verbose", false, 503, "ok policy: generation 1\nFAILED peer: gone\n"},
		{"the daemon lives all the same", "GET", "/livez", false, 200, "ok\n"},
		{"it holds again", "GET", "/readyz", true, 200, "ready\n"},
		{"nothing can be changed", "POST", "/readyz", true, 405, "Method Not Allowed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checks[1] = health.Check{Name: "peer", OK: c.ok}
			if !c.ok {
				checks[1].Detail = "gone"
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(c.method, c.url, nil))
			if w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.status, c.body)
			}
		})
	}
}
