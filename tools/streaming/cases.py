"""What can befall a stream. Each case is told on how many records, and gives a verdict with figures.

tools/chaos runs them long, the end-to-end tests some of them short: the same code, so that what the long form shows
is what the short one watches over.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .broker import PORTS_EACH, Cluster, free_ports
from .instance import Instance
from .stream import SESSION, Stream
from .topics import until
from .verify import Verdict

# Of the records that are left when the last thing befalls the stream: what comes after everything is over proves
# nothing.
TAIL = 0.1
# Within a commit interval of 100 ms and a bit: any moment of a transaction can be hit.
JITTER = 0.15
# Where a partition's only broker goes away. Apache Kafka 4.4.0, back from a kill, ends a transaction that timed out
# meanwhile without a mark in partitions that have no leader yet; what was to be undone then counts with the same
# producer's next transaction. So a transaction must outlast the time until the broker is back, and a session that.
OUTLASTING = {"transaction_timeout": "60s", "client": {"session.timeout.ms": "60000"}}


@dataclass
class Outcome:
    """Of one case."""

    verdict: Verdict
    figures: dict[str, int] = field(default_factory=dict)


@dataclass
class Stage:
    """Where cases run: folders, brokers, numbers."""

    folder: Path
    records: int
    seed: int
    cluster: Cluster
    # How often or how long something befalls the stream, 1 for the long form.
    share: float = 1.0
    streams: list[Stream] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)

    def stream(self, name: str, cluster: Cluster | None = None, **route) -> Stream:
        self.streams.append(Stream(cluster or self.cluster, self.folder, name, self.seed, **route))
        return self.streams[-1]

    def brokers(self, count: int) -> Cluster:
        """A cluster for one case alone."""
        folder = self.folder / f"brokers-{len(self.clusters) + 1}"
        cluster = Cluster(folder, free_ports(count * PORTS_EACH), count, min_insync=min(2, count))
        self.clusters.append(cluster)
        return cluster.up()

    def times(self, many: int) -> int:
        return max(2, round(many * self.share))

    def end(self) -> None:
        for one in self.streams:
            one.end()
        for one in self.clusters:
            # The logs stay; whoever made the folder removes it.
            one.down(keep=True)
        self.streams.clear()
        self.clusters.clear()


def points(rng: random.Random, count: int, records: int) -> list[int]:
    """Positions in the stream at which something happens."""
    return sorted(rng.randrange(int(records * (1 - TAIL))) for _ in range(count))


def outcome(stream: Stream, twice_allowed: bool = False, may_end: bool = False, **figures: int) -> Outcome:
    """The end of every case: the rest is done, everybody drains, what came out is held against what went in.

    Unless `may_end`, no instance may have ended by itself: it serves more than this stream.
    """
    stream.wait_end()
    stream.stop()
    verdict = stream.verdict(twice_allowed)
    if stream.gave_up() and not may_end:
        verdict.add("servers that ended by themselves", stream.gave_up())
    figures |= {"aborted copies hidden": stream.hidden(), "ended by itself": stream.gave_up()}
    return Outcome(verdict, {"records": len(stream.sent)} | figures)


def filled(stage: Stage, name: str, poison_share: float = 0.0, **route) -> Stream:
    stream = stage.stream(name, **route)
    stream.make(stage.records, poison_share)
    stream.feed()
    return stream


def strike(stream: Stream, point: int, fed: int | None = None) -> bool:
    """Waits until the stream is past a point and some way into a transaction; false where all that was fed is over."""
    stream.wait_committed(point)
    time.sleep(stream.rng.uniform(0, JITTER))
    fed = len(stream.sent) if fed is None else fed
    return len(stream.sent) - stream.left() < fed


def calm(stage: Stage) -> Outcome:
    """no fault"""
    stream = filled(stage, "calm")
    stream.instance()
    return outcome(stream)


def poison(stage: Stage) -> Outcome:
    """1 % of the values are not UTF-8, not JSON, or lack the text"""
    stream = filled(stage, "poison", poison_share=0.01)
    stream.instance()
    return outcome(stream, poison=sum(1 for one in stream.sent if one.poison))


def killed(stage: Stage, named: bool = True) -> Outcome:
    """SIGKILL at 20 random moments, started again under its name each time"""
    stream = filled(stage, "killed")
    one, kills = stream.instance(named), 0
    for point in points(stream.rng, stage.times(20), stage.records):
        if strike(stream, point):
            one.kill()
            one.start()
            kills += 1
    return struck(outcome(stream, kills=kills), "kills", stage.times(20))


def killed_without_a_name(stage: Stage) -> Outcome:
    """the same, but each time as somebody new: what the dead one left open ends by its time-outs"""
    return killed(stage, named=False)


def struck(outcome: Outcome, what: str, wanted: int) -> Outcome:
    """A case in which nothing happened while there was work is no proof."""
    if outcome.figures[what] < wanted:
        outcome.verdict.add(f"{what} came too late: wanted {wanted}, while there was work", outcome.figures[what])
    return outcome


def one_of_two_killed(stage: Stage) -> Outcome:
    """two instances, one gets SIGKILL and stays away"""
    stream = paired(stage, "one-of-two")
    stream.feed()
    kills = int(strike(stream, stream.rng.randrange(stage.records // 3)))
    stream.instances[0].kill()
    return struck(outcome(stream, kills=kills), "kills", 1)


def paired(stage: Stage, name: str) -> Stream:
    """Two instances with six partitions each, and records that are not fed yet."""
    stream = stage.stream(name)
    stream.make(stage.records)
    stream.instance(), stream.instance()
    until(lambda: stream.topics.shares(stream.name) == [6, 6], "two members")
    return stream


def broker_restarted(stage: Stage) -> Outcome:
    """the broker gets SIGTERM, later SIGKILL, and comes back each time"""
    stream = stage.stream("broker-restarted", **OUTLASTING)
    sent = stream.make(stage.records)
    stream.instance()
    restarts, half = 0, len(sent) // 2
    for halt, part in ((stage.cluster.stop, sent[:half]), (stage.cluster.kill, sent[half:])):
        stream.feed(part)
        restarts += strike(stream, part[0].id + stream.rng.randrange(half // 2), fed=part[-1].id + 1)
        halt(1)
        stage.cluster.start(1)
    return struck(outcome(stream, restarts=restarts), "restarts", 2)


def one_of_three_brokers(stage: Stage) -> Outcome:
    """three brokers, min.insync.replicas = 2, one gets SIGKILL and stays away"""
    cluster = stage.brokers(3)
    stream = filled(stage, "one-of-three", cluster=cluster)
    stream.instance()
    kills = int(strike(stream, stream.rng.randrange(stage.records // 3)))
    cluster.kill(stream.rng.choice(cluster.numbers()))
    return struck(outcome(stream, kills=kills), "kills", 1)


def storm(stage: Stage) -> Outcome:
    """an instance joins or leaves every 2 s for a minute"""
    stream = stage.stream("storm")
    stream.make(stage.records)
    steps = stage.times(30)
    joined = left = 0
    for step in range(steps):
        begun = time.monotonic()
        part = stage.records // steps
        stream.feed(stream.sent[step * part : (step + 1) * part if step + 1 < steps else None])
        running = stream.running()
        if len(running) < 2 or (len(running) < 4 and stream.rng.random() < 0.5):
            idle = [one for one in stream.instances if one.process is None]
            stream.rng.choice(idle).start() if len(stream.instances) == 4 else stream.instance(named=False)
            joined += 1
        else:
            leave(stream.rng.choice(running))
            left += 1
        time.sleep(max(0.0, begun + 2 - time.monotonic()))
    return outcome(stream, joined=joined, left=left)


def leave(one: Instance) -> None:
    """SIGTERM; it must drain."""
    # Before it listens it has nothing to drain, and no handler yet.
    until(lambda: one.is_live() or one.must_run(), "the server to listen")
    if code := one.stop():
        raise SystemExit(f"an instance ended with {code} after SIGTERM; its log is {one.log}")


def zombie(stage: Stage) -> Outcome:
    """SIGSTOP for longer than the session timeout, then SIGCONT: it wakes up in a transaction that is over"""
    stream = paired(stage, "zombie")
    one, rounds, naps = stream.instances[0], stage.times(3), 0
    for step in range(rounds):
        part = stream.sent[step * stage.records // rounds : (step + 1) * stage.records // rounds]
        until(lambda: stream.topics.shares(stream.name) == [6, 6] or stream.keep_up(), "two members")
        stream.feed(part)
        naps += strike(stream, part[0].id + stream.rng.randrange(len(part) // 2), fed=part[-1].id + 1)
        one.freeze()
        begun = time.monotonic()
        # The other one goes on with its own, and with those of the sleeper once it is missed.
        stream.wait_committed(part[-1].id + 1)
        time.sleep(max(0.0, begun + SESSION + 2 - time.monotonic()))
        one.thaw()
    return struck(outcome(stream, may_end=True, naps=naps), "naps", rounds)


def no_output_topic(stage: Stage) -> Outcome:
    """the output topic does not exist at first"""
    stream = filled(stage, "no-topic", output=False)
    one = stream.instance()
    waits(one, stream.output)
    stream.topics.make(stream.output)
    one.wait_ready()
    return outcome(stream)


def waits(one: Instance, named: str) -> None:
    """It serves the rest, is not ready, and its log names what is missing."""
    until(lambda: one.is_live() or one.must_run(), "the server to listen")
    until(lambda: named in one.said() or one.must_run(), f"{named!r} in {one.log}")
    until(lambda: not one.is_ready() and one.is_live() or one.must_run(), "not ready, and alive")


def not_writable(stage: Stage) -> Outcome:
    """the broker's rights forbid writing to the output topic at first"""
    client = stage.cluster.client("sasl_plaintext")
    brokers = client.pop("bootstrap.servers")
    stream = filled(stage, "not-writable", client=client, brokers=brokers)
    stream.topics.deny_write(stream.output)
    one = stream.instance()
    waits(one, f"topic {stream.output} does not take records")
    early = stream.group.total()
    stream.topics.allow_write(stream.output)
    one.wait_ready()
    done = outcome(stream)
    if early:
        done.verdict.add("records committed before they could be written", early)
    return done


def broker_away(stage: Stage) -> Outcome:
    """no broker is there when the server starts"""
    stream = filled(stage, "broker-away")
    stage.cluster.stop(1)
    one = stream.instance()
    try:
        waits(one, stage.cluster.bootstrap())
    finally:
        stage.cluster.start(1)
    one.wait_ready()
    return outcome(stream)


def disk_full(stage: Stage) -> Outcome:
    """the broker's disk is full under load, until somebody makes room"""
    cluster = stage.brokers(1)
    stream = filled(stage, "disk-full", cluster=cluster, **OUTLASTING)
    stream.instance()
    full = int(strike(stream, stream.rng.randrange(stage.records // 3)))
    cluster.fill_disk(1)
    # A broker whose only disk fails ends by itself.
    until(lambda: not cluster.alive(1), "the broker to notice")
    cluster.start(1)
    return struck(outcome(stream, **{"full disks": full}), "full disks", 1)


def scale(stage: Stage) -> Outcome:
    """two processes, then four, then three, then four share twelve partitions"""
    stream = stage.stream("scale")
    sent = stream.make(stage.records)
    quarter = [sent[part * len(sent) // 4 : (part + 1) * len(sent) // 4] for part in range(4)]
    stream.instance(named=False), stream.instance(named=False)
    shared(stream, [6, 6], quarter[0])
    stream.instance(named=False), stream.instance(named=False)
    shared(stream, [3, 3, 3, 3], quarter[1])
    leave(stream.instances[0])
    shared(stream, [4, 4, 4], quarter[2])
    stream.instances[0].start()
    shared(stream, [3, 3, 3, 3], quarter[3])
    return outcome(stream, processes=4)


def shared(stream: Stream, shares: list[int], part: list) -> None:
    """Once everyone has its share, everyone must get records of what then comes."""
    until(lambda: stream.topics.shares(stream.name) == shares, f"partitions shared as {shares}")
    before = {one.log: scored(one) for one in stream.running()}
    stream.feed(part)
    stream.wait_committed(part[-1].id + 1)
    for one in stream.running():
        until(lambda one=one: scored(one) > before[one.log], f"records for {one.log.parent.name}")


def scored(one: Instance) -> float:
    return one.metric("penstock_kafka_records_total") or 0.0


def at_least_once(stage: Stage) -> Outcome:
    """at-least-once, SIGKILL and started again: repeated perhaps, never lost"""
    stream = filled(stage, "at-least-once", delivery="at-least-once")
    one, kills = stream.instance(), 0
    for point in points(stream.rng, stage.times(5), stage.records):
        if strike(stream, point):
            one.kill()
            one.start()
            kills += 1
    return struck(outcome(stream, twice_allowed=True, kills=kills), "kills", stage.times(5))


def drained(stage: Stage) -> Outcome:
    """SIGTERM under load, started again each time: it drains and leaves nothing behind"""
    stream = filled(stage, "drained")
    one, drains = stream.instance(), 0
    for point in points(stream.rng, stage.times(5), stage.records):
        if strike(stream, point):
            leave(one)
            one.start()
            drains += 1
    done = struck(outcome(stream, drains=drains), "drains", stage.times(5))
    if hidden := done.figures["aborted copies hidden"]:
        done.verdict.add("records undone by a drain", hidden)
    return done


CASES: dict[str, Callable[[Stage], Outcome]] = {
    "calm": calm,
    "poison": poison,
    "killed": killed,
    "killed-without-a-name": killed_without_a_name,
    "one-of-two-killed": one_of_two_killed,
    "drained": drained,
    "storm": storm,
    "zombie": zombie,
    "scale": scale,
    "broker-restarted": broker_restarted,
    "one-of-three-brokers": one_of_three_brokers,
    "no-output-topic": no_output_topic,
    "not-writable": not_writable,
    "broker-away": broker_away,
    "disk-full": disk_full,
    "at-least-once": at_least_once,
}
