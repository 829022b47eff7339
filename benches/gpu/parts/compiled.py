"""PyTorch's compiler on the peer: its gain, if it works here."""

from contextlib import ExitStack
from functools import partial

from .. import plan, workload
from ..part import Part, Skipped
from .forward import benched, in_turn, peer_bursts, peer_command, row, started, works

# Seconds that a model needs to be worth beginning with: to start, and for a graph and its bursts.
LEAST = 40


def run(part: Part) -> None:
    texts = workload.write(part.work, "mixed", workload.mixed())
    models = {name: folder for name, folder in benched(part).items() if name in plan.SHAPES}
    if not models:
        raise Skipped("no model of transformers' making")
    # The first type alone: compiling takes longer than measuring.
    dtype = part.sizes.dtypes[0]
    rows: list[dict] = []
    for name, folder in models.items():
        if part.left() < LEAST:
            part.note(f"{name}: left out, because no time was left")
            continue
        label = f"{name}, {dtype}"
        with ExitStack() as closing:
            command = peer_command(part, folder, dtype, texts, "--compiled")
            for peer in started(part, closing, {f"{label}, torch compiled": command}).values():
                # Each is measured as soon as it is compiled, and saved: one that compiles for a minute takes none from
                # those before it.
                for way in ("padded", "varlen"):
                    if works(part, f"{label}, compiled", name, peer, way):
                        bursts(part, name, dtype, peer, way, rows)
    if not rows:
        raise SystemExit("nothing was compiled")


def bursts(part: Part, name: str, dtype: str, peer, way: str, rows: list[dict]) -> None:
    # The mixed ones first: their graphs are there already, those without a mask must be compiled.
    for how, wanted in sorted(peer_bursts(part, [way]).items(), key=lambda burst: burst[0].startswith("S=")):
        who = f"torch compiled | {how}"
        measured = in_turn(part, f"{name}, {dtype}", {who: partial(peer.burst, wanted)})
        rows += [row(part, name, dtype, who, rounds) for who, rounds in measured.items()]
        part.save(rows=rows)
