"""Faults of the input: its topic is created again, or its log is truncated."""

import shutil
from dataclasses import replace
from pathlib import Path

from .broker import Cluster
from .instance import Instance
from .load import Load
from .records import Sent
from .stage import OFTEN, OUTLASTING, Outcome, Stage, moment, outcome, struck
from .stream import PARTITIONS, Stream
from .topics import until

RESETS = "penstock_kafka_position_resets_total"
REMADE, WENT_BACK = "topic_remade", "log_went_back"
# Shares of all records: those of the first topic; those of the log that stay when it is cut off, and those that go.
OLD, KEPT, LOST = 0.4, 0.2, 0.4


def topic_remade_shorter(stage: Stage) -> Outcome:
    """the input topic is deleted under load and made anew, at first with fewer records than it had"""
    stream = stage.stream("remade-shorter")
    old, new = halves(stream, stage.records)
    stream.sent = old
    one = stream.instance()
    # What has not come by then comes at once.
    with Load(stream):
        moment(stream)
    met = int(stream.left() > 0)
    few = new[: len(new) // 10]
    stream.remake()
    stream.feed(few)
    resets = wait_resets(one, REMADE)
    stream.feed(new[len(few) :])
    return remade(stream, old, new, {"topics deleted under load": met, "positions reset": resets})


def topic_remade_longer(stage: Stage) -> Outcome:
    """the input topic is deleted and made anew, and has outgrown the old positions before the server sees it"""
    stream = stage.stream("remade-longer")
    old, new = halves(stream, stage.records)
    stream.sent = old
    stream.feed()
    one = stream.instance()
    stream.wait_end()
    one.freeze()
    stream.remake()
    stream.feed(new)
    one.thaw()
    return remade(stream, old, new, {"positions reset": wait_resets(one, REMADE)})


def log_truncated(stage: Stage) -> Outcome:
    """the only broker comes back with an older copy of the input's logs, and gets other records after that"""
    cluster = stage.brokers(1)
    stream = stage.stream("truncated", cluster=cluster, **OUTLASTING, **OFTEN)
    sent = stream.make(stage.records)
    kept, lost, new = parts(sent, KEPT, LOST)
    stream.sent = kept
    stream.feed()
    one = stream.instance()
    stream.wait_end()
    cluster.stop(1)
    copies = copy(cluster, stream)
    cluster.start(1)
    stream.sent = kept + lost
    # Records that it reads at once are not finished at once.
    one.freeze()
    stream.feed(lost)
    one.thaw()
    stream.wait_committed(len(kept) + 1)
    met = int(stream.left() > 0)
    cluster.kill(1)
    restore(copies)
    cluster.start(1)
    stream.feed(new)
    resets = wait_resets(one, WENT_BACK)
    stream.sent = kept + new
    stream.wait_end()
    out = stream.came_out(lost)
    stream.sent, stream.gone = kept + out + new, len(out)
    done = outcome(stream, **{"logs cut off under load": met, "positions reset": resets})
    return struck(struck(done, "logs cut off under load", 1), "positions reset", 1)


def halves(stream: Stream, count: int) -> tuple[list[Sent], list[Sent]]:
    old, new = parts(stream.make(count), OLD)
    return old, new


def parts(sent: list[Sent], *shares: float) -> list[list[Sent]]:
    """The first ones of these shares, and the rest."""
    cut = []
    for share in shares:
        count = int(share * len(sent)) + (cut[-1] if cut else 0)
        cut.append(count)
    return [sent[begin:end] for begin, end in zip([0, *cut], [*cut, None], strict=True)]


def remade(stream: Stream, old: list[Sent], new: list[Sent], figures: dict[str, int]) -> Outcome:
    """Uncommitted records of the old topic are gone with it, so none comes out twice. Every record of the new one comes
    out."""
    stream.sent = new
    stream.wait_end()
    out = stream.came_out(old)
    stream.sent, stream.gone = out + new, len(out)
    done = outcome(stream, **figures)
    for what in figures:
        struck(done, what, 1)
    return done


def wait_resets(one: Instance, reason: str) -> int:
    """How many positions have gone back, once any has: clients that are made anew take a moment."""
    return int(until(lambda: one.metric(RESETS, reason=reason) or one.must_run(), f"{reason} counted"))


def copy(cluster: Cluster, stream: Stream) -> dict[Path, Path]:
    """The folders of the input's logs, each with a copy of it."""
    logs = [path for path in cluster.home(1).rglob(f"{stream.input}-*") if path.is_dir()]
    if len(logs) != PARTITIONS:
        raise SystemExit(f"{len(logs)} folders of {stream.input} under {cluster.home(1)}, not {PARTITIONS}")
    return {log: Path(shutil.copytree(log, stream.folder / "copies" / log.name)) for log in logs}


def restore(copies: dict[Path, Path]) -> None:
    for log, kept in copies.items():
        shutil.rmtree(log)
        shutil.copytree(kept, log)


def fewer(sent: list[Sent], partitions: int) -> list[Sent]:
    """The same records for a topic of so many partitions."""
    return [replace(one, partition=one.partition % partitions) for one in sent]
