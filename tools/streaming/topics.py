"""Topics and groups as a client that we did not write sees them: confluent-kafka, over the open listener."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from .broker import Cluster
from .properties import USER

# A broker that comes back takes seconds; a slow machine many.
PATIENCE = 120.0
QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 500}


class TooLong(Exception):
    """The awaited condition did not come."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it lies in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int

    def header(self, name: str) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


def until(holds: Callable, what: str, patience: float = PATIENCE, pause: float = 0.05):
    """Result of `holds()` once it is true; a missing broker is asked again."""
    end = time.monotonic() + patience
    while True:
        try:
            if result := holds():
                return result
            last = "still not so"
        except KafkaException as error:
            last = str(error)
        if time.monotonic() > end:
            raise TooLong(f"after {patience:.0f} s not yet: {what} ({last})")
        time.sleep(pause)


class Topics:
    """An administrator's hand on a cluster."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.bootstrap = {"bootstrap.servers": cluster.bootstrap()} | QUIET
        self.admin = AdminClient(self.bootstrap)

    def make(self, name: str, partitions: int = 12, config: dict[str, str] | None = None, replicas: int = -1) -> None:
        """Returns when every partition has a leader."""
        topic = NewTopic(name, partitions, replicas, config=config or {})
        until(lambda: self.made(topic), f"topic {name} made")
        until(lambda: self.led(name, partitions), f"a leader of each partition of {name}")

    def made(self, topic: NewTopic) -> bool:
        try:
            self.admin.create_topics([topic], request_timeout=20)[topic.topic].result()
        except KafkaException as error:
            # An answer that was lost on its way was no failure.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return True

    def led(self, name: str, partitions: int) -> bool:
        found = self.admin.list_topics(name, timeout=10).topics[name].partitions
        return len(found) == partitions and all(one.leader >= 0 for one in found.values())

    def remove(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result()
        until(lambda: name not in self.admin.list_topics(timeout=10).topics, f"topic {name} gone")

    def set(self, name: str, key: str, value: str) -> None:
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result()

    def names(self) -> list[str]:
        return sorted(self.admin.list_topics(timeout=10).topics)

    def deny_write(self, name: str) -> None:
        """To whoever comes in by a secured listener; to see the topic stays allowed."""
        done = self.admin.create_acls([AclBinding(*rule) for rule in rules(name)])
        [future.result() for future in done.values()]

    def allow_write(self, name: str) -> None:
        done = self.admin.delete_acls([AclBindingFilter(*rule) for rule in rules(name)])
        [future.result() for future in done.values()]

    def partitions(self, name: str) -> list[int]:
        return sorted(self.admin.list_topics(name, timeout=10).topics[name].partitions)

    def ends(self, name: str, committed: bool = True) -> dict[int, int]:
        """The offset after the last record of each partition; after the last one that readers of committed records
        may see, or after the last one that there is."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {TopicPartition(name, one): OffsetSpec.latest() for one in self.partitions(name)}
        found = self.admin.list_offsets(wanted, isolation_level=level, request_timeout=20)
        return {one.partition: future.result().offset for one, future in found.items()}

    def held_back(self, name: str) -> dict[int, tuple[int, int]]:
        """Partitions in which an open transaction hides records: the position at which readers of committed records
        stop, and the end."""
        committed, ends = self.ends(name), self.ends(name, committed=False)
        return {one: (committed[one], end) for one, end in ends.items() if committed[one] < end}

    def settled(self, name: str) -> dict[int, int] | None:
        """The ends, once no open transaction hides anything before them."""
        ends = self.ends(name)
        return ends if ends == self.ends(name, committed=False) else None

    def read(self, name: str, committed: bool = True) -> list[Record]:
        """Every record up to the end, once nothing is hidden by an open transaction."""
        ends = until(lambda: self.settled(name), f"no open transaction in {name}")
        level = "read_committed" if committed else "read_uncommitted"
        consumer = Consumer(
            self.bootstrap
            | {
                "group.id": "reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": level,
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([TopicPartition(name, partition, 0) for partition in ends])
            return read_to(consumer, name, ends)
        finally:
            consumer.close()

    def groups(self) -> list[str]:
        found = self.admin.list_consumer_groups(request_timeout=20).result().valid
        return sorted(one.group_id for one in found)

    def shares(self, group: str) -> list[int]:
        """How many partitions each member has that has any, the largest share first."""
        found = self.admin.describe_consumer_groups([group], request_timeout=20)[group].result()
        counts = (len(one.assignment.topic_partitions) for one in found.members if one.assignment)
        return sorted((count for count in counts if count), reverse=True)


def rules(name: str) -> list[tuple]:
    who = ResourceType.TOPIC, name, ResourcePatternType.LITERAL, f"User:{USER}", "*"
    return [
        (*who, AclOperation.WRITE, AclPermissionType.DENY),
        (*who, AclOperation.DESCRIBE, AclPermissionType.ALLOW),
    ]


def read_to(consumer: Consumer, name: str, ends: dict[int, int]) -> list[Record]:
    """Until every partition's end was reached; what ends a transaction takes an offset and is no record."""
    records, left = [], {partition for partition, end in ends.items() if end}
    end = time.monotonic() + PATIENCE
    while left:
        for message in consumer.consume(10_000, 0.2):
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF and message.offset() >= ends[message.partition()]:
                    left.discard(message.partition())
                elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                    raise KafkaException(error)
                continue
            records.append(record(message))
            end = time.monotonic() + PATIENCE
        if time.monotonic() > end:
            raise TooLong(f"{name} was not read to its end: partitions {sorted(left)} are left")
    return records


def record(message) -> Record:
    kind, timestamp = message.timestamp()
    assert kind == TIMESTAMP_CREATE_TIME
    headers = tuple(message.headers() or ())
    return Record(message.partition(), message.offset(), message.key(), message.value(), headers, timestamp)


class Group:
    """Positions that a group has committed, read without joining it."""

    def __init__(self, topics: Topics, group: str, name: str):
        self.topics, self.group, self.name = topics, group, name
        self.consumer = Consumer(topics.bootstrap | {"group.id": group, "enable.auto.commit": False})
        self.wanted = [TopicPartition(name, partition) for partition in topics.partitions(name)]

    def committed(self) -> dict[int, int]:
        return {one.partition: max(one.offset, 0) for one in self.positions()}

    def positions(self) -> list[TopicPartition]:
        """With whatever stands beside them."""
        return self.consumer.committed(self.wanted, timeout=10)

    def commit(self, positions: list[TopicPartition]) -> None:
        """Commits for an empty group."""
        self.consumer.commit(offsets=positions, asynchronous=False)

    def total(self) -> int:
        return sum(self.committed().values())

    def close(self) -> None:
        self.consumer.close()
