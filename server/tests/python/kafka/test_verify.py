"""The proof can fail: each fault that a stream could have is put into a perfect one and must be named."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from streaming import records
from streaming.topics import Record
from streaming.verify import check

SENT = records.make(seed=7, count=600, partitions=4, poison_share=0.05)
# A tombstone among them, and a value that is left out of its dead letter.
SENT[100] = replace(SENT[100], value=None, poison="")
SENT[101] = replace(SENT[101], value=b"x" * 5000, poison=records.TOO_LARGE)
OFFSETS = records.offsets(SENT)
FIELDS = frozenset({"label", "score"})


def output(one: records.Sent, offset: int) -> Record:
    value = None if one.value is None else json.dumps({"label": "GOOD", "score": 0.5}).encode()
    headers = (*one.headers, ("penstock-model", b"tiny"), ("penstock-version", b"1"))
    return Record(one.partition, offset, one.key, value, headers, one.timestamp)


def letter(one: records.Sent, offset: int) -> Record:
    partition, at = OFFSETS[one.id]
    left_out = one.poison == records.TOO_LARGE
    message, value = (b"5000 bytes", None) if left_out else (b"not JSON", one.value)
    reason = (("penstock-error-code", b"INVALID_ARGUMENT"), ("penstock-error-message", message))
    source = {"topic": b"in", "partition": b"%d" % partition, "offset": b"%d" % at}
    headers = (*one.headers, *reason, *((f"penstock-source-{name}", value) for name, value in source.items()))
    return Record(one.partition, offset, one.key, value, headers, one.timestamp)


def perfect() -> tuple[list[Record], list[Record]]:
    outputs = [output(one, number) for number, one in enumerate(one for one in SENT if not one.poison)]
    dead = [letter(one, number) for number, one in enumerate(one for one in SENT if one.poison)]
    return outputs, dead


def verdict(outputs: list[Record], dead: list[Record], **more):
    return check(SENT, outputs, dead, offsets=OFFSETS, topic="in", model="tiny", fields=FIELDS, **more)


def test_a_perfect_stream_passes():
    outputs, dead = perfect()
    assert len(dead) > 10 and len(outputs) + len(dead) == len(SENT)
    found = verdict(outputs, dead)
    assert found and str(found) == "nothing lost, nothing twice, order kept"


def swap(all: list[Record], first: int) -> None:
    """Two records of one partition change places."""
    second = next(i for i in range(first + 1, len(all)) if all[i].partition == all[first].partition)
    one, other = all[first], all[second]
    all[first], all[second] = replace(other, offset=one.offset), replace(one, offset=other.offset)


def again(all: list[Record], index: int) -> None:
    all.append(replace(all[index], offset=10_000))


def alter(all: list[Record], index: int, **fields) -> None:
    all[index] = replace(all[index], **fields)


def header(all: list[Record], index: int, name: str, value: bytes | None) -> None:
    """Gives a header another value; none takes it away."""
    kept = [(key, value if key == name else old) for key, old in all[index].headers if key != name or value is not None]
    all[index] = replace(all[index], headers=tuple(kept))


# Changes to a perfect stream's outputs and dead letters, and the faults that must be named.
FAULTS: dict[str, tuple[Callable[[list, list], None], set[str]]] = {
    "one is lost": (lambda out, dead: out.pop(50), {"outputs lost"}),
    "the last is lost": (lambda out, dead: out.pop(), {"outputs lost"}),
    "everything is lost": (lambda out, dead: (out.clear(), dead.clear()), {"outputs lost", "dead letters lost"}),
    "one comes twice": (lambda out, dead: again(out, 50), {"outputs more than once", "outputs out of order"}),
    "one comes twice in a row": (
        lambda out, dead: out.insert(51, out[50]),
        {"outputs more than once", "outputs out of order"},
    ),
    "two change places": (lambda out, dead: swap(out, 50), {"outputs out of order"}),
    "one is in another partition": (
        lambda out, dead: alter(out, 0, partition=(out[0].partition + 1) % 4),
        {"outputs in another partition"},
    ),
    "a key changes": (lambda out, dead: alter(out, 5, key=b"other"), {"outputs with another key"}),
    "a key is gone": (lambda out, dead: alter(out, 5, key=None), {"outputs with another key"}),
    "a time changes": (lambda out, dead: alter(out, 5, timestamp=1), {"outputs with another time"}),
    "a header is gone": (
        lambda out, dead: alter(out, 5, headers=out[5].headers[1:]),
        {"outputs lost", "outputs that nothing asked for", "outputs out of order"},
    ),
    "a header is added": (
        lambda out, dead: alter(out, 5, headers=(*out[5].headers, ("x", b"y"))),
        {"outputs with other headers"},
    ),
    "another trace": (
        lambda out, dead: header(out, 5, "traceparent", records.traceparent(9999)),
        {"outputs of another trace"},
    ),
    "no trace": (lambda out, dead: header(out, 5, "traceparent", None), {"outputs of another trace"}),
    "no model": (lambda out, dead: header(out, 5, "penstock-model", None), {"outputs that do not name their model"}),
    "no version": (
        lambda out, dead: header(out, 5, "penstock-version", None),
        {"outputs that do not name their model"},
    ),
    "not JSON": (lambda out, dead: alter(out, 5, value=b"GOOD"), {"outputs that are not JSON"}),
    "no score": (lambda out, dead: alter(out, 5, value=b'{"label": "GOOD"}'), {"outputs without ['label', 'score']"}),
    "a dead letter is lost": (lambda out, dead: dead.pop(3), {"dead letters lost"}),
    "a dead letter comes twice": (
        lambda out, dead: again(dead, 3),
        {"dead letters more than once", "dead letters out of order"},
    ),
    "a good record is buried": (
        lambda out, dead: dead.append(replace(out.pop(), offset=10_000)),
        {"outputs lost", "dead letters that nothing asked for"},
    ),
    "poison is scored": (
        lambda out, dead: out.append(replace(dead.pop(), offset=10_000)),
        {"dead letters lost", "outputs that nothing asked for", "outputs out of order"},
    ),
    "a dead letter has no reason": (
        lambda out, dead: header(dead, 3, "penstock-error-code", None),
        {"dead letters without a reason"},
    ),
    "a dead letter has another source": (
        lambda out, dead: header(dead, 3, "penstock-source-offset", b"0"),
        {"dead letters with another source"},
    ),
    "a dead letter has another value": (
        lambda out, dead: alter(dead, 3, value=b"x"),
        {"dead letters with another value"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault):
    spoil, wanted = FAULTS[fault]
    outputs, dead = perfect()
    spoil(outputs, dead)
    found = verdict(outputs, dead)
    assert not found
    assert set(found.faults) == wanted


def test_a_tombstone_that_was_scored_is_named():
    outputs, dead = perfect()
    index = next(i for i, one in enumerate(outputs) if one.value is None)
    alter(outputs, index, value=b'{"label": "GOOD", "score": 0.5}')
    assert set(verdict(outputs, dead).faults) == {"tombstones with a value"}


def test_of_a_value_that_was_left_out_the_dead_letter_says_the_size():
    outputs, dead = perfect()
    index = next(i for i, one in enumerate(dead) if one.value is None)
    header(dead, index, "penstock-error-message", b"too large")
    assert set(verdict(outputs, dead).faults) == {"dead letters without a reason"}
    alter(dead, index, value=b"x" * 5000)
    assert "dead letters with another value" in verdict(outputs, dead).faults


def test_at_least_once_may_repeat_but_not_lose():
    outputs, dead = perfect()
    again(outputs, 50)
    assert verdict(outputs, dead, twice_allowed=True)
    lost = outputs.pop(60)
    assert set(verdict(outputs, dead, twice_allowed=True).faults) == {"outputs lost"}
    outputs.append(replace(lost, offset=20_000))
    assert set(verdict(outputs, dead, twice_allowed=True).faults) == {"outputs out of order"}
