"""Members that come and go while records keep coming."""

import math
import re
import time

from .instance import Instance
from .load import Load
from .stage import Outcome, Stage, leave, outcome, struck
from .stream import Stream
from .topics import until

# Share of a storm's changes that must come under load; in the others all records may just be finished.
MOST = 0.8
# Members hear of a change with a heartbeat, and partitions move in two rounds: within a step, they must.
QUICK = {"heartbeat.interval.ms": "400"}
# Seconds that two thirds of the records of `scale` take to come, if it takes so long.
SCALE_SECONDS = 20.0


def storm(stage: Stage) -> Outcome:
    """an instance joins or leaves every 2 s for a minute, while records keep coming"""
    stream = stage.stream("storm", client=QUICK)
    stream.make(stage.records)
    steps = stage.times(30)
    joined = left = under_load = 0
    with Load(stream, 2 * steps) as load:
        for _ in range(steps):
            begun, busy = time.monotonic(), load.busy()
            running = stream.running()
            if len(running) < 2 or (len(running) < 4 and stream.rng.random() < 0.5):
                idle = [one for one in stream.instances if one.process is None]
                stream.rng.choice(idle).start() if len(stream.instances) == 4 else stream.instance(named=False)
                joined += 1
            else:
                leave(stream.rng.choice(running))
                left += 1
            time.sleep(max(0.0, begun + 2 - time.monotonic()))
            under_load += busy and load.busy()
    done = outcome(stream, joined=joined, left=left, moves=moves(stream), **{"under load": under_load})
    # A member that leaves before it has partitions moves none.
    return struck(struck(done, "under load", math.ceil(MOST * steps)), "moves", steps // 2)


def moves(stream: Stream) -> int:
    """How often some partitions came to an instance."""
    return sum(len(re.findall(r": assigned .*partitions=\S", one.said())) for one in stream.instances)


def scale(stage: Stage) -> Outcome:
    """two processes, then four, then three, then four share twelve partitions, while records keep coming"""
    stream = stage.stream("scale")
    stream.make(stage.records)
    stream.instance(named=False), stream.instance(named=False)
    changes = 0
    with Load(stream, SCALE_SECONDS) as load:
        changes += shared(stream, load, [6, 6])
        stream.instance(named=False), stream.instance(named=False)
        changes += shared(stream, load, [3, 3, 3, 3])
        leave(stream.instances[0])
        changes += shared(stream, load, [4, 4, 4])
        stream.instances[0].start()
        changes += shared(stream, load, [3, 3, 3, 3])
    return struck(outcome(stream, processes=4, **{"changes under load": changes}), "changes under load", 4)


def shared(stream: Stream, load: Load, shares: list[int]) -> bool:
    """Once everyone has its share, everyone must get records; whether there was work from the change until then."""
    busy = load.busy()
    until(lambda: stream.topics.shares(stream.name) == shares, f"partitions shared as {shares}")
    before = {one.log: scored(one) for one in stream.running()}
    for one in stream.running():
        until(lambda one=one: scored(one) > before[one.log], f"records for {one.log.parent.name}")
    return busy and load.busy()


def scored(one: Instance) -> float:
    return one.metric("penstock_kafka_records_total") or 0.0
