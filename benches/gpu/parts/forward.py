"""The bare forward of each model, type and workload, beside PyTorch on the same device in turn."""

import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

from harness import place
from harness.contenders import Contender, interleave, median

from .. import plan, roofline, workload
from ..part import Part
from .fidelity import cosine

PEER = Path(__file__).resolve().parents[1] / "peer.py"
CHECKED = 8
# Torch's ways to pack, the better one first: attention over `cu_seqlens`, and nested tensors where that is missing.
PACKED = ("varlen", "nested")
# Seconds for a burst, or for a process to be ready: a peer that hangs must not take the time of the others.
PATIENCE = 75


def run(part: Part) -> None:
    texts = workload.write(part.work, "mixed", workload.mixed())
    if not part.torch:
        part.note("no torch: the peer is left out")
    models = [(name, folder, dtype) for name, folder in benched(part).items() for dtype in part.sizes.dtypes]
    commands = {f"{name}, {dtype}, penstock": ours_command(part, folder, dtype, texts) for name, folder, dtype in models}
    if part.torch:
        commands |= {f"{name}, {dtype}, torch": peer_command(part, folder, dtype, texts) for name, folder, dtype in models}
    rows = []
    with ExitStack() as closing:
        contenders = started(part, closing, commands)
        for name, _, dtype in models:
            with part.guarded(f"{name}, {dtype}"):
                rows += one(part, closing, name, dtype, commands, contenders)
                part.save(rows=rows)


def benched(part: Part) -> dict[str, Path]:
    folders = part.models()
    return {name: folders[name] for name in plan.BENCHED if name in folders} or {"small": folders["small"]}


def one(part: Part, closing: ExitStack, name: str, dtype: str, commands: dict, contenders: dict) -> list[dict]:
    label = f"{name}, {dtype}"
    bursts: dict[str, dict] = {}
    ours = contenders.get(f"{label}, penstock")
    part.check(f"{label}: penstock's forward", int(ours is not None), "starts", ours is not None)
    if ours:
        bursts |= {f"penstock | {how}": partial(ours.burst, wanted) for how, wanted in ours_bursts(part).items()}
    torch = f"{label}, torch"
    if peer := contenders.get(torch):
        ways = working(part, label, name, peer)
        if ways != ["padded", PACKED[0]]:
            # The failure may have left the device unusable for that process.
            peer.close()
            peer = started(part, closing, {torch: commands[torch]}).get(torch)
        if peer:
            bursts |= {f"torch | {how}": partial(peer.burst, wanted) for how, wanted in peer_bursts(part, ways).items()}
    measured = in_turn(part, label, bursts)
    return [row(part, name, dtype, who, rounds) for who, rounds in measured.items()]


def in_turn(part: Part, label: str, bursts: dict) -> dict:
    """Every burst once a round. One that fails is left out from then on, and the others go on; where it is ours it
    is a check that does not hold."""
    broken = set()

    def tried(who, burst):
        if who in broken:
            return None
        try:
            return burst()
        except (OSError, ValueError, SystemExit) as error:
            broken.add(who)
            named = f"{label}, {who if isinstance(who, str) else ', '.join(who)}"
            part.note(f"{named}, left out: {error}")
            if "torch" not in named:
                part.check(f"{named}: runs", 0, "1", False)
            return None

    measured = interleave({who: partial(tried, who, burst) for who, burst in bursts.items()}, part.sizes.rounds)
    return {who: rounds for who, rounds in measured.items() if who not in broken}


def started(part: Part, closing: ExitStack, commands: dict[str, list]) -> dict[str, Contender]:
    """Contenders that start, all at once: most of the time goes into imports and reading weights."""

    def start(what: str) -> tuple[str, Contender] | None:
        try:
            return what, Contender(commands[what], patience=PATIENCE)
        except (OSError, SystemExit, ValueError) as error:
            part.note(f"{what} did not start: {error}")
            return None

    with ThreadPoolExecutor(len(commands)) as threads:
        contenders = dict(filter(None, threads.map(start, commands)))
    for contender in contenders.values():
        closing.callback(contender.close)
    versions = {what.rpartition(", ")[2]: contender.version for what, contender in contenders.items()}
    part.save(versions=part.data.get("versions", {}) | versions)
    return contenders


def ours_command(part: Part, folder: Path, dtype: str, texts: Path) -> list:
    command = [place.RELEASE / "forward", "--model", folder, "--texts", texts]
    return [*command, *(part.on_device(dtype) or ["--threads", 2])]


def peer_command(part: Part, folder: Path, dtype: str, texts: Path, *options: str) -> list:
    return [sys.executable, PEER, "--model", folder, "--texts", texts, "--device", part.device, "--dtype", dtype, *options]


def ours_bursts(part: Part) -> dict[str, dict]:
    sizes = part.sizes
    bursts = {f"S={n}": equal(sizes, n) for n in sizes.lengths}
    bursts["mixed, packed"] = {"order": "arrival", "tokens": sizes.batch_tokens, "seconds": sizes.seconds}
    return bursts


def equal(sizes: plan.Sizes, length: int) -> dict:
    return {"order": "equal", "length": length, "texts": max(1, sizes.batch_tokens // length), "seconds": sizes.seconds}


def peer_bursts(part: Part, ways: list[str]) -> dict[str, dict]:
    sizes = part.sizes
    bursts = {}
    if "padded" in ways:
        bursts = {f"S={n}": {"how": "padded", **equal(sizes, n)} for n in sizes.lengths}
        mixed = {"how": "padded", "seconds": sizes.seconds}
        bursts["mixed, padded, 32 in arrival order"] = {**mixed, "order": "arrival", "texts": 32}
        bursts["mixed, padded, 32 sorted by length"] = {**mixed, "order": "sorted", "texts": 32}
        bursts["mixed, padded, 256 sorted by length"] = {**mixed, "order": "sorted", "texts": 256}
    packed = {"order": "arrival", "tokens": sizes.batch_tokens, "seconds": sizes.seconds}
    return bursts | {f"mixed, packed, {how}": {"how": how, **packed} for how in ways if how != "padded"}


def working(part: Part, label: str, name: str, peer: Contender) -> list[str]:
    """The ways of the peer that work here: padded, and the first of those that pack. Another is not tried where it is
    not needed, because an error on the device would take the others with it."""
    ways = [how for how in ("padded",) if works(part, label, name, peer, how)]
    return ways + list(islice((how for how in PACKED if works(part, label, name, peer, how)), 1))


def works(part: Part, label: str, name: str, peer: Contender, how: str) -> bool:
    """Whether this way of the peer works here, after a look at its results. A failure in it ends nothing."""
    try:
        least = least_cosine(part, name, peer.burst({"check": CHECKED, "ways": [how]})[how])
    except (Exception, SystemExit) as error:  # noqa: BLE001: a peer's failure must not take our figures
        part.note(f"{label}: torch, {how}, left out: {error}")
        return False
    if least is None:
        part.note(f"{label}: no reference outputs, so those of torch, {how}, are not checked")
    else:
        part.check(f"{label}: torch, {how}, least cosine to the reference", least, f"≥ {plan.HALF_COSINE_MIN:g}", least >= plan.HALF_COSINE_MIN)
    return True


def least_cosine(part: Part, name: str, rows: list | str) -> float | None:
    """Least cosine of the peer's first vectors and the reference's, if any; the peer may give a reason for none."""
    if isinstance(rows, str):
        raise SystemExit(rows)
    path = part.work / "reference" / f"{name}.json"
    if not path.exists():
        return None
    # The reference's texts begin with two of their own, then come the workload's in order.
    references = json.loads(path.read_text())["rows"]
    known = dict(zip(read_texts(part.work / "reference" / "texts.jsonl"), references, strict=True))
    return min(cosine(row, known[text]) for row, text in zip(rows, workload.mixed()) if text in known)


def read_texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def row(part: Part, name: str, dtype: str, who: str, rounds: list[dict]) -> dict:
    """Medians over the rounds, the FLOPs a token, and the shares of the ceilings."""
    contender, _, how = who.partition(" | ")
    figures = {"model": name, "dtype": dtype, "who": contender, "how": how, "rounds": rounds}
    figures |= {key: median(rounds, key) for key in ("tokens_per_second", "texts_per_second", "batch_ms_p50")}
    if all("batch_ms_p99" in one for one in rounds):
        figures["batch_ms_p99"] = median(rounds, "batch_ms_p99")
    ceilings = part.other("ceilings")
    if name in plan.SHAPES and not part.dry and "copy_tbps" in ceilings:
        figures |= shares(part, plan.SHAPES[name], dtype, how, figures["tokens_per_second"], ceilings)
    return figures


def shares(part: Part, shape: plan.Shape, dtype: str, how: str, rate: float, ceilings: dict) -> dict:
    if how.startswith("S="):
        length = int(how[2:])
        lengths = [length] * max(1, part.sizes.batch_tokens // length)
        batches = 1
    else:
        lengths = part.data.get("mixed_lengths") or mixed_lengths(part)
        batches = -(-sum(lengths) // part.sizes.batch_tokens)
    matmul = ceilings["matmul_f16_tflops" if dtype == "f16" else "matmul_tflops"]
    each = roofline.flops(shape, lengths) / sum(lengths)
    bound = roofline.bound_seconds(shape, lengths, batches, {**ceilings, "matmul_tflops": matmul})
    return {"flops_per_token": each, "matmul_share": rate * each / (matmul * 1e12), "bound_share": rate * bound / sum(lengths)}


def mixed_lengths(part: Part) -> list[int]:
    """Tokens of each text of the mixed workload."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(part.models()["small"] / "tokenizer.json"))
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(workload.mixed())]
    part.save(mixed_lengths=lengths, mixed_mean=statistics.mean(lengths))
    return lengths
