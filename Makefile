# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

ROCKSDB_DIR := $(HOME)/.cache/flotilla/rocksdb-0.19.0-11.8.1
# A finished RocksDB archive, if there is one, spares twenty CPU minutes of C++ (see xtask/src/rocksdb.rs).
ifneq ($(wildcard $(ROCKSDB_DIR)/librocksdb.a),)
export ROCKSDB_LIB_DIR := $(ROCKSDB_DIR)
export ROCKSDB_STATIC := 1
endif

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
