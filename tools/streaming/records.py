"""Numbered records over the partitions of a topic: what goes in, so that what comes out can be compared."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Producer

# Invented sentences: the lengths matter, a few words to more than a window holds.
SUBJECTS = "the river|a small boat|my neighbour|the last train|an old song|every second page|the kitchen light".split(
    "|"
)
VERBS = "turned|waited|was lovely|sounded wrong|came late|held on|fell apart|shone|cost too much".split("|")
RESTS = "in the rain|without a word|for three days|as nobody had hoped|near the harbour|again and again|".split("|")

# The first byte of what can never be UTF-8.
NOT_UTF8 = b"\xff\xfe not a text"
# Poison of which the dead letter has no value: it would be as large.
TOO_LARGE = "too large"


@dataclass(frozen=True, slots=True)
class Sent:
    """One record that went in."""

    id: int
    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int
    # Its fault, a name of `poisons`; empty for a good one.
    poison: str = ""

    def text(self) -> str:
        return json.loads(self.value)["text"]


def sentences(rng: random.Random, words: int) -> str:
    made: list[str] = []
    while sum(len(part.split()) for part in made) < words:
        made.append(f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(RESTS)}".strip().capitalize() + ".")
    return " ".join(made)


def texts(rng: random.Random, count: int = 1000) -> list[str]:
    """Texts of mixed lengths: most short, some long."""
    return [sentences(rng, min(120, int(rng.lognormvariate(2.2, 0.9)) + 1)) for _ in range(count)]


def poisons(number: int, too_large: int = 0) -> dict[str, bytes]:
    """A value for each way in which a record's value can be wrong, told apart by `number`.

    Where `too_large` says from how many bytes on the route takes no value, one of these ways is to have them.
    """
    large = {TOO_LARGE: json.dumps({"id": number, "text": "x" * too_large}).encode()} if too_large else {}
    return large | {
        "not UTF-8": NOT_UTF8 + str(number).encode(),
        "not JSON": b'{"id": %d, "text": "cut' % number,
        "field missing": json.dumps({"id": number, "body": "elsewhere"}).encode(),
        "field not a string": json.dumps({"id": number, "text": number}).encode(),
    }


def make(
    seed: int,
    count: int,
    partitions: int,
    poison_share: float = 0.0,
    timestamp: int = 0,
    tombstone_share: float = 0.0,
    too_large: int = 0,
) -> list[Sent]:
    """`count` records from a seed, a millisecond apart up to now; the same seed makes the same ones at another time."""
    rng = random.Random(seed)
    timestamp = timestamp or now_ms() - count
    pool = texts(rng)
    made = []
    for number in range(count):
        partition = rng.randrange(partitions)
        poison = ""
        value = json.dumps({"id": number, "text": rng.choice(pool)}).encode()
        drawn = rng.random()
        if drawn < poison_share:
            poison, value = rng.choice(list(poisons(number, too_large).items()))
        elif drawn < poison_share + tombstone_share:
            value = None
        key = b"key-%d" % (number % 997)
        headers = (("id", b"%d" % number), ("traceparent", traceparent(number)))
        made.append(Sent(number, partition, key, value, headers, timestamp + number, poison))
    return made


def offsets(sent: list[Sent]) -> dict[int, tuple[int, int]]:
    """Where each lies in a topic that was empty before: its partition and its offset there."""
    ends: dict[int, int] = {}
    found = {}
    for one in sent:
        found[one.id] = (one.partition, ends.get(one.partition, 0))
        ends[one.partition] = found[one.id][1] + 1
    return found


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def traceparent(number: int) -> bytes:
    return b"00-%032x-%016x-01" % (number + 1, number + 1)


class Feeder:
    """Puts each record into its partition, in order."""

    def __init__(self, client: dict[str, str], topic: str):
        options = {
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
            "compression.type": "lz4",
        }
        self.topic, self.producer = topic, Producer(client | options)
        # Errors of records that the broker does not have.
        self.failed: list[str] = []

    def send(self, sent: Sequence[Sent]) -> None:
        for one in sent:
            self.producer.produce(
                self.topic,
                one.value,
                one.key,
                one.partition,
                on_delivery=self.delivered,
                timestamp=one.timestamp,
                headers=list(one.headers),
            )
            self.producer.poll(0)

    def delivered(self, error, message) -> None:
        if error is not None:
            self.failed.append(f"{self.topic} [{message.partition()}]: {error}")

    def close(self) -> None:
        """Returns when the broker has them all."""
        left = self.producer.flush(120)
        if left or self.failed:
            raise SystemExit(f"{left + len(self.failed)} records did not reach {self.topic}: {self.failed[:1]}")


def produce(client: dict[str, str], topic: str, sent: Sequence[Sent]) -> None:
    """Each into its partition, in order; returns when the broker has them all."""
    feeder = Feeder(client, topic)
    feeder.send(sent)
    feeder.close()
