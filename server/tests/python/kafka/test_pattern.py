"""Topics that a pattern finds come and go: what is kept of them goes with them."""

import re

from streaming import records
from streaming.topics import until

RECORDS = 200
REFRESH = {"topic.metadata.refresh.interval.ms": "500"}


def named(one) -> set[str]:
    """The topics on the page of metrics."""
    return set(re.findall(r'topic="([^"]+)"', one.page()))


def test_a_topic_that_is_deleted_makes_room_for_one_that_comes(stage):
    stream = stage.stream("pattern", input=None, topics_max=1, client=REFRESH)
    stream.route["input_pattern"] = f"^{stream.name}-come-[0-9]+$"
    one = stream.instance().wait_ready()
    for number in range(3):
        topic = f"{stream.name}-come-{number}"
        stream.topics.make(topic, 2)
        records.produce(stream.topics.bootstrap, topic, records.make(stage.seed, RECORDS, 2))
        until(
            lambda topic=topic: one.metric("penstock_kafka_records_total", topic=topic) == RECORDS or one.must_run(),
            f"{topic} scored under its own name",
        )
        assert named(one) == {topic}
        stream.topics.remove(topic)
        revoked = f"partitions={topic}[0,1]"
        until(lambda revoked=revoked: one.said().count(revoked) == 2 or one.must_run(), f"{topic} revoked")
    assert one.is_ready()
    assert "begins anew" not in one.said()
