# Run `make` to see what there is.
.DEFAULT_GOAL := help
GOLANGCI_LINT := v2.15.0
BENCHSTAT     := v0.0.0-20260908200009-22c9c6c9d4da
XEXP          := v0.0.0-20261113113407-e3970619a1a4
export GOBIN  ?= $(CURDIR)/.ci/bin
RESULTS       := $(CURDIR)/integration/faults.out
MODULES        = $(shell git ls-files '*go.mod' | xargs -n1 dirname)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## the library's own tests
	go test ./...

race: ## the same under the race detector
	go test -race ./...

lint: tools ## every linter, in every module (see .golangci.yml)
	set -e; for mod in $(MODULES); do (cd $$mod && $(GOBIN)/golangci-lint run -c $(CURDIR)/.golangci.yml ./...); done

api: tools ## whether the exported API still fits the last tag, or the baseline
	.ci/api

demo: ## a pool at work on a local server, about ten seconds
	go run ./cmd/grpcpool demo

integration: ## real servers: etcd, nginx, haproxy
	cd integration && go test -race -p 1 -skip '^TestTheMatrix$$' ./...

conformance: ## grpc-go's own tests on scale's channels, those that CI runs
	go run ./conformance

conformance-all: ## all of them, and each on plain channels too; about 15 minutes on two cores
	go run ./conformance -plain ./...

faults: export FAULTS_RESULTS := $(RESULTS)
faults: ## the fault matrix, five times over, about three quarters of an hour; writes docs/faults.md
	rm -f $(RESULTS)
	-cd integration && go test ./faults -run 'TestTheMatrix|TestTheOtherRows' -count 1 -timeout 2h -repeat 5 -full
	-cd integration && go test ./faults -run TestASoak -count 1 -timeout 1h -soak 10m
	mkdir -p docs
	cd integration && go run ./faults/cmd/faultreport $(RESULTS) > ../docs/faults.md

pictures: ## the live page in a real browser (chromium); writes docs/poolz-*.png
	cd integration && GRPCPOOL_SCREENSHOTS=$(CURDIR)/.ci/screenshots go test -count=1 -run TheLivePageInARealBrowser ./observe
	for look in light dark; do cp .ci/screenshots/$$look.png docs/poolz-$$look.png && chmod 644 docs/poolz-$$look.png; done

FLEET ?= full
fleet: ## fleets that come back after an outage, in virtual time; an hour or more (FLEET=large: 4 minutes); writes docs/fleet.md
	go test ./internal/fleet -run TestTheReport -count 1 -timeout 3h -fleet $(FLEET) -fleet.report $(CURDIR)/docs/fleet.md

programs: ## the tests of etcd, the OpenTelemetry collector and dskit on scale's channels, half an hour
	go run ./conformance/programs

soak: ## ten minutes of random faults
	cd integration && go test ./faults -run TestASoak -count 1 -timeout 1h -v -soak 10m -seed $$(date +%s)

bench: tools ## lease and RPC of the pool; see bench/ for peers
	go test ./shared -run '^$$' -bench . -count 10 | tee bench.out
	$(GOBIN)/benchstat bench.out

bench-peers: ## every benchmark beside its peers, about 50 minutes; writes bench/results
	$(MAKE) -C bench scale snappy proxy bench

bench-quick: ## every benchmark once, without judging figures
	set -e; for mod in . otelpool cmd/grpcpool bench; do (cd $$mod && go test -run '^$$' -bench . -benchtime 1x -short ./...); done
	$(MAKE) -C bench bench-quick

ci: ## everything that CI runs
	bash .ci/run

tools: $(GOBIN)/golangci-lint $(GOBIN)/benchstat $(GOBIN)/apidiff $(GOBIN)/gorelease ## linter, benchstat and the API's checks, by pinned version

$(GOBIN)/golangci-lint:
	GOWORK=off go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

$(GOBIN)/benchstat:
	GOWORK=off go install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT)

$(GOBIN)/apidiff:
	GOWORK=off go install golang.org/x/exp/cmd/apidiff@$(XEXP)

$(GOBIN)/gorelease:
	GOWORK=off go install golang.org/x/exp/cmd/gorelease@$(XEXP)

.PHONY: pictures help test race lint api demo integration conformance conformance-all programs faults soak bench bench-peers bench-quick ci tools
