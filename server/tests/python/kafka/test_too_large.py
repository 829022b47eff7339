"""Topics that take less than what is written to them: one record too large, or only a batch of many."""

from dataclasses import dataclass, field, replace

import pytest

from streaming import records
from streaming.stage import after_refusals

RECORDS = 300
TOPIC_BYTES_MAX = 5_000
LARGE = ("large", b"h" * 8_000)
VALUE_BYTES = 2 << 20


def one_partition(stream):
    """Batches are as large as they can be where all is in one partition."""
    stream.make(RECORDS)
    stream.sent = [replace(one, partition=0) for one in stream.sent]
    return stream


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_what_the_output_topic_finds_too_large_is_a_dead_letter_and_a_batch_that_is_goes_in_parts(delivery, stage):
    stream = stage.stream(f"small-{delivery}", output=False, delivery=delivery)
    stream.topics.make(stream.output, config={"max.message.bytes": str(TOPIC_BYTES_MAX)})
    one_partition(stream)
    stream.sent = [
        replace(one, headers=(*one.headers, LARGE), poison="larger than its topic takes") if one.id % 100 == 0 else one
        for one in stream.sent
    ]
    stream.feed()
    one = stream.instance().wait_ready()
    stream.wait_end()
    assert one.metric("penstock_dead_letters_total", reason="too_large") == RECORDS / 100
    assert one.metric("penstock_dead_letters_total") == RECORDS / 100
    letter = stream.topics.read(stream.dead)[0]
    assert letter.header("penstock-error-message").startswith(f"topic {stream.output} does not take".encode())
    verdict = after_refusals(stream, delivery)
    assert verdict, str(verdict)


@dataclass(frozen=True)
class Narrow:
    """Topics that refuse a value of that size, and the expected rest."""

    dead: dict[str, str] = field(default_factory=dict)
    client: dict[str, str] = field(default_factory=dict)
    headers: tuple = ()


NARROW = {
    "topic": Narrow(),
    "client": Narrow(dead={"max.message.bytes": str(2 * VALUE_BYTES)}, client={"message.max.bytes": "1000000"}),
    "headers": Narrow(dead={"max.message.bytes": "2000"}, headers=(LARGE,)),
}


@pytest.mark.parametrize("narrow", NARROW)
def test_a_dead_letter_that_is_too_large_leaves_out_what_it_must(narrow, stage):
    case = NARROW[narrow]
    stream = stage.stream(f"large-{narrow}", record_bytes_max="4MiB", client=case.client)
    stream.topics.set(stream.input, "max.message.bytes", str(2 * VALUE_BYTES))
    for key, value in case.dead.items():
        stream.topics.set(stream.dead, key, value)
    one_partition(stream)
    large = replace(stream.sent[RECORDS // 2], value=b"x" * VALUE_BYTES)
    stream.sent[large.id] = replace(large, headers=large.headers + case.headers)
    records.produce(stream.topics.bootstrap | {"message.max.bytes": 2 * VALUE_BYTES}, stream.input, stream.sent)
    one = stream.instance().wait_ready()
    stream.wait_end()
    assert one.metric("penstock_dead_letters_total", reason="not_json") == 1
    (letter,) = stream.topics.read(stream.dead)
    assert letter.value is None
    assert letter.key == (None if case.headers else large.key)
    assert letter.header("large") is None
    assert letter.timestamp == large.timestamp
    assert letter.header("penstock-source-offset") == str(large.id).encode()
    what = "its key, headers and value are" if case.headers else f"its value of {VALUE_BYTES} bytes is"
    left_out = f"{what} left out, because {stream.dead} does not take"
    message = letter.header("penstock-error-message").decode()
    assert message.startswith(left_out)
    assert "the value is not JSON" in message
    outputs = stream.topics.read(stream.output)
    assert [out.key for out in outputs] == [sent.key for sent in stream.sent if sent.id != large.id]
    stream.stop()
    assert not stream.gave_up()
