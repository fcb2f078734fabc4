# make help lists the targets. Every target does its own set-up on a fresh Debian machine with Go and root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VERSION ?= $(shell cat VERSION)
ARCH    ?= $(shell go env GOARCH)
DIST    ?= dist
BUNDLE  := $(DIST)/quay-appliance-$(VERSION)-linux-$(ARCH).tar

export QUAY_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quay-appliance
export CGO_ENABLED := 0
# The FIPS 140-3 module is the one that ships, so it is the one that is tested.
export GOFIPS140 := v1.0.0
export GOFLAGS := -buildvcs=false -tags=remote,containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper
TOOLS := $(QUAY_CACHE)/tools
# Runs a command with QUAY_TEST_POSTGRES naming a throwaway server.
WITH_POSTGRES := go run ./internal/metadata/pgtest/serve --
export PATH := $(TOOLS):$(PATH)

.PHONY: help setup lint check test test-unit test-cosign test-vm bundle demo demo-down stack contract contract-now bench generate clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

setup: ## install what building and testing need, from the package registries
	@build/setup

lint: setup ## gofmt, go vet, golangci-lint
	@build/tool golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "run gofmt -w on: $$out" >&2; exit 1; }
	golangci-lint run ./...

# Suites that start many processes, kill them, or download packages: all in make test, too long for the quick loop.
SLOW := internal/bundle internal/edge internal/jobs/gc internal/jobs/migrate internal/metadata/schema internal/quadlet
check: setup ## the quick loop: vet and every test but the long ones
	go vet ./...
	$(WITH_POSTGRES) go test $$(go list ./... | grep -v $(foreach p,$(SLOW),-e $(p)$$))

test: lint test-unit test-cosign contract-now test-vm ## everything

# What the recordings ask of core-api and of workers that are still to come.
LATER := ^gc/(repo-delete-|org-delete-|pullstats-flush|autoprune-|repositoryactioncounter)
contract-now:
	$(MAKE) contract EXCEPT='$(LATER)'


test-unit: setup ## every test that needs no machine
	build/tool crane
	build/tool oras
	$(WITH_POSTGRES) go test -count=1 ./...

test-cosign: setup ## the bundle's signature is what cosign verify-blob accepts
	build/tool cosign
	go test -count=1 -tags=$(subst -tags=,,$(lastword $(GOFLAGS))),cosign -run Cosign ./internal/bundle

test-vm: bundle ## the bundle on real systemd + Podman machines: install, power cuts, clients, uninstall
	build/tool crane
	build/tool oras
	BUNDLE=$(abspath $(BUNDLE)) go test -count=1 -v -timeout 30m -tags=$(subst -tags=,,$(lastword $(GOFLAGS))),machine ./test/vm

bundle: setup ## build the offline bundle for ARCH into dist/
	build/bundle $(VERSION) $(ARCH) $(BUNDLE)

demo: bundle ## install the bundle on a disposable machine without any network, push and pull an image; Ctrl-C ends it
	test/vm/demo $(abspath $(BUNDLE))

demo-down: ## remove the machine that make demo left
	test/vm/machine/power demo rm

stack: setup ## all daemons as plain processes with a throwaway PostgreSQL; STACK_CONFIG=DIR starts them on an existing config directory
	go run ./build/stack

contract: setup ## replay the recordings of the legacy server; ONLY=regexp chooses, RECORDINGS=DIR takes others
	go build -o .build/contract/ ./cmd/registryd ./cmd/workers ./test/contract/replay
	$(WITH_POSTGRES) .build/contract/replay -registryd .build/contract/registryd -workers .build/contract/workers \
		$(if $(RECORDINGS),-recordings $(RECORDINGS)) $(if $(ONLY),-only '$(ONLY)') $(if $(EXCEPT),-except '$(EXCEPT)') $(if $(SCHEMA1_KEY),-schema1-key $(SCHEMA1_KEY))

bench: setup ## benchmarks that run two things side by side and print a ratio
	$(WITH_POSTGRES) go test -run='^$$' -bench=. -benchtime=1x ./...

generate: ## generated code: SQL queries, documentation of the commands
	build/tool sqlc
	go generate ./...

clean: ## remove what was built here; the cache stays
	rm -rf $(DIST) .stack .build
