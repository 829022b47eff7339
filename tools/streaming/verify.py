"""The proof: what came out against what went in.

Nothing lost, nothing twice, order kept, everything carried along, dead letters exactly the poison.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .records import TOO_LARGE, Sent
from .topics import Record

# Examples of a fault that are named; the count says how many there are.
NAMED = 3
MODEL, VERSION = "penstock-model", "penstock-version"
CODE, MESSAGE = "penstock-error-code", "penstock-error-message"
SOURCE = ("penstock-source-topic", "penstock-source-partition", "penstock-source-offset")


@dataclass
class Verdict:
    """Faults by kind, with the numbers of the records that have them."""

    faults: dict[str, list] = field(default_factory=dict)

    def add(self, kind: str, what) -> None:
        self.faults.setdefault(kind, []).append(what)

    def __bool__(self) -> bool:
        return not self.faults

    def count(self, kind: str) -> int:
        return len(self.faults.get(kind, []))

    def __str__(self) -> str:
        if self:
            return "nothing lost, nothing twice, order kept"
        named = (f"{len(all)} {kind}: {', '.join(map(str, all[:NAMED]))}" for kind, all in sorted(self.faults.items()))
        return "; ".join(named)


def number(record: Record) -> int:
    """Id of its source record; -1 if it has none."""
    found = record.header("id")
    return int(found) if found and found.isdigit() else -1


def check(
    sent: Sequence[Sent],
    outputs: Sequence[Record],
    dead: Sequence[Record],
    offsets: dict[int, tuple[int, int]] | None = None,
    topic: str = "",
    model: str = "",
    fields: frozenset[str] = frozenset(),
    twice_allowed: bool = False,
) -> Verdict:
    """Compares. `offsets` says where each record lay in the input `topic`; `fields` what an output must hold.

    With `twice_allowed`, as after at-least-once, a repetition is no fault, and order is that of the first ones.
    """
    verdict = Verdict()
    good = {one.id: one for one in sent if not one.poison and one.value is not None}
    empty = {one.id: one for one in sent if not one.poison and one.value is None}
    poison = {one.id: one for one in sent if one.poison}
    check_set(verdict, "output", good | empty, outputs, twice_allowed)
    check_set(verdict, "dead letter", poison, dead, twice_allowed)
    check_order(verdict, "output", outputs, twice_allowed)
    check_order(verdict, "dead letter", dead, twice_allowed)
    for record in outputs:
        if one := good.get(number(record)):
            check_carried(verdict, "output", one, record)
            check_output(verdict, one, record, model, fields)
        elif one := empty.get(number(record)):
            check_carried(verdict, "tombstone", one, record)
            if record.value is not None:
                verdict.add("tombstones with a value", one.id)
    for record in dead:
        if one := poison.get(number(record)):
            check_carried(verdict, "dead letter", one, record)
            check_dead(verdict, one, record, offsets, topic)
    return verdict


def check_set(verdict: Verdict, what: str, wanted: dict, found: Sequence[Record], twice_allowed: bool) -> None:
    counts = Counter(number(record) for record in found)
    for one in wanted:
        if one not in counts:
            verdict.add(f"{what}s lost", one)
    for one, count in counts.items():
        if one not in wanted:
            verdict.add(f"{what}s that nothing asked for", one)
        elif count > 1 and not twice_allowed:
            verdict.add(f"{what}s more than once", one)


def check_order(verdict: Verdict, what: str, found: Sequence[Record], twice_allowed: bool) -> None:
    """Numbers rise within a partition, because they rose when they went in."""
    last: dict[int, int] = {}
    seen: set[int] = set()
    for record in sorted(found, key=lambda one: (one.partition, one.offset)):
        one = number(record)
        if twice_allowed and one in seen:
            continue
        seen.add(one)
        if one <= last.get(record.partition, -1):
            verdict.add(f"{what}s out of order", one)
        else:
            last[record.partition] = one


def check_carried(verdict: Verdict, what: str, sent: Sent, record: Record) -> None:
    """Partition, key, time and headers are those of the record that it came from."""
    if record.partition != sent.partition and what != "dead letter":
        verdict.add(f"{what}s in another partition", sent.id)
    if record.key != sent.key:
        verdict.add(f"{what}s with another key", sent.id)
    if record.timestamp != sent.timestamp:
        verdict.add(f"{what}s with another time", sent.id)
    # A trace goes on with a new span, so its parent may be another; the trace is the same.
    kept = [header for header in record.headers if not header[0].startswith("penstock-") and header[0] != "traceparent"]
    if kept != [header for header in sent.headers if header[0] != "traceparent"]:
        verdict.add(f"{what}s with other headers", sent.id)
    begun, carried = dict(sent.headers).get("traceparent"), record.header("traceparent")
    if begun and (not carried or carried.split(b"-")[:2] != begun.split(b"-")[:2]):
        verdict.add(f"{what}s of another trace", sent.id)


def check_output(verdict: Verdict, sent: Sent, record: Record, model: str, fields: frozenset[str]) -> None:
    try:
        value = json.loads(record.value)
    except (TypeError, ValueError):
        verdict.add("outputs that are not JSON", sent.id)
        return
    if not fields <= set(value):
        verdict.add(f"outputs without {sorted(fields)}", sent.id)
    if model and (record.header(MODEL) != model.encode() or not record.header(VERSION)):
        verdict.add("outputs that do not name their model", sent.id)


def check_dead(verdict: Verdict, sent: Sent, record: Record, offsets: dict | None, topic: str) -> None:
    left_out = sent.poison == TOO_LARGE
    if record.value != (None if left_out else sent.value):
        verdict.add("dead letters with another value", sent.id)
    code, message = record.header(CODE), record.header(MESSAGE)
    # The reason of a dead letter without its value names the value's size.
    if not code or not message or (left_out and b"%d" % len(sent.value) not in message):
        verdict.add("dead letters without a reason", sent.id)
    source = tuple(record.header(name) for name in SOURCE)
    if offsets is not None:
        partition, offset = offsets[sent.id]
        if source != (topic.encode(), b"%d" % partition, b"%d" % offset):
            verdict.add("dead letters with another source", (sent.id, source))
