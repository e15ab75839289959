// Package observability holds an example dashboard for Grafana and alert rules for
// Prometheus, scenarios of when each alert fires and when it does not, and the tests of
// both.
//
// It answers the threat of an alert that cannot fire: because it is about a metric of
// another name, of another label, or of a daemon that is gone before it is asked. The
// scenarios run in promtool, Prometheus's own. What real daemons export is compared in
// test/e2e.
package observability
