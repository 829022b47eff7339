"""From the figures to the page."""

import json
import statistics
from pathlib import Path

from harness import results
from harness.contenders import median, ratio

TOKENS, RECORDS = "tokens_per_second", "records_per_second"
PROCESSES = ("server", "broker", "consumer")


def earlier(folder: Path, name: str, about: dict) -> dict:
    """Results of other parts on the same day; each names its commit."""
    file = folder / f"{about['date'].split()[0]}-{name}.json"
    if not file.exists():
        return {}
    found = json.loads(file.read_text())
    return {key: value for key, value in found.items() if key != "about"} if same(found["about"], about) else {}


def merge(one: dict, other: dict) -> dict:
    return one | other | {"commits": one.get("commits", {}) | other["commits"]}


def same(one: dict, other: dict) -> bool:
    return all(one.get(key) == other.get(key) for key in ("cpu", "model", "workload", "threads"))


def sections(measured: dict, cores: int) -> list[str]:
    made: list[str] = []
    if found := measured.get("throughput"):
        made += throughput(found, cores)
    for lengths, found in measured.get("instant", {}).items():
        made += instant(lengths, found)
    if found := measured.get("interactive"):
        made += interactive(found)
    return made


def backlog(found: dict) -> str:
    about = found["backlog"]
    mean, rate = results.shown(float(about["tokens_mean"])), results.shown(float(about["produced_per_second"]))
    return f"{about['records']:,} records in {about['partitions']} partitions, {mean} tokens each on average, produced at {rate} a second"


def cores_of(rounds: list[dict]) -> list:
    """Cores that each process had."""
    return [median(rounds, f"{name}_cores") if f"{name}_cores" in rounds[0] else "" for name in PROCESSES]


def throughput(found: dict, cores: int) -> list[str]:
    rounds = found["rounds"]
    bare = rounds["bare forward"]
    rows = [["bare forward", median(bare, TOKENS), median(bare, "texts_per_second"), 1.0, 1.0, 1.0, "", "", "", ""]]
    for name, measured in rounds.items():
        if measured is not bare:
            share, low, high = ratio(measured, bare, TOKENS)
            # Share of the bare forward's rate on the cores that the broker leaves.
            left = statistics.median(
                one[TOKENS] / all[TOKENS] / (1 - one["broker_cores"] / cores)
                for one, all in zip(measured, bare, strict=True)
            )
            rates = [median(measured, TOKENS), median(measured, RECORDS)]
            rows.append([name, *rates, share, low, high, left, *cores_of(measured)])
    heads = ["who", "tokens/s", "records/s", "share", "low", "high", "share of the cores without the broker"]
    return [
        "## The model (share: of the same round's bare forward; wanted: at least 0.95)\n",
        f"{backlog(found)}.\n",
        results.table([*heads, *(f"{name}, cores" for name in PROCESSES)], rows),
        cost_of_once(rounds, TOKENS),
    ]


def cost_of_once(rounds: dict, figure: str) -> str:
    kept, low, high = map(results.shown, ratio(rounds["exactly-once"], rounds["at-least-once"], figure))
    return f"Exactly once, of the throughput of at-least-once: {kept} ({low} to {high} over the rounds; wanted: at least 0.90).\n"


def instant(lengths: str, found: dict) -> list[str]:
    rounds = found["rounds"]
    rows = []
    for name, measured in rounds.items():
        of_ours, _, _ = ratio(measured, rounds["exactly-once"], RECORDS)
        rates = [one[RECORDS] for one in measured]
        rows.append([name, median(measured, RECORDS), min(rates), max(rates), of_ours, *cores_of(measured)])
    wanted = "; wanted: at least 50,000 records/s" if lengths == "short" else ""
    heads = ["who", "records/s", "low", "high", "of exactly-once"]
    return [
        f"## A model that answers at once, {lengths} texts (tokenizing included{wanted})\n",
        f"{backlog(found)}.\n",
        results.table([*heads, *(f"{name}, cores" for name in PROCESSES)], rows),
        cost_of_once(rounds, RECORDS),
    ]


def interactive(found: dict) -> list[str]:
    rounds = found["rounds"]
    rows = []
    for name, measured in rounds.items():
        row = [name]
        row += [median(measured, figure) if figure in measured[0] else "" for figure in (TOKENS, "p50_ms", "p99_ms")]
        slower = ratio(measured, rounds["idle"], "p99_ms")[0] if "p99_ms" in measured[0] else ""
        kept = ratio(measured, rounds["drain alone"], TOKENS)[0] if name == "both" else ""
        rows.append([*row, slower, kept])
    rate = results.shown(found["rate"])
    heads = ["what", "drain, tokens/s", "p50 ms", "p99 ms", "p99, of idle", "drain, of alone"]
    return [
        "## Interactive requests beside a drain (wanted: p99 at most 2 of idle, the drain at least 0.85 of alone)\n",
        f"{backlog(found)}. {rate} requests a second over gRPC, Poisson arrivals, 10 % of the bare forward's texts/s.\n",
        results.table(heads, rows),
    ]
