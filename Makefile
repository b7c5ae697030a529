# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
HOST_TRIPLE := $(shell uname -m)-unknown-linux-gnu
BINARIES := kv-svc image-svc runtime-svc scheduler-svc metrics-svc dns-svc gateway flotilla
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# A finished RocksDB archive, if there is one, spares twenty CPU minutes of C++ (see xtask/src/rocksdb.rs).
ROCKSDB_DIR := $(HOME)/.cache/flotilla/rocksdb-0.19.0-11.8.1
export ROCKSDB_LIB_DIR := $(ROCKSDB_DIR)
export ROCKSDB_STATIC := 1
# One build of a commit is enough: incremental data only costs disk there.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

# What the build, the services and the tests need of the distribution.
PACKAGES := build-essential clang libclang-dev pkg-config python3-pip python3-venv curl jq procps iproute2 nftables \
  dnsutils docker.io etcd-client skopeo busybox-static containerd runc containernetworking-plugins conntrack \
  prometheus

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: setup
setup: ## Install what a bare Debian or Ubuntu machine lacks
	@missing=$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	command -v kubectl >/dev/null || missing="$$missing kubernetes-client"; \
	if [ -n "$$missing" ]; then \
	  echo "installing" $$missing; \
	  $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup (rust-toolchain.toml names the version)"; exit 1; }

.PHONY: rocksdb
rocksdb: $(ROCKSDB_DIR)/librocksdb.a ## Compile RocksDB once for all profiles

$(ROCKSDB_DIR)/librocksdb.a:
	cargo run --quiet --package xtask -- rocksdb-prebuild

.PHONY: build
build: setup rocksdb ## Build the seven services and the flotilla command (release)
	cargo build --release $(addprefix --bin ,$(BINARIES))

.PHONY: app
app: ## Build the example application, static, as the demo's build context
	cargo rustc --quiet --release --package hello --target $(HOST_TRIPLE) -- -C target-feature=+crt-static
	rm -rf $(TARGET)/demo-app && mkdir -p $(TARGET)/demo-app
	cp -r examples/hello/Dockerfile examples/hello/manifests $(TARGET)/demo-app/
	cp $(TARGET)/$(HOST_TRIPLE)/release/hello $(TARGET)/demo-app/hello

.PHONY: demo
demo: build app ## Do the main job from an image to a rollout, step by step
	$(TARGET)/release/flotilla demo --app $(TARGET)/demo-app

.PHONY: lint
lint: rocksdb ## Formatting, clippy, layout rules
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	cargo run --quiet --package xtask -- lint-rooms

.PHONY: test
test: setup rocksdb app ## The whole test suite
	$(MAKE) lint
	cargo test --workspace --no-fail-fast

.PHONY: images
images: setup rocksdb ## Build the container images with a local Docker engine
	cargo run --quiet --package xtask -- images
