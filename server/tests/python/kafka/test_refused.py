"""A broker that refuses single records for what they contain: here, for times that lie too far back."""

from dataclasses import replace

import pytest

from streaming.records import now_ms
from streaming.stage import after_refusals, outcome
from streaming.topics import until

RECORDS = 3_000
HOUR_MS = 3_600_000
VALIDATES = {"message.timestamp.before.max.ms": str(HOUR_MS)}


def with_old_ones(stage, name: str, every: int, **route):
    """A stream of which the output topic refuses some records."""
    stream = stage.stream(name, output=False, **route)
    stream.topics.make(stream.output, config=VALIDATES)
    old = now_ms() - 10 * HOUR_MS
    stream.make(RECORDS)
    stream.sent = [
        replace(one, timestamp=old + one.id, poison="too old") if one.id % every == 0 else one for one in stream.sent
    ]
    return stream


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_record_that_the_output_topic_refuses_is_a_dead_letter_and_the_stream_goes_on(delivery, stage):
    stream = with_old_ones(stage, f"refused-{delivery}", every=100, delivery=delivery)
    stream.feed()
    one = stream.instance().wait_ready()
    stream.wait_end()
    assert one.metric("penstock_dead_letters_total", reason="refused") == RECORDS / 100
    assert one.is_ready()
    letter = stream.topics.read(stream.dead)[0]
    assert letter.header("penstock-error-message").startswith(f"topic {stream.output} does not take".encode())
    verdict = after_refusals(stream, delivery)
    assert verdict, str(verdict)


def test_where_all_are_refused_each_is_found_out_alone(stage):
    stream = with_old_ones(stage, "all-refused", every=1)
    stream.sent = [replace(one, partition=0) for one in stream.sent[:20]]
    stream.feed()
    stream.instance()
    done = outcome(stream)
    assert done.verdict, str(done.verdict)


def test_a_dead_letter_that_is_refused_as_well_ends_the_route_with_the_reason(stage):
    stream = with_old_ones(stage, "no-way-out", every=RECORDS)
    stream.topics.set(stream.dead, *next(iter(VALIDATES.items())))
    stream.feed()
    one = stream.instance()
    until(lambda: not one.alive(), "an end")
    assert one.process.poll() == 75
    assert f"dead_letter topic {stream.dead} does not take the dead letter of {stream.input}[" in one.said()
    assert "widen its message.timestamp limits" in one.said()
