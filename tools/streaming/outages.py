"""Faults of the broker: it goes away, is missing, or refuses records."""

import re
from collections.abc import Callable
from datetime import datetime

from .instance import Instance
from .stage import OFTEN, OUTLASTING, Outcome, Stage, filled, made, moment, outcome, strike, struck
from .topics import TooLong, until

# A call of the client that says nothing is given up after 15 s; a slow machine is a bit later.
TOLD_WITHIN = 25.0
STILL = "nothing has been committed for a while"
# Pauses between attempts that are looked at: 1 s, 2 s, 4 s.
ATTEMPTS = 3


def broker_restarted(stage: Stage) -> Outcome:
    """the broker gets SIGTERM, later SIGKILL, and comes back each time"""
    stream = made(stage, "broker-restarted", **OUTLASTING)
    stream.instance()

    def restart(halt: Callable[[int], None]) -> None:
        halt(1)
        stage.cluster.start(1)

    restarts = strike(stream, lambda: restart(stage.cluster.stop), lambda: restart(stage.cluster.kill))
    return struck(outcome(stream, restarts=restarts), "restarts", 2)


def one_of_three_brokers(stage: Stage) -> Outcome:
    """three brokers, min.insync.replicas = 2, one gets SIGKILL and stays away"""
    cluster = stage.brokers(3)
    stream = made(stage, "one-of-three", cluster=cluster)
    stream.instance()
    kills = strike(stream, lambda: cluster.kill(stream.rng.choice(cluster.numbers())))
    return struck(outcome(stream, kills=kills), "kills", 1)


def no_output_topic(stage: Stage) -> Outcome:
    """the output topic does not exist at first"""
    stream = filled(stage, "no-topic", output=False)
    one = stream.instance()
    waits(one, stream.output)
    early = stream.group.total()
    stream.topics.make(stream.output)
    one.wait_ready()
    return none_early(outcome(stream), early)


def waits(one: Instance, named: str) -> None:
    """It serves the rest, is not ready, and its log names what is missing."""
    one.wait_live()
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
    return none_early(outcome(stream), early)


def none_early(done: Outcome, early: int) -> Outcome:
    if early:
        done.verdict.add("records committed before they could be written", early)
    return done


def broker_away(stage: Stage) -> Outcome:
    """no broker is there when the server starts"""
    stream = filled(stage, "broker-away")
    stage.cluster.stop(1)
    one = stream.instance()
    try:
        misses(one, stage.cluster.bootstrap())
    finally:
        stage.cluster.start(1)
    one.wait_ready()
    return outcome(stream)


def disk_full(stage: Stage) -> Outcome:
    """the broker's disk is full under load, until somebody makes room"""
    cluster = stage.brokers(1)
    stream = filled(stage, "disk-full", cluster=cluster, **OUTLASTING, **OFTEN)
    one = stream.instance()
    moment(stream)
    full = int(stream.left() > 0)
    one.wait_ready()
    so_far = len(one.said())
    cluster.fill_disk(1)
    # A broker whose only disk fails ends by itself.
    until(lambda: not cluster.alive(1), "the broker to notice")
    # A call that fails again and again is repeated for as long as the transaction may last, and until then the server
    # is ready. A broker that stayed away for longer would break its own promise: see OUTLASTING.
    given_up = turns_unready(one)
    if given_up:
        misses(one, cluster.bootstrap(), so_far)
    for said in (f"{cluster.bootstrap()} failed: ", *(() if given_up else (STILL,))):
        if said not in one.said()[so_far:]:
            raise SystemExit(f"the broker is away, and {said!r} is not in {one.log}")
    cluster.start(1)
    one.wait_ready()
    return struck(outcome(stream, **{"full disks": full, "clients given up": int(given_up)}), "full disks", 1)


def turns_unready(one: Instance) -> bool:
    """Whether it is not ready as soon as a call that hangs would be given up."""
    try:
        return until(lambda: not one.is_ready() or one.must_run(), "not ready", TOLD_WITHIN)
    except TooLong:
        return False


def misses(one: Instance, brokers: str, so_far: int = 0) -> None:
    """Without a broker it serves the rest and is not ready. What is new in its log says what is wrong and what to look
    at, and that it tries again after longer and longer pauses."""
    one.wait_live()
    until(lambda: not one.is_ready() or one.must_run(), "not ready", TOLD_WITHIN)
    named = re.compile(rf"not reading .*no broker of {re.escape(brokers)} answers: .*; check brokers")
    until(lambda: named.search(one.said()[so_far:]) or one.must_run(), f"the brokers named in {one.log}")
    until(lambda: len(attempts(one, so_far)) >= ATTEMPTS or one.must_run(), f"{ATTEMPTS} attempts in {one.log}")
    if one.is_ready() or not one.is_live():
        raise SystemExit(f"without a broker it must be alive and not ready; its log is {one.log}")
    tried = attempts(one, so_far)
    for (at, pause), (next_at, next_pause) in zip(tried, tried[1:], strict=False):
        if next_pause <= pause or next_at - at < pause:
            raise SystemExit(f"attempts, each with the pause after it, without growing pauses: {tried}; see {one.log}")


def attempts(one: Instance, so_far: int) -> list[tuple[float, float]]:
    """When it said that it does not read, and after what pause it wants to try again, both in seconds."""
    found = re.findall(r"^(\S+) +ERROR .*: not reading .* retry_in=(\d+)s$", one.said()[so_far:], re.MULTILINE)
    return [(datetime.fromisoformat(at).timestamp(), float(pause)) for at, pause in found]
