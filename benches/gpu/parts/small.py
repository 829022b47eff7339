"""Small batches, with their launches recorded as graphs and launch by launch, in turn; and one text over gRPC."""

import sys
from contextlib import ExitStack, closing
from functools import partial

from harness.contenders import median
from harness.server import Server

from .. import plan, workload
from ..part import Part
from .forward import benched, in_turn, ours_command, started
from .serving import loaded, options, threads

WAYS = {"graphs": [], "launch by launch": ["--no-graphs"]}
SERVED = {"graphs": "true", "launch by launch": "false"}
FIGURES = ("tokens_per_second", "texts_per_second", "batch_ms_p50", "batch_ms_p99")


def run(part: Part) -> None:
    texts = workload.write(part.work, "mixed", workload.mixed())
    dtype = part.sizes.dtypes[0]
    rows, singles = [], []
    for name, folder in benched(part).items():
        with part.guarded(f"{name}, {dtype}, small batches"):
            rows += forward(part, name, folder, dtype, texts)
            part.save(rows=rows)
    single = workload.write(part.work / "served", "single", workload.equal(part.sizes.single_tokens))
    for name, folder in benched(part).items():
        for way, chosen in SERVED.items():
            how = f"one text of {part.sizes.single_tokens} tokens, {way}"
            chosen = [*options(part, dtype), f"--cuda-graphs={chosen}"]
            with part.guarded(f"{name}, {dtype}, {how}"), closing(Server(folder, threads(part), chosen, name="bench", log=sys.stderr)) as server:
                singles += loaded(part, server, name, dtype, how, single, (1, (1,)))
                part.save(singles=singles)


def forward(part: Part, name: str, folder, dtype: str, texts) -> list[dict]:
    with ExitStack() as ending:
        command = ours_command(part, folder, dtype, texts)
        contenders = started(part, ending, {f"{name}, {dtype}, {way}": [*command, *flags] for way, flags in WAYS.items()})
        bursts = {}
        for way in WAYS:
            ours = contenders.get(f"{name}, {dtype}, {way}")
            part.check(f"{name}: penstock's forward, {way}", int(ours is not None), "starts", ours is not None)
            if ours:
                bursts |= {(how, way): partial(ours.burst, wanted) for how, wanted in shapes(part).items()}
        measured = in_turn(part, f"{name}, {dtype}", bursts)
    return [
        {"model": name, "dtype": dtype, "who": f"penstock, {way}", "how": how, "rounds": rounds, **{key: median(rounds, key) for key in FIGURES}}
        for (how, way), rounds in measured.items()
    ]


def shapes(part: Part) -> dict[str, dict]:
    equal = {f"{texts} texts of {length}": {"order": "equal", "texts": texts, "length": length} for texts, length in plan.SMALL}
    # Mixed lengths meet many buckets: recorded lists must come again often enough.
    mixed = {"mixed, up to 512 tokens": {"order": "arrival", "tokens": 512, "texts": 32}}
    return {how: {**wanted, "seconds": part.sizes.seconds} for how, wanted in {**equal, **mixed}.items()}
