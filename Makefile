# Targets: build dist images setup test cluster demo run lint fuzz generate check profile bench. `make check` is
# what CI runs. Kernel tests need root; `make test` fails where they cannot run.

VERSION ?= devel
COMMIT  ?= $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)
GO      ?= go
REPOSITORY ?= splitpod
APP      = github.com/splitpod/splitpod/cmd/$(1)/internal/app
LDFLAGS  = -s -w -X $(APP).version=$(VERSION) -X $(APP).commit=$(COMMIT)
# Same source, same bytes: what git could tell the linker, tags and files beside, differs
# between clones of one commit. COMMIT is all that is taken, and can be given.
# The network daemon is compiled for its hot paths (cmd/supervisor-network/default.pgo).
BUILD    = $(GO) build -pgo=auto -trimpath -buildvcs=false
DAEMONS  = supervisor-network supervisor-process
ARCHES   = amd64 arm64

export CGO_ENABLED = 0
# What only tests and checks is compiled without the profile, or every package would be
# compiled twice.
export GOFLAGS := $(strip $(GOFLAGS) -pgo=off)

.PHONY: build
build: $(DAEMONS:%=bin/%) ## both daemons for this machine

.PHONY: $(DAEMONS:%=bin/%)
$(DAEMONS:%=bin/%):
	$(BUILD) -ldflags '$(call LDFLAGS,$(@F))' -o $@ ./cmd/$(@F)

.PHONY: dist
dist: ## both daemons for every architecture
	$(foreach a,$(ARCHES),$(foreach d,$(DAEMONS),GOARCH=$(a) $(BUILD) -ldflags '$(call LDFLAGS,$(d))' -o dist/$(a)/$(d) ./cmd/$(d) &&)) true
	$(GO) run ./deploy/k8s/images -roots dist/ca-certificates.crt

.PHONY: images
images: dist ## OCI archives of both daemons for every architecture, with SBOMs; no engine needed
	$(GO) run ./deploy/k8s/images -version $(VERSION) -repository $(REPOSITORY) -revision '$(COMMIT)'

.PHONY: setup
setup: ## programs that the tests use
	GO='$(GO)' ./test/setup.sh

.PHONY: demo
demo: ## a real workload that reaches exactly what its policy says
	GO='$(GO)' ./test/setup.sh demo
	$(MAKE) build
	GO='$(GO)' ./deploy/local/demo.sh

.PHONY: run
run: build ## one workload: make run POLICY=file.yaml CMD='curl -sS https://example.com'
	./deploy/local/run.sh '$(POLICY)' $(CMD)

# The race detector leaves out test/e2e: the daemons it starts are not built with it.
.PHONY: test
test: setup build dist cluster ## everything: unit, kernel, end to end, a real cluster, race detector
	SPLITPOD_TEST_REQUIRE=all CGO_ENABLED=1 $(GO) test -race -short $(shell $(GO) list ./... | grep -v /test/e2e)
	SPLITPOD_TEST_REQUIRE=all $(GO) test -timeout 40m ./...
	cd cmd/supervisor-network/internal/inject/sigv4/interop && SPLITPOD_TEST_REQUIRE=all $(GO) test .

# The cluster's programs are built from source, which takes minutes once: begun in the
# background, awaited by whoever needs them (test/e2e/kube/programs/build.sh).
.PHONY: cluster
cluster: setup
	mkdir -p bin
	nice -n 19 ./test/e2e/kube/programs/build.sh >bin/cluster-build.log 2>&1 &

.PHONY: lint
lint:
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./cmd/... ./pkg/... ./api/...
	$(GO) tool staticcheck ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME
	./test/fuzz.sh $(or $(FUZZTIME),10s)

.PHONY: generate
generate: ## generated code and pages; needs protoc
	GOBIN=$(CURDIR)/bin/tools $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH=$(CURDIR)/bin/tools:$$PATH $(GO) generate ./...

.PHONY: check
check: setup lint generate test ## what CI runs
	git diff --exit-code

.PHONY: profile
profile: ## default.pgo anew, from the benchmarks of the network daemon; where its hot paths change
	mkdir -p bin
	$(GO) test ./cmd/supervisor-network/internal/proxy -trimpath -run '^$$' -bench 'KeepAlive|Handshake|Stream|Connect' \
		-benchtime 10s -o bin/proxy.test -cpuprofile $(CURDIR)/bin/proxy.prof
	$(GO) tool pprof -proto -focus supervisor-network/internal/ -ignore '_test\.go' \
		-output cmd/supervisor-network/default.pgo bin/proxy.test bin/proxy.prof # without clients and origins

.PHONY: bench
bench: build ## load through the proxy and without it, in one run
	$(GO) run ./test/load
