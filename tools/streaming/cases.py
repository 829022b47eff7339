"""Faults of a stream. Each case runs on a number of records, and gives a verdict with figures.

tools/chaos runs them long, the end-to-end tests some of them short: the same code, so that what the long form shows
is what the short one watches over.
"""

from collections.abc import Callable

from .instance import Instance
from .members import scale, storm
from .outages import broker_away, broker_restarted, disk_full, no_output_topic, not_writable, one_of_three_brokers
from .remade import log_truncated, topic_remade_longer, topic_remade_shorter
from .stage import Outcome, Stage, filled, leave, made, outcome, paired, strike, struck
from .stream import Stream
from .topics import until
from .zombies import namesake, namesake_late, zombie

# The cases of `poison` take no value from so many bytes on; the sentences are far below it.
RECORD_BYTES_MAX = 16 << 10
# Reasons in the metric of dead letters.
REASONS = {
    "not UTF-8": "not_utf8",
    "not JSON": "not_json",
    "field missing": "field_missing",
    "field not a string": "field_not_text",
    "too large": "too_large",
}


def calm(stage: Stage) -> Outcome:
    """no fault"""
    stream = filled(stage, "calm")
    stream.instance()
    return outcome(stream)


def poison(stage: Stage) -> Outcome:
    """1 % of the values are not UTF-8, not JSON, too large, or lack the text, and 1 % are null"""
    stream = stage.stream("poison", record_bytes_max=f"{RECORD_BYTES_MAX >> 10}KiB")
    sent = stream.make(stage.records, 0.01, tombstone_share=0.01, too_large=RECORD_BYTES_MAX)
    stream.feed()
    one = stream.instance()
    stream.wait_end()
    until(lambda: one.metric("penstock_kafka_records_total") == len(sent), "every record counted")
    counts = {poison: sum(1 for one in sent if one.poison == poison) for poison in REASONS}
    wrong = miscounted(one, counts)
    tombstones = sum(1 for one in sent if one.value is None)
    done = outcome(stream, poison=sum(counts.values()), tombstones=tombstones)
    for fault in wrong:
        done.verdict.add("dead letters with another reason", fault)
    for what in (*counts, "tombstones"):
        if not counts.get(what, tombstones):
            done.verdict.add("kinds of records that never came", what)
    return done


def miscounted(one: Instance, counts: dict[str, int]) -> list[str]:
    """Reasons of which the server counted more dead letters, or fewer, than there is poison."""
    found = {poison: one.metric("penstock_dead_letters_total", reason=REASONS[poison]) or 0 for poison in counts}
    return [f"{poison}: {found[poison]:.0f}, not {count}" for poison, count in counts.items() if found[poison] != count]


def killed(stage: Stage, named: bool = True) -> Outcome:
    """SIGKILL at 20 random moments, started again under its name each time"""
    stream = made(stage, "killed")
    one, times = stream.instance(named), stage.times(20)
    kills = strike(stream, *[lambda: kill(one)] * times)
    return struck(outcome(stream, kills=kills), "kills", times)


def kill(one: Instance) -> None:
    one.kill()
    one.start()


def killed_without_a_name(stage: Stage) -> Outcome:
    """the same, but each time as somebody new: what the dead one left open ends by its time-outs"""
    return killed(stage, named=False)


def one_of_two_killed(stage: Stage) -> Outcome:
    """two instances, one gets SIGKILL and stays away"""
    stream = paired(stage, "one-of-two")
    kills = strike(stream, stream.instances[0].kill)
    return struck(outcome(stream, by_java=True, kills=kills), "kills", 1)


def at_least_once(stage: Stage) -> Outcome:
    """at-least-once, SIGKILL and started again: repeated perhaps, never lost"""
    stream = made(stage, "at-least-once", delivery="at-least-once")
    one, times = stream.instance(), stage.times(5)
    kills = strike(stream, *[lambda: kill(one)] * times)
    return struck(outcome(stream, twice_allowed=True, kills=kills), "kills", times)


def drained(stage: Stage) -> Outcome:
    """SIGTERM under load, started again each time: it drains and leaves nothing behind"""
    stream = made(stage, "drained")
    one, times = stream.instance(), stage.times(5)

    def drain() -> None:
        leave(one)
        one.start()

    done = outcome(stream, drains=strike(stream, *[drain] * times))
    struck(done, "drains", times)
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
    "namesake": namesake,
    "namesake-late": namesake_late,
    "scale": scale,
    "broker-restarted": broker_restarted,
    "one-of-three-brokers": one_of_three_brokers,
    "no-output-topic": no_output_topic,
    "not-writable": not_writable,
    "broker-away": broker_away,
    "disk-full": disk_full,
    "topic-remade-shorter": topic_remade_shorter,
    "topic-remade-longer": topic_remade_longer,
    "log-truncated": log_truncated,
    "at-least-once": at_least_once,
}
