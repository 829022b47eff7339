"""PyTorch's compiler on the peer: what it gains, if it works here."""

from contextlib import ExitStack
from functools import partial

from .. import plan, workload
from ..part import Part, Skipped
from .forward import benched, checked, in_turn, peer_bursts, peer_command, row, started


def run(part: Part) -> None:
    texts = workload.write(part.work, "mixed", workload.mixed())
    # The first model and type alone: compiling takes longer than measuring.
    name, folder = next(iter(benched(part).items()))
    if name not in plan.SHAPES:
        raise Skipped("no model of transformers' making")
    dtype = part.sizes.dtypes[0]
    with ExitStack() as closing:
        command = peer_command(part, folder, dtype, texts, "--compiled")
        peer = started(part, closing, f"{name}, {dtype}, torch compiled", command)
        if not peer:
            raise SystemExit("the peer did not start")
        ways = checked(part, f"{name}, {dtype}, compiled", name, peer, ["padded", "varlen"])
        rows = []
        # The mixed ones first: their graphs are there already, those without a mask must be compiled.
        for how, wanted in sorted(peer_bursts(part, ways).items(), key=lambda burst: burst[0].startswith("S=")):
            # One after the other, each saved: a graph that compiles for a minute takes none from the others.
            who = f"torch compiled | {how}"
            measured = in_turn(part, f"{name}, {dtype}", {who: partial(peer.burst, wanted)})
            rows += [row(part, name, dtype, who, rounds) for who, rounds in measured.items()]
            part.save(rows=rows)
