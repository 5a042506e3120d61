# Everything goes through one profile (--release), a RocksDB built once per machine (scripts/rocksdb), and a target directory of
# its own: plain `cargo build` works without any of it, and sharing a directory would rebuild whenever the variables change.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup build run demo test bench lint clean

export CARGO_TARGET_DIR := $(or $(QUORATE_TARGET),$(CURDIR)/target/make)
export QUORATE_BIN := $(CARGO_TARGET_DIR)/release
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin

DATA ?= default.etcd
ARGS ?=

# The first line of a recipe that runs cargo; a failure of the script stops the recipe, as it would not inside eval or export.
rocksdb = env=$$(scripts/rocksdb env); eval "$$env"
etcd = QUORATE_ETCD_BIN=$$(scripts/etcd); export QUORATE_ETCD_BIN
ifneq ($(wildcard cluster-test/go/go.mod),)
etcd += ; QUORATE_GO_CLIENT_BIN=$$(scripts/etcd go-client); export QUORATE_GO_CLIENT_BIN
endif

define lint
cargo clippy --release --workspace --locked --all-targets -- -D warnings
cargo fmt --all --check
endef

help: ## Lists the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t10

setup: ## Installs by apt what is missing (C++ compiler, libclang, git); nothing otherwise
	@scripts/setup

build: setup ## Builds quorate (also linked as etcd), quoratectl and cluster-test into target/make/release
	@$(rocksdb)
	cargo build --release --workspace --locked
	ln -sf quorate "$$QUORATE_BIN/etcd"

run: build ## Starts a single member on 127.0.0.1:2379 with its data in ./default.etcd (DATA=dir, ARGS="--more flags")
	@exec "$$QUORATE_BIN/quorate" --data-dir "$(DATA)" $(ARGS)

demo: build ## Three members on loopback in a temporary folder, until Ctrl-C (DEMO_SECONDS=n ends it)
	@exec scripts/demo

test: ## Runs everything: unit, model and cluster tests against real etcd, then clippy and the format check
	@scripts/setup test
	$(rocksdb)
	$(etcd)
	cargo build --release --workspace --locked --bins --tests
	cargo test --release --workspace --locked
	$(lint)

bench: build ## Measures real etcd and ours in turn (ARGS="--rows put-100 --rounds 3 --json FILE")
	@scripts/setup test
	$(etcd)
	exec "$$QUORATE_BIN/cluster-test" bench $(ARGS)

lint: setup ## Clippy (warnings are errors) and the format check
	@$(rocksdb)
	$(lint)

clean: ## Removes what make built here; the RocksDB and etcd of ~/.cache/quorate stay
	@cargo clean
