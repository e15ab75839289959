// The modules that publish the definitions of the custom resources the chart renders.
// Nothing is built from them and their own requirements do not matter: the tests read
// the files. go mod tidy would find nothing imported and empty it; go mod download
// checks them against go.sum.
module github.com/splitpod/splitpod/test/e2e/kube/programs/definitions

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/agent-sandbox v0.5.3
)
