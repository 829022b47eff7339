"""An input topic that is not the one it was: made anew under its name, or with an older log. `test_cases.py` has the
others, under load."""

import pytest

from streaming import remade
from streaming.remade import REMADE, RESETS, WENT_BACK
from streaming.topics import until

RECORDS = 1_000
FEWER = 5


def numbers(stream) -> list[int]:
    return sorted(int(out.header("id")) for out in stream.topics.read(stream.output))


def half(stream, partitions: int = 12):
    sent = stream.make(2 * RECORDS)
    return sent[:RECORDS], remade.fewer(sent[RECORDS:], partitions)


def wait_end(stream) -> None:
    """By partition: the broker takes a moment to forget what was committed of the topic before."""
    until(lambda: stream.group.committed() == stream.topics.ends(stream.input), "the new topic committed to its end")


@pytest.mark.parametrize("reset", ["earliest", "latest"])
@pytest.mark.parametrize("partitions", [12, FEWER])
def test_a_topic_that_is_made_anew_is_read_from_its_beginning(stage, partitions, reset):
    stream = stage.stream("remade", client={"auto.offset.reset": reset})
    stream.sent, new = half(stream, partitions)
    one = stream.instance().wait_ready()
    stream.feed()
    stream.wait_end()
    # A leader that has changed before is of a later epoch than those of the new topic, which the client takes for old.
    stage.cluster.stop(1)
    stage.cluster.start(1)
    one.wait_ready()
    one.freeze()
    stream.remake(partitions)
    stream.feed(new)
    one.thaw()
    stream.sent = new
    wait_end(stream)
    assert numbers(stream) == list(range(2 * RECORDS))
    assert one.metric(RESETS, reason=REMADE) == partitions
    assert f"input topic {stream.input} was deleted and made anew" in one.said()
    stream.stop()
    assert not stream.gave_up()


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_topic_that_is_made_anew_while_nobody_reads_it_is_read_from_its_beginning(stage, delivery):
    stream = stage.stream("remade-stopped", delivery=delivery)
    stream.sent, new = half(stream)
    stream.feed()
    one = stream.instance()
    stream.wait_end()
    stale = stream.group.positions()
    stream.stop()
    stream.remake()
    until(lambda: not stream.group.total(), "what was committed of the topic forgotten with it")
    # A commit that was under way then, or a backup of the broker's, brings it back.
    stream.group.commit(stale)
    stream.feed(new)
    one.start()
    stream.sent = new
    wait_end(stream)
    out = numbers(stream)
    # At least once, what was written before the topic was known for another one is written again.
    assert (out if delivery == "exactly-once" else sorted(set(out))) == list(range(2 * RECORDS))
    assert one.metric(RESETS, reason=REMADE) == 12
    stream.stop()


def test_a_log_that_lost_its_end_while_nobody_read_it_and_has_outgrown_the_position_is_read_from_there(stage):
    stream = stage.stream("cut-off")
    sent = stream.make(3 * RECORDS)
    kept, lost, new = sent[:RECORDS], sent[RECORDS : RECORDS + RECORDS // 2], sent[RECORDS + RECORDS // 2 :]
    stream.sent = kept
    stream.feed()
    one = stream.instance()
    stream.wait_end()
    stage.cluster.stop(1)
    copies = remade.copy(stage.cluster, stream)
    stage.cluster.start(1)
    stream.sent = kept + lost
    stream.feed(lost)
    stream.wait_end()
    stream.stop()
    stage.cluster.stop(1)
    remade.restore(copies)
    stage.cluster.start(1)
    stream.feed(new)
    one.start()
    remade.wait_resets(one, WENT_BACK)
    stream.sent = kept + new
    stream.wait_end()
    assert numbers(stream) == list(range(3 * RECORDS))
    assert one.metric(RESETS, reason=WENT_BACK) == 12
    stream.stop()
