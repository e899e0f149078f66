"""Reads topics to their ends with librdkafka, once for each isolation level, and prints what it got as JSON.

Usage: kafka-witness.py BROKERS TOPIC... -> {"read_committed": {TOPIC: [[partition, key, value], ...]}, ...}
"""

import json
import sys
import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

PATIENCE_SECONDS = 60


def text(part):
    return None if part is None else part.decode()


def read(brokers, topic, isolation):
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "witness",
        "isolation.level": isolation,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    })
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        open_ends, records = set(partitions), []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while open_ends:
            message = consumer.poll(1.0)
            if time.monotonic() > deadline:
                raise SystemExit(f"{topic}: the ends of {sorted(open_ends)} were not reached")
            if message is None:
                continue
            if message.error() is None:
                place = (message.partition(), message.offset())
                records.append((place, [message.partition(), text(message.key()), text(message.value())]))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                open_ends.discard(message.partition())
            else:
                raise SystemExit(f"{topic}: {message.error()}")
        return [record for _, record in sorted(records, key=lambda record: record[0])]
    finally:
        consumer.close()


brokers, topics = sys.argv[1], sys.argv[2:]
levels = ["read_committed", "read_uncommitted"]
print(json.dumps({level: {topic: read(brokers, topic, level) for topic in topics} for level in levels}))
