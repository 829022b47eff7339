"""The texts: the benches' mixed workload, and texts of exactly so many tokens."""

import json
import random
import subprocess
from pathlib import Path

from harness import place

# Made when the pack is, so that only the tools that measure travel.
MIXED = place.CACHE / "gpu-check" / "texts.jsonl"
TOKENIZER = place.ROOT / "models" / "sentiment"
SPECIAL_TOKENS = 2
EQUAL_TEXTS = 512


def generate() -> bytes:
    return subprocess.run([place.RELEASE / "texts"], check=True, stdout=subprocess.PIPE).stdout


def mixed() -> list[str]:
    lines = MIXED.read_bytes() if MIXED.exists() else generate()
    return [json.loads(line)["text"] for line in lines.splitlines()]


def equal(tokens: int, count: int = EQUAL_TEXTS) -> list[str]:
    """Texts of whole words of the uncased BERT vocabulary: a word is one token. Another text each time,
    or every cache on the way would be flattered."""
    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(word for word in vocabulary if len(word) > 2 and word.isascii() and word.isalpha() and word.islower())
    chance = random.Random(tokens)
    return [" ".join(chance.choices(words, k=tokens - SPECIAL_TOKENS)) for _ in range(count)]


def write(folder: Path, name: str, texts: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path
