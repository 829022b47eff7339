"""A topic read a second time by Kafka's own console consumer, which is Java: it shares no code with librdkafka."""

import os
import subprocess

from . import runtime
from .broker import JVM
from .topics import Record, Topics

# Nothing more came for so long: that was all. A slow machine gets the longer one.
ENDS_AFTER_MS = (3_000, 30_000)
PRINTED = ("timestamp", "partition", "offset", "headers", "key", "value")


def differences(topics: Topics, name: str, records: list[Record]) -> list[str]:
    """Differences between its read_committed output and these records, in set or in the order of a partition."""
    wanted = [shown(one) for one in sorted(records, key=lambda one: (one.partition, one.offset))]
    found: list[str] = []
    for patience in ENDS_AFTER_MS:
        # The sort keeps the order in which records of a partition came.
        found = sorted(read(topics, name, len(records) + 1, patience), key=partition)
        if len(found) >= len(wanted):
            break
    missing, more = set(wanted) - set(found), set(found) - set(wanted)
    if not missing and not more and found != wanted:
        return ["another order, or some of them more than once"]
    return [f"not there: {one}" for one in sorted(missing)] + [f"there as well: {one}" for one in sorted(more)]


def read(topics: Topics, name: str, most: int, patience_ms: int) -> list[str]:
    """One line a record, as the console consumer prints it."""
    command = [runtime.java(), *os.environ.get("PENSTOCK_KAFKA_JVM", JVM).split(), "-Dlog4j2.level=OFF"]
    command += ["-cp", f"{runtime.jars()}/*", "org.apache.kafka.tools.consumer.ConsoleConsumer"]
    command += ["--bootstrap-server", topics.cluster.bootstrap(), "--topic", name, "--from-beginning"]
    command += ["--isolation-level", "read_committed", "--max-messages", str(most), "--timeout-ms", str(patience_ms)]
    for what in PRINTED:
        command += ["--formatter-property", f"print.{what}=true"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"Kafka's console consumer ended with {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout.splitlines()


def shown(one: Record) -> str:
    headers = ",".join(f"{key}:{text(value)}" for key, value in one.headers)
    place = f"CreateTime:{one.timestamp}\tPartition:{one.partition}\tOffset:{one.offset}"
    return f"{place}\t{headers or 'NO_HEADERS'}\t{text(one.key)}\t{text(one.value)}"


def text(raw: bytes | None) -> str:
    return "null" if raw is None else raw.decode(errors="replace")


def partition(line: str) -> int:
    _, _, number = line.split("\t")[1].partition(":")
    return int(number)
