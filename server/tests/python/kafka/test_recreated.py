"""An output topic that is deleted and made anew, with fewer partitions, while a route writes to it."""

RECORDS = 2_000
FEWER = 5


def test_an_output_topic_that_is_made_anew_with_fewer_partitions_gets_the_rest(stage):
    stream = stage.stream("recreated")
    sent = stream.make(2 * RECORDS)
    before, after = sent[:RECORDS], sent[RECORDS:]
    stream.feed(before)
    one = stream.instance().wait_ready()
    stream.wait_committed(RECORDS)
    stream.topics.remove(stream.output)
    stream.topics.make(stream.output, FEWER)
    stream.feed(after)
    stream.wait_end()
    # New clients ask for the partitions. They are made for this reason, or earlier, where the abort itself fails.
    reasons = f"topic {stream.output} has {FEWER} partitions, and had 12", "begins anew"
    assert any(reason in one.said() for reason in reasons)
    # Earlier outputs are gone with the topic; later ones go to the remainder of their partition's number.
    outputs = stream.topics.read(stream.output)
    assert sorted(int(out.header("id")) for out in outputs) == [record.id for record in after]
    wanted = {record.id: record.partition % FEWER for record in after}
    assert all(out.partition == wanted[int(out.header("id"))] for out in outputs)
    stream.stop()
    assert not stream.gave_up()
