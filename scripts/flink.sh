#!/usr/bin/env bash
# Has Flink read what the file sink has written, through reorgs, and compares its aggregate with PostgreSQL's. Says so, and is no
# failure, where Flink or a Java runtime cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.3.0
tools=target/tools/flink
python=$tools/bin/python

if ! command -v java >/dev/null; then
  echo "skipped: there is no java here" >&2
  exit 0
fi
if ! "$python" -c "import pyflink" 2>/dev/null; then
  if ! { python3 -m venv "$tools" && "$python" -m pip install --quiet --disable-pip-version-check "apache-flink-libraries==$version"; } >&2; then
    echo "skipped: Python's apache-flink-libraries $version cannot be had here" >&2
    exit 0
  fi
fi
libraries=$("$python" -c "import os, pyflink; print(os.path.join(list(pyflink.__path__)[0], 'lib'))")
DEBSHREW_TEST_FLINK=$libraries exec cargo test --locked --features failpoints --test tests -- sinks::flink --nocapture
