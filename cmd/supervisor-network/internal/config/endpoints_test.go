package config_test

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
)

func TestOTLPEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		"http://collector:4317":           "collector:4317 in the clear",
		"https://collector:4317/":         "collector:4317",
		"https://[fd00::1]:4317":          "[fd00::1]:4317",
		"collector:4317":                  "error",
		"grpc://collector:4317":           "error",
		"http://collector":                "error",
		"http://:4317":                    "error",
		"http://collector:0":              "error",
		"http://collector:65536":          "error",
		"http://user:secret@collector:1":  "error",
		"http://collector:4317/v1/logs":   "error",
		"http://collector:4317?x=y":       "error",
		"http://user:secret@collector:%z": "error",
		"":                                "error",
	} {
		c := &config.Config{OTLPEndpoint: in}
		address, clear, err := c.OTLP()
		got := address
		if clear {
			got += " in the clear"
		}
		if err != nil {
			got = "error"
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", in, err)
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
