# Builds a small image that runs as nobody in particular:
#
#   docker build -t debshrew .
#   docker run --rm -v "$PWD:/config:ro" -w /config -e DATABASE_URL debshrew run
#
# Transforms are the user's; mount them with the configuration.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY sql sql
COPY src src
# Cargo reads the manifests of what only tests and benchmarks use as well.
COPY benches benches
COPY transforms transforms
# The manifest names the tests' file; an empty one is enough to build the binary.
RUN mkdir tests && echo > tests/main.rs \
 && cargo build --release --locked \
 && strip target/release/debshrew

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin debshrew
COPY --from=build /src/target/release/debshrew /usr/local/bin/debshrew
USER debshrew
ENTRYPOINT ["debshrew"]
CMD ["run"]
