#!/usr/bin/env python3
"""Writes the held-out sentences as JSON lines {"text", "label"}: python3 heldout.py OUTPUT [DOWNLOADS]."""

import json
import sys
from pathlib import Path

import sentences

LABELS = ["NEGATIVE", "POSITIVE"]


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    output = Path(sys.argv[1])
    downloads = Path(sys.argv[2]) if len(sys.argv) == 3 else output.parent
    held_out = [s for s in sentences.load(downloads) if s.part == "held-out"]
    with output.open("w", encoding="utf-8") as file:
        for sentence in held_out:
            row = {"text": sentence.text, "label": LABELS[sentence.label]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(held_out)} held-out sentences in {output}")


if __name__ == "__main__":
    main()
