# What the README's commands are made of. Each brings first what is missing.

.PHONY: help setup build transforms demo test test-postgres test-kafka test-flink take-over bench lint otlp deb deny advisories clean

help:
	@echo 'make demo        see it at work, on a private PostgreSQL; ARGS=--exit ends by itself'
	@echo 'make test        build everything and run every test, on a private PostgreSQL'
	@echo 'make test-postgres VERSION=18'
	@echo '                 run every test on another PostgreSQL; ARGS="exact:: journals::" for some'
	@echo 'make test-kafka  have librdkafka read what the sink for Kafka writes, where it can be had'
	@echo 'make test-flink  have Flink compute an aggregate from what the file sink writes, where it can be had'
	@echo 'make take-over   measure how long it takes to replace a writer whose host vanishes; takes root, Linux and iproute2'
	@echo 'make bench       measure it against plain PostgreSQL; ARGS=end-to-end for some cases, ARGS=--list names them'
	@echo 'make build       target/release/debshrew'
	@echo 'make transforms  transforms/target/wasm32-unknown-unknown/release/{blocks,ledger}.wasm, and the same for'
	@echo '                 version 1 of the binary interface in transforms/target/version-1/'
	@echo 'make lint        clippy and rustfmt, as continuous integration runs them, with the feature otlp and without'
	@echo 'make otlp        build and test what sends traces'
	@echo 'make deb         a Debian package in target/debian/'
	@echo 'make deny        licences, sources, bans and, where GitHub can be reached, vulnerabilities of the dependencies'
	@echo 'make advisories  only the vulnerabilities; an error where GitHub cannot be reached'
	@echo 'make setup       only bring what building and testing need beside Rust'
	@echo 'make clean       take away what was built'

setup:
	@scripts/setup.sh

build:
	cargo build --release --locked

transforms: setup
	scripts/transforms.sh
	scripts/transforms.sh transforms --no-default-features --target-dir target/version-1

demo: setup transforms build
	target/release/debshrew demo $(ARGS)

test: setup transforms
	cargo test --locked --features failpoints
	cargo test --locked --manifest-path transforms/Cargo.toml
	cargo test --locked --manifest-path transforms/Cargo.toml --no-default-features

test-postgres: setup
	scripts/postgres.sh $(VERSION) cargo test --locked --features failpoints --test tests -- $(ARGS)

test-kafka:
	scripts/kafka-witness.sh

test-flink: setup transforms
	scripts/flink.sh
take-over: setup
	scripts/take-over.sh

bench: setup transforms
	cargo bench --locked --bench bench -- $(ARGS)

lint:
	cargo fmt --check
	cargo fmt --all --check --manifest-path transforms/Cargo.toml
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --manifest-path transforms/Cargo.toml -- -D warnings
	cargo clippy --locked --all-targets --manifest-path transforms/Cargo.toml --no-default-features -- -D warnings

otlp:
	cargo test --locked --features otlp --lib -- otlp::

deb:
	scripts/deb.sh

deny:
	scripts/deny.sh

advisories:
	scripts/deny.sh advisories

clean:
	cargo clean
	cargo clean --manifest-path transforms/Cargo.toml
