// Package observability holds an example dashboard for Grafana and alert rules for
// Prometheus, and the test that every metric and label they name exists.
//
// It answers the threat of an alert that can never fire because it is about a metric
// of another name. It does not run PromQL.
package observability
