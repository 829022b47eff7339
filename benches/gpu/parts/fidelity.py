"""Whole models against the original implementation, and the same texts packed against alone."""

import json
import math
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import place

from .. import plan, workload
from ..part import Part

ALONE = ["--batching-texts-max", "1"]


def run(part: Part) -> None:
    references = {path.stem: json.loads(path.read_text()) for path in sorted((part.work / "reference").glob("*.json"))}
    if not references:
        part.note("no reference outputs: packed is compared with alone, nothing with the original implementation")
    texts = part.work / "reference" / "texts.jsonl"
    if not texts.exists():
        texts = workload.write(part.work, "texts", workload.mixed()[: part.sizes.mixed])
    folders = {name: Path(reference["folder"]) for name, reference in references.items()} or {"small": part.models()["small"]}

    def model(name: str) -> None:
        for dtype in dict.fromkeys(["f32", *part.sizes.dtypes]):
            with part.guarded(f"{name}, {dtype}"):
                one(part, name, folders[name], dtype, texts, references.get(name, {}).get("rows"))

    # Side by side: most of it is starting, and nothing is timed.
    with ThreadPoolExecutor(1 if part.dry else len(folders)) as threads:
        list(threads.map(model, folders))


def one(part: Part, name: str, folder: Path, dtype: str, texts: Path, reference: list | None) -> None:
    packed, labels = score(part, folder, dtype, texts, [])
    if reference:
        compare(part, name, dtype, (packed, labels), reference)
    if dtype == "f32":
        alone, _ = score(part, folder, dtype, texts, ALONE)
        error = max(distance(a, b) for a, b in zip(packed, alone, strict=True))
        part.check(f"{name}, {dtype}: packed against alone, largest difference", error, f"≤ {plan.ALONE_ERROR_MAX:g}", error <= plan.ALONE_ERROR_MAX)


def score(part: Part, folder: Path, dtype: str, texts: Path, options: list[str]) -> tuple[list, list]:
    """A row of numbers for each text, and its label where there is one."""
    command = [place.RELEASE / "penstock", "score", "--model", folder, "--input", texts, "--field", "text"]
    command += ["--batching-tokens-max", part.sizes.batch_tokens if not part.dry else 2048, *part.on_device(dtype), *options]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    if len(records) != len(texts.read_bytes().splitlines()):
        raise SystemExit(f"{len(records)} records came out of {texts.name}")
    if "embedding" in records[0]:
        return [record["embedding"] for record in records], []
    named = list(json.loads((folder / "config.json").read_text())["id2label"].values())
    return [[record["probabilities"][label] for label in named] for record in records], [named.index(r["label"]) for r in records]


def compare(part: Part, name: str, dtype: str, got: tuple[list, list], reference: list) -> None:
    rows, labels = got
    error = max(distance(a, b) for a, b in zip(rows, reference, strict=True))
    least = min(cosine(a, b) for a, b in zip(rows, reference, strict=True))
    if dtype == "f32":
        part.check(f"{name}, {dtype}: largest difference", error, f"≤ {plan.F32_ERROR_MAX:g}", error <= plan.F32_ERROR_MAX)
    else:
        part.check(f"{name}, {dtype}: least cosine", least, f"≥ {plan.HALF_COSINE_MIN:g}", least >= plan.HALF_COSINE_MIN)
        with part.lock:
            part.save(largest={**part.data.get("largest", {}), f"{name}, {dtype}": error})
    if labels:
        lead = plan.RANDOM_LEAD_MIN if name in plan.SHAPES else 0.0
        counted = [i for i, row in enumerate(reference) if leads(row) >= lead]
        same = sum(labels[i] == reference[i].index(max(reference[i])) for i in counted) / max(len(counted), 1)
        wanted = plan.LABELS_MIN[dtype]
        part.check(f"{name}, {dtype}: labels that agree, of {len(counted)} texts", same, f"≥ {wanted:g}", bool(counted) and same >= wanted)


def leads(row: list[float]) -> float:
    """By how much the likeliest label is ahead."""
    first, second = sorted(row, reverse=True)[:2]
    return first - second


def distance(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths
