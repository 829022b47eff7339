"""A broker as it is run in earnest, and topics that hold a backlog of texts."""

import itertools
import json
import os
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from harness import place
from streaming import broker
from streaming.topics import Topics

PARTITIONS = 12
# JVM settings of Kafka's own start script; the tests' smaller JVM would be the bottleneck.
JVM = "-server -Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35"
SETTINGS = {"log.segment.bytes": str(1 << 30)}


def start() -> broker.Cluster:
    """One broker on ports of its own, with its data where builds lie."""
    os.environ.setdefault("PENSTOCK_KAFKA_JVM", JVM)
    folder = place.CACHE / "kafka/clusters/benches"
    return broker.Cluster(folder, broker.free_ports(broker.PORTS_EACH), settings=SETTINGS).up()


class Backlog:
    """A topic that was filled with texts in turn, one partition after the other, and a group's progress in it."""

    def __init__(self, topics: Topics, name: str, texts: list[str], tokens: list[int], count: int):
        self.topics, self.name, self.tokens, self.count = topics, name, tokens, count
        self.groups = itertools.count(1)
        for topic in (name, f"{name}-out", f"{name}-dead"):
            topics.make(topic, PARTITIONS)
        began = time.monotonic()
        self.fill([json.dumps({"text": text}).encode() for text in texts])
        self.seconds = time.monotonic() - began

    def fill(self, values: list[bytes]) -> None:
        options = {"linger.ms": 20, "batch.num.messages": 10_000, "compression.type": "lz4"}
        producer = Producer(self.topics.bootstrap | options | {"queue.buffering.max.messages": 200_000})
        for number in range(self.count):
            value, partition = values[number % len(values)], number % PARTITIONS
            while True:
                try:
                    producer.produce(self.name, value, b"%d" % number, partition)
                    break
                except BufferError:
                    producer.poll(0.05)
        if producer.flush(120) or sum(self.topics.ends(self.name).values()) != self.count:
            raise SystemExit(f"{self.name} did not take all of {self.count} records")

    def group(self) -> str:
        """A group that has read nothing yet: every burst reads the same records from the first on."""
        return f"{self.name}-{next(self.groups)}"

    def tokens_between(self, before: list[int], after: list[int]) -> int:
        """Real tokens of the records that lie between two positions."""
        spans = enumerate(zip(before, after, strict=True))
        return sum(
            self.tokens[(offset * PARTITIONS + partition) % len(self.tokens)]
            for partition, (first, end) in spans
            for offset in range(first, end)
        )


class Progress:
    """Positions that a group has committed, asked by a client outside the group."""

    def __init__(self, backlog: Backlog, group: str):
        # With `read_committed` the broker would put the question off while offsets of a transaction are pending.
        options = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
        self.consumer = Consumer(backlog.topics.bootstrap | options)
        self.wanted = [TopicPartition(backlog.name, partition) for partition in range(PARTITIONS)]

    def now(self) -> list[int]:
        return [max(one.offset, 0) for one in self.consumer.committed(self.wanted, timeout=10)]

    def edge(self, patience: float = 60.0) -> tuple[float, list[int]]:
        """The next commit: a rate that is taken from commit to commit counts no part of a commit's records."""
        before, end = self.now(), time.monotonic() + patience
        while True:
            after, at = self.now(), time.monotonic()
            if after != before:
                return at, after
            if at > end:
                raise SystemExit(f"nothing was committed within {patience:.0f} s")
            time.sleep(0.005)

    def close(self) -> None:
        self.consumer.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
