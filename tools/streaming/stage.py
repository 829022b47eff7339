"""Where cases run, how something befalls a stream while there is work, and what each case ends with."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import console
from .broker import PORTS_EACH, Cluster, free_ports
from .instance import Instance
from .load import Load
from .stream import Stream
from .topics import until
from .verify import Verdict

# Share of the records that are there before the first fault. The others keep coming until the last one.
BACKLOG = 0.5
# Seconds from one fault to the next, a restart among them.
FAULT_SECONDS = 8.0
# A transaction lasts 100 ms, or more in a backlog: any moment of it can be hit.
JITTER = 0.3
# Where a partition's only broker goes away. Apache Kafka 4.4.0, back from a kill, ends a transaction that timed out
# meanwhile without a mark in partitions that have no leader yet; what was to be undone then counts with the same
# producer's next transaction. So a transaction must outlast the time until the broker is back, and a session that.
OUTLASTING = {"transaction_timeout": "60s", "client": {"session.timeout.ms": "60000"}}
# Half a second of a fast processor holds all records of a short case: a fault would come after the only commit.
OFTEN = {"commit_interval_max": "100ms"}


@dataclass
class Outcome:
    """Outcome of one case."""

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

    def times(self, many: int, least: int = 2) -> int:
        return max(least, round(many * self.share))

    def end(self) -> None:
        for one in self.streams:
            one.end()
        for one in self.clusters:
            # The logs stay; whoever made the folder removes it.
            one.down(keep=True)
        self.streams.clear()
        self.clusters.clear()


def outcome(
    stream: Stream, twice_allowed: bool = False, may_end: bool = False, by_java: bool = False, **figures: int
) -> Outcome:
    """The end of every case: the rest is done, everybody drains, what came out is held against what went in.

    Unless `may_end`, no instance may have ended by itself: it serves more than this stream. With `by_java`, another
    client must read the same.
    """
    stream.wait_end()
    stream.stop()
    verdict = stream.verdict(twice_allowed)
    for one in console.differences(stream.topics, stream.output, stream.topics.read(stream.output)) if by_java else ():
        verdict.add("outputs that the Java client reads otherwise", one)
    if stream.gave_up() and not may_end:
        verdict.add("servers that ended by themselves", stream.gave_up())
    figures |= {"aborted copies hidden": stream.hidden(), "ended by itself": stream.gave_up()}
    return Outcome(verdict, {"records": len(stream.sent)} | figures)


def after_refusals(stream: Stream, delivery: str) -> Verdict:
    """The end of a stream of which the broker refused some records."""
    at_least_once = delivery == "at-least-once"
    verdict = outcome(stream, twice_allowed=at_least_once).verdict
    if at_least_once:
        # Records sent after a refused one are there before it is read again.
        verdict.faults.pop("outputs out of order", None)
    return verdict


def made(stage: Stage, name: str, **route) -> Stream:
    """Records that are not fed yet."""
    stream = stage.stream(name, **route)
    stream.make(stage.records)
    return stream


def filled(stage: Stage, name: str, **route) -> Stream:
    """Records that are all there before anything reads them."""
    stream = made(stage, name, **route)
    stream.feed()
    return stream


def moment(stream: Stream) -> None:
    """Waits until more is committed, and for some way into the next transaction."""
    stream.wait_committed(stream.committed() + 1)
    time.sleep(stream.rng.uniform(0, JITTER))


def strike(stream: Stream, *faults: Callable[[], None]) -> int:
    """Brings about the faults, each at a moment of its own, while records keep coming; how many came under load."""
    under_load = 0
    with Load(stream, len(faults) * FAULT_SECONDS, BACKLOG) as load:
        for fault in faults:
            moment(stream)
            under_load += load.busy()
            fault()
    return under_load


def struck(outcome: Outcome, what: str, wanted: int) -> Outcome:
    """A case in which nothing happened while there was work is no proof."""
    if outcome.figures[what] < wanted:
        outcome.verdict.add(f"{what} came too late: wanted {wanted}, while there was work", outcome.figures[what])
    return outcome


def paired(stage: Stage, name: str, **route) -> Stream:
    """Two instances with six partitions each, and records that are not fed yet."""
    stream = made(stage, name, **route)
    stream.instance(), stream.instance()
    until(lambda: stream.topics.shares(stream.name) == [6, 6], "two members")
    return stream


def leave(one: Instance) -> None:
    """SIGTERM; it must drain."""
    one.wait_live()
    if code := one.stop():
        raise SystemExit(f"an instance ended with {code} after SIGTERM; its log is {one.log}")
