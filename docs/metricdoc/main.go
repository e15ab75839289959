// Command metricdoc writes the reference of both daemons' metrics from the variables
// of type Metric in their observe packages.
//
// It answers the threat of a dashboard or an alert on a metric that is not there: CI
// runs it and fails on a difference.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
)

//go:generate go run . -page ../metrics.md supervisor-network=../../cmd/supervisor-network/internal/observe/metrics.go supervisor-process=../../cmd/supervisor-process/internal/observe/metrics.go

type metric struct {
	kind, name, help string
	labels           []string
}

func main() {
	page := flag.String("page", "", "Markdown file to write")
	flag.Parse()
	if err := run(*page, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "metricdoc:", err)
		os.Exit(1)
	}
}

func run(page string, sources []string) error {
	var b bytes.Buffer
	b.WriteString("# Metrics\n\n")
	b.WriteString("Written by `make generate` from the daemons' `observe` packages; do not edit. Both serve them on\n")
	b.WriteString("`/metrics` of their admin address. Every label is from a closed set; none carries a host, a path or a\n")
	b.WriteString("name that the workload chose. `reason` is one of [the reason codes](reason-codes.md) or `other`.\n")
	b.WriteString("Histograms are native (scrape them with `scrape_native_histograms`), with a few classic buckets.\n")
	b.WriteString("Besides, both have the Go runtime's and the process's metrics (`go_…`, `process_…`).\n")
	for _, s := range sources {
		title, file, _ := strings.Cut(s, "=")
		metrics, err := read(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n", title)
		for _, m := range metrics {
			labels := "–"
			if len(m.labels) > 0 {
				labels = "`" + strings.Join(m.labels, "`, `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, m.kind, labels, unit(m), m.help)
		}
	}
	return os.WriteFile(page, b.Bytes(), 0o644)
}

// read lists the variables of type Metric.
func read(file string) ([]metric, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var out []metric
	ast.Inspect(tree, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		kind, ok := lit.Type.(*ast.Ident)
		if !ok || kind.Name != "Metric" || len(lit.Elts) != 4 {
			return true
		}
		m := metric{kind: strings.ToLower(lit.Elts[0].(*ast.Ident).Name), name: text(lit.Elts[1]), help: text(lit.Elts[2])}
		if labels, ok := lit.Elts[3].(*ast.CompositeLit); ok {
			for _, l := range labels.Elts {
				m.labels = append(m.labels, text(l))
			}
		}
		out = append(out, m)
		return false
	})
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no metrics", file)
	}
	return out, nil
}

// unit is what a metric counts in: by its name, as Prometheus has it.
func unit(m metric) string {
	switch base := strings.TrimSuffix(m.name, "_total"); {
	case strings.HasSuffix(base, "_timestamp_seconds"):
		return "seconds since 1970"
	case strings.HasSuffix(base, "_seconds"):
		return "seconds"
	case strings.HasSuffix(base, "_bytes"):
		return "bytes"
	case strings.HasPrefix(m.help, "1 when "), strings.HasPrefix(m.help, "1 while "):
		return "0 or 1"
	case m.kind == "counter":
		return "since the daemon's start"
	default:
		return "number now"
	}
}

func text(e ast.Expr) string {
	if lit, ok := e.(*ast.BasicLit); ok {
		if s, err := strconv.Unquote(lit.Value); err == nil {
			return s
		}
	}
	return ""
}
