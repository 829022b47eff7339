"""The results on disk: everything measured as JSON, and a page with targets and measured figures."""

import datetime
import json
from pathlib import Path

from harness.results import shown, table

from . import cuda, plan, roofline
from .part import read


def stem(folder: Path, dry: bool) -> Path:
    """The results' path without its ending: the day and the GPU, and the time where there is a page of that day."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    if dry:
        return folder / f"{now:%Y-%m-%d}-gpu-dry-run"
    found = folder / f"{now:%Y-%m-%d}-gpu-{cuda.short_name()}"
    return found.with_name(f"{found.name}-{now:%H%M%S}") if found.with_suffix(".md").exists() else found


def write(path: Path, work: Path, outcomes: dict, dry: bool) -> None:
    """Called after every part: a run that is cut off leaves its figures so far."""
    parts = {step.name: read(work, step.name)["data"] for step in plan.STEPS}
    goals = [] if dry else targets(parts)
    data = {"dry_run": dry, "outcomes": outcomes, "targets": goals, "parts": parts}
    path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(parts["machine"], outcomes, goals, parts, dry), encoding="utf-8")


def page(about: dict, outcomes: dict, goals: list, parts: dict, dry: bool) -> str:
    title = "# GPU suite, dry run on a CPU: every part was tried, nothing was measured\n" if dry else "# GPU suite: Penstock on CUDA beside PyTorch\n"
    lines = [title, *(f"- {key.replace('_', ' ')}: {fact(value)}" for key, value in about.items()), ""]
    sections = [("## Parts\n", ["part", "", "s", "expected", "why"], part_rows(outcomes))]
    if not dry:
        sections.append(("## Targets\n", ["figure", "wanted", "reached", ""], [[g["name"], g["wanted"], g["reached"], g["verdict"]] for g in goals]))
    sections += [
        ("## Ceilings (PyTorch, this device)\n", ["figure", "value"], [[k, v] for k, v in parts["ceilings"].items()]),
        ("## What must hold\n", ["check", "value", "wanted", ""], check_rows(parts)),
        ("## Bare forward (medians; padding is computed and not counted)\n", FORWARD_HEADS, forward_rows(parts)),
        ("## Over gRPC (KServe v2, closed loop)\n", SERVING_HEADS, serving_rows(parts)),
        ("## The arithmetic\n", ["shape", "S", "MFLOP a token", "kB a token", "FLOP a byte"], arithmetic_rows()),
        ("## Notes\n", ["part", "note"], [[name, note] for name, data in parts.items() for note in data.get("notes", [])]),
    ]
    for head, columns, rows in sections:
        if rows:
            lines += [head, table(columns, rows)]
    return "\n".join(lines)


def fact(value) -> str:
    return ", ".join(f"{name} {said}" for name, said in value.items()) if isinstance(value, dict) else shown(value)


def part_rows(outcomes: dict) -> list[list]:
    expected = {step.name: step.expected for step in plan.STEPS}
    return [[name, o["status"], round(o["seconds"], 1), expected[name], o["reason"]] for name, o in outcomes.items()]


def check_rows(parts: dict) -> list[list]:
    """Small values in full: 1e-5 is the point of some."""
    rows = []
    for name, data in parts.items():
        for check in data.get("checks", []):
            value = f"{check['value']:.3g}" if isinstance(check["value"], float) and abs(check["value"]) < 0.01 else f"{check['value']:.6g}"
            rows.append([f"{name}: {check['name']}", value, check["wanted"], "held" if check["ok"] else "**not held**"])
    return rows


FORWARD_HEADS = ["model", "type", "who", "workload", "tokens/s", "texts/s", "batch ms p50", "p99", "of the matmul ceiling", "of the roofline"]


def forward_rows(parts: dict) -> list[list]:
    rows = []
    for row in parts["forward"].get("rows", []) + parts["small"].get("rows", []) + parts["compiled"].get("rows", []):
        share = [percent(row.get("matmul_share")), percent(row.get("bound_share"))]
        rates = [row["tokens_per_second"], row["texts_per_second"], row["batch_ms_p50"], row.get("batch_ms_p99", "")]
        rows.append([row["model"], row["dtype"], row["who"], row["how"], *rates, *share])
    return rows


SERVING_HEADS = ["model", "type", "workload", "texts a request", "requests on their way", "tokens/s", "texts/s", "p50 ms", "p99 ms"]


def serving_rows(parts: dict) -> list[list]:
    keys = ("model", "dtype", "how", "texts_per_request", "concurrency", "tokens_per_second", "texts_per_second", "p50_ms", "p99_ms")
    return [[row[key] for key in keys] for row in parts["serving"].get("rows", []) + parts["small"].get("singles", [])]


def arithmetic_rows() -> list[list]:
    """Limit of a batch of the plan's size: FLOPs and bytes of a token, weights spread over the batch."""
    rows = []
    for name in plan.BENCHED:
        shape = plan.SHAPES[name]
        for length in plan.FULL.lengths:
            texts = plan.FULL.batch_tokens // length
            tokens = texts * length
            flops = roofline.flops(shape, [length] * texts) / tokens
            moved = roofline.bytes_moved(shape, tokens, 1) / tokens
            rows.append([name, length, flops / 1e6, moved / 1e3, flops / moved])
    return rows


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def targets(parts: dict) -> list[dict]:
    """Targets of an H200 and the measured figures; a missing figure is reported as missing."""
    goals = []

    def goal(name: str, wanted: str, reached: float | None, ok: bool, as_share: bool = True) -> None:
        said = "not measured" if reached is None else percent(reached) if as_share else shown(reached)
        goals.append({"name": name, "wanted": wanted, "reached": said, "verdict": "reached" if ok else "**missed**" if reached is not None else ""})

    checks = [check for name in ("kernels", "memcheck", "racecheck", "fidelity") for check in parts[name].get("checks", [])]
    held = sum(check["ok"] for check in checks)
    fidelity = held / len(checks) if checks else None
    goal(f"checks of fidelity that hold, of {len(checks)}", "all", fidelity, fidelity == 1.0)
    rows = parts["forward"].get("rows", [])
    for length, wanted in plan.FORWARD_SHARE.items():
        # Without a ceiling there is no share, and nothing to be missed.
        found = [r["matmul_share"] for r in find(rows, "bert-base", "penstock", f"S={length}") if "matmul_share" in r]
        goal(f"BERT-base, forward at S={length}, of the matmul ceiling", f"≥ {100 * wanted:.0f} %", max(found, default=None), max(found, default=0) >= wanted)
    for model in plan.BENCHED:
        for length in plan.FORWARD_SHARE:
            share = served(parts, model, f"S={length}")
            goal(f"{model}, over gRPC at S={length}, of the forward", f"≥ {100 * plan.SERVED_SHARE:.0f} %", share, (share or 0) >= plan.SERVED_SHARE)
    for model in plan.BENCHED:
        for peer in ("mixed, padded, 32 in arrival order", "mixed, padded, 32 sorted by length"):
            ratio = best_ratio(rows, model, peer)
            goal(f"{model}, packed mixed lengths, times PyTorch's {peer.removeprefix('mixed, ')}", f"≥ {plan.PACKED_RATIO}", ratio, (ratio or 0) >= plan.PACKED_RATIO, as_share=False)
    single = [r["p50_ms"] for r in parts["serving"].get("rows", []) if r["model"] == "bert-base" and r["concurrency"] == 1]
    goal(f"BERT-base, one text of {plan.FULL.single_tokens} tokens, p50 ms", f"< {plan.SINGLE_P50_MS:g}", min(single, default=None), bool(single) and min(single) < plan.SINGLE_P50_MS, as_share=False)
    return goals


def find(rows: list[dict], model: str, who: str, how: str, dtype: str | None = None) -> list[dict]:
    return [r for r in rows if (r["model"], r["who"], r["how"]) == (model, who, how) and dtype in (None, r["dtype"])]


def served(parts: dict, model: str, how: str) -> float | None:
    """The best load's share of the bare forward of the same type, in the better of the two."""
    shares = []
    for forward in find(parts["forward"].get("rows", []), model, "penstock", how):
        alike = [r for r in parts["serving"].get("rows", []) if (r["model"], r["how"], r["dtype"]) == (model, how, forward["dtype"])]
        shares += [r["tokens_per_second"] / forward["tokens_per_second"] for r in alike]
    return max(shares, default=None)


def best_ratio(rows: list[dict], model: str, peer: str) -> float | None:
    """The better of the two half types; each against the peer in the same type."""
    ratios = []
    for dtype in plan.FULL.dtypes:
        ours, theirs = find(rows, model, "penstock", "mixed, packed", dtype), find(rows, model, "torch", peer, dtype)
        ratios += [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs)]
    return max(ratios, default=None)
