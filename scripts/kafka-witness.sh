#!/usr/bin/env bash
# Has an independent client (librdkafka, by Python's `confluent-kafka`) read what the sink for Kafka has written. Says so, and
# is no failure, where that client cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.16.1
tools=target/tools/kafka-witness
python=$tools/bin/python

if ! "$python" -c "import confluent_kafka" 2>/dev/null; then
  if ! { python3 -m venv "$tools" && "$python" -m pip install --quiet --disable-pip-version-check "confluent-kafka==$version"; } >&2; then
    echo "skipped: Python's confluent-kafka $version cannot be had here" >&2
    exit 0
  fi
fi
DEBSHREW_TEST_WITNESS=$PWD/$python exec cargo test --locked --features failpoints --test tests -- kafka::witness
