#!/usr/bin/env python3
"""Makes the reference outputs (and, for families, the models themselves); README.md says how they are used.

    python3 make_reference.py families [NAME...]
    python3 make_reference.py variants
    python3 make_reference.py minilm DOWNLOADS
    python3 make_reference.py sentiment
"""

import json
import os
import sys
from pathlib import Path

# Training a tokenizer on several threads adds floats in an order that changes from run to run.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

MODELS = Path(__file__).resolve().parent.parent
sys.path.append(str(MODELS / "train"))

import families
import folder
import original
import texts
import variants

TOLERANCE = 1e-4
CASES = 220
AT_LOAD = ["", "a", " \t\n", "The screen is bright and the battery lasts two days.", "Never again: cold food, rude staff!",
           "I can't say it was bad, but I would not call it good either.", "caf\u00e9 CAF\u00c9 cafe\u0301", "nul\x00inside \x07bell",
           "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd great", "今天的电影很好看", "الخدمة بطيئة جدا", "यह फिल्म बहुत अच्छी है",
           "https://example.org/a?b=c#d", "[MASK] typed [SEP] by hand", "x" * 120, " ".join(["a long and dull film"] * 30)]


def main() -> None:
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["families", *names]:
            make_families(names)
        case ["variants"]:
            variants.write(MODELS / "tests/vectors/variants.json")
        case ["minilm", downloads]:
            base = folder.fetch_base(Path(downloads))
            write(MODELS / "tests/vectors/all-MiniLM-L6-v2.json", "embedding", 256, original.embed(base, texts.sample(CASES, 7, 256), 256))
        case ["sentiment"]:
            model = MODELS / "sentiment"
            write(MODELS / "tests/vectors/sentiment.json", "sequence-classification", 512, original.classify(model, texts.sample(CASES, 11, 512), 512))
            write(model / "parity.json", "sequence-classification", 512, original.classify(model, AT_LOAD, 512))
        case _:
            raise SystemExit(__doc__)


def make_families(names: list[str]) -> None:
    for seed, family in enumerate(families.FAMILIES):
        if names and family.name not in names:
            continue
        print(family.name)
        place = MODELS / "tests/families" / family.name
        families.build(family, seed, place)
        run, task = (original.embed, "embedding") if family.pooling else (original.classify, "sequence-classification")
        cases = run(place, texts.sample(CASES, 100 + seed, families.TOKENS_MAX), family.tokens_max)
        write(place / "parity.json", task, family.tokens_max, cases)


def write(path: Path, task: str, tokens_max: int, cases: list[dict]) -> None:
    """One case a line; ASCII, so that no editor or diff alters an invisible character."""
    distinct = {tuple(case["output"]) for case in cases}
    if len(distinct) < len(cases) // 2:
        raise SystemExit(f"{path}: only {len(distinct)} different outputs in {len(cases)} cases")
    head = {"format": 1, "task": task, "made_with": original.made_with(), "max_length": tokens_max, "tolerance": TOLERANCE}
    lines = [json.dumps(case, separators=(",", ":")) for case in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n", encoding="ascii")


if __name__ == "__main__":
    main()
