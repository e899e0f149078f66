# What the README's commands are made of. Each brings first what is missing.

.PHONY: help setup build test lint clean

help:
	@echo 'make test    build everything and run every test, on a private PostgreSQL'
	@echo 'make build   target/release/debshrew'
	@echo 'make lint    clippy and rustfmt, as continuous integration runs them'

setup:
	@scripts/setup.sh

build:
	cargo build --release --locked

test: setup
	cargo test --locked --features failpoints

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings

clean:
	cargo clean
