# The two commands of the README, and what they are made of. Each brings first what is missing.

.PHONY: help setup transforms build demo test lint clean

help:
	@echo 'make demo           see debshrew work, on a private PostgreSQL and a simulated source'
	@echo 'make demo ARGS=--exit   the same, ending by itself'
	@echo 'make test           build everything and run every test'
	@echo 'make build          target/release/debshrew'
	@echo 'make transforms     the example transforms, as WebAssembly'
	@echo 'make lint           clippy and rustfmt, as continuous integration runs them'

setup:
	@scripts/setup.sh

transforms: setup
	@scripts/build-transforms.sh

build:
	cargo build --release --locked

demo: transforms build
	target/release/debshrew demo $(ARGS)

test: transforms
	cargo test --manifest-path transforms/Cargo.toml --locked
	cargo test --locked --features failpoints

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo fmt --manifest-path transforms/Cargo.toml --check

clean:
	cargo clean
	cargo clean --manifest-path transforms/Cargo.toml
