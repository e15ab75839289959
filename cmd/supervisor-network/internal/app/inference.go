package app

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference"
	"github.com/splitpod/splitpod/pkg/core"
)

// openInference reads the inference routes, if there are any.
func (d *daemon) openInference() error {
	var router *inference.Router
	named := func(host string, port uint16) bool { return router.Named(host, port) }
	router, warnings, err := inference.Open(inference.Config{
		File: d.cfg.InferenceRoutes, Dial: d.dialer.Operator(named), TLS: d.originTLS, Log: d.log, Changed: d.recordRoutes,
	})
	for _, w := range warnings {
		d.log.Warn("inference routes warning", slog.String("problem", w.String()))
	}
	if err != nil {
		return fmt.Errorf("the inference routes are not usable, nothing was started:\n%w", err)
	}
	d.inference = router
	if d.cfg.InferenceRoutes != "" {
		d.recordRoutes(router.Routes(), nil)
	}
	return nil
}

// recordRoutes leaves a record of the inference routes that are in force from now on, or of
// why a changed file is not.
func (d *daemon) recordRoutes(routes []*inference.Route, err error) {
	if err != nil {
		d.log.Error("the changed inference routes are not valid; those before stay in force", slog.Any("error", err))
		d.record.Own(core.Event{Kind: core.EventFinding, Stage: core.StageConfig, Severity: core.SeverityMedium, Reason: core.EventInferenceInvalid,
			Detail: "the routes before stay in force: " + err.Error()})
		return
	}
	severity := core.SeverityInfo
	names := make([]string, len(routes))
	for i, r := range routes {
		if names[i] = r.Name; r.Problem() != "" {
			names[i], severity = r.Name+" (without a usable key)", core.SeverityMedium
		}
	}
	d.record.Own(core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: severity, Reason: core.EventInferenceLoaded,
		Detail: fmt.Sprintf("%d routes: %s", len(routes), strings.Join(names, ", "))})
}
