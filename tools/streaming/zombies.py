"""Members that are frozen during a change of their group, and wake up in a transaction that is over."""

import re
import time

from .instance import AGAIN, Instance
from .load import Load
from .stage import JITTER, OUTLASTING, Outcome, Stage, moment, outcome, paired, struck
from .stream import Stream
from .topics import until

# Shorter than elsewhere, so that a nap is: seconds until a sleeper is missed.
MISSED = 3.0
NAPPING = {"transaction_timeout": "3s", "client": {"session.timeout.ms": "3000", "heartbeat.interval.ms": "750"}}
# How soon a newer one undoes what an older one of its name left open: long before that times out.
UNDONE_WITHIN = 30.0
# Between two looks at what an open transaction hides: who is awake commits meanwhile, every half second at the latest.
LOOK = 1.0
# Moments that are tried until one lies in a transaction.
TRIES = 20
# The client's words for a member whose transaction is over, or whose partitions have another owner.
REASON = r" route=\"route\" reason=\".*(?:fenced|old epoch|were lost|generation|[Uu]nknown member|rebalanc)"
REFUSED = re.compile(rf"(?:the route begins anew|aborting: .*|a route has ended){REASON}")
FENCED = re.compile(rf"a route has ended{REASON}")
# Seconds that a nap takes, the return of the sleeper among them.
NAP_SECONDS = 12.0


def zombie(stage: Stage) -> Outcome:
    """SIGSTOP in an open transaction for longer than the session timeout, then SIGCONT: what it does is refused"""
    stream = paired(stage, "zombie", **NAPPING)
    one, rounds, naps, hidden = stream.instances[0], stage.times(3, least=1), 0, 0
    with Load(stream, NAP_SECONDS * rounds) as load:
        for _ in range(rounds):
            until(lambda: stream.topics.shares(stream.name) == [6, 6] or stream.keep_up(), "two members")
            moment(stream)
            hidden += fall_asleep(stream, one)
            begun, fed = time.monotonic(), load.fed
            # The other one goes on with its own, and with those of the sleeper once it is missed.
            stream.wait_committed(fed)
            time.sleep(max(0.0, begun + MISSED + 2 - time.monotonic()))
            naps += load.busy()
            wake_up(one)
        until(lambda: stream.topics.shares(stream.name) == [6, 6] or stream.keep_up(), "the sleeper among them again")
    return hides(struck(outcome(stream, may_end=True, by_java=True, naps=naps), "naps", rounds), hidden)


def namesake(stage: Stage) -> Outcome:
    """SIGSTOP, another starts under the same name, then SIGCONT: the older one is fenced and ends"""
    stream = stage.stream("namesake", **OUTLASTING)
    stream.make(stage.records)
    older = stream.instance()
    with Load(stream) as load:
        moment(stream)
        hidden = fall_asleep(stream, older)
        newer = stream.instance(name="i1").wait_ready()
        until(lambda: not held_back(stream), "what the older one left open undone", UNDONE_WITHIN)
        naps = int(load.busy())
        wake_up(older)
        if one_is_left(older, newer) is not newer:
            raise SystemExit(f"the newer one has ended; its log is {newer.log}")
    return hides(struck(outcome(stream, naps=naps), "naps", 1), hidden)


def namesake_late(stage: Stage) -> Outcome:
    """the same, but it wakes up after its transaction has timed out, and could take that for its only trouble"""
    stream = stage.stream("namesake-late", **NAPPING)
    stream.make(stage.records)
    older = stream.instance()
    with Load(stream) as load:
        moment(stream)
        hidden = fall_asleep(stream, older)
        before = stream.group.total()
        newer = stream.instance(name="i1")
        time.sleep(MISSED + 2)
        # Once the older one is missed.
        until(lambda: stream.group.total() > before or newer.must_run(), "records done by the newer one")
        naps = int(load.busy())
        wake_up(older)
        if one_is_left(older, newer) is not newer:
            raise SystemExit(f"the newer one has ended; its log is {newer.log}")
    return hides(struck(outcome(stream, naps=naps), "naps", 1), hidden)


def fall_asleep(stream: Stream, one: Instance) -> int:
    """Stops it in a transaction of its own, for between two there is nothing to be refused. Returns how many records
    lie in it, which no reader of committed records may ever see."""
    for _ in range(TRIES):
        time.sleep(stream.rng.uniform(0, JITTER))
        one.freeze()
        if held := held_back(stream):
            return held
        one.thaw()
    raise SystemExit(f"{stream.name} was never stopped in a transaction")


def held_back(stream: Stream) -> int:
    """Records of a transaction that stays open."""
    first = stream.topics.held_back(stream.output)
    time.sleep(LOOK)
    second = stream.topics.held_back(stream.output)
    return sum(end - stop for one, (stop, end) in second.items() if first.get(one) == (stop, end))


def wake_up(one: Instance) -> None:
    """Lets it go on. It must find out that it is refused, and its log say why."""
    so_far = len(one.said())
    one.thaw()
    until(lambda: REFUSED.search(one.said()[so_far:]), f"a refusal in {one.log}")


def one_is_left(*namesakes: Instance) -> Instance:
    """Waits until one of two instances of one name is fenced, and has ended with the reason. It is not started again,
    because a later instance keeps the name."""
    until(lambda: not all(one.alive() for one in namesakes), "the end of one of two namesakes")
    (gone,) = (one for one in namesakes if not one.alive())
    (left,) = (one for one in namesakes if one is not gone)
    code, said = gone.stay_away(), gone.said()
    if code != AGAIN or not FENCED.search(said):
        raise SystemExit(f"an instance ended with {code}, not with {AGAIN} because it is fenced; its log:\n{said[-3000:]}")
    return left


def hides(done: Outcome, wanted: int) -> Outcome:
    """Records in the transactions of frozen members must exist and be hidden."""
    if done.figures["aborted copies hidden"] < wanted:
        done.verdict.add("records of a sleeper that became visible: hidden must be", wanted)
    return done
