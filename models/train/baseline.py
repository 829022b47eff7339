#!/usr/bin/env python3
"""What the fine-tuning must beat, on the same held-out part: the commoner label, and a logistic regression on
the frozen base model's embeddings (all-MiniLM-L6-v2): python3 baseline.py DOWNLOADS."""

import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression

import folder
import sentences


def main() -> None:
    downloads = Path(sys.argv[1])
    torch.set_num_threads(1)
    every = sentences.load(downloads)
    held_out = [s for s in every if s.part == "held-out"]
    others = [s for s in every if s.part != "held-out"]
    positive = sum(s.label for s in held_out) / len(held_out)
    print(f"the commoner label: {max(positive, 1 - positive):.4f} of {len(held_out)}")
    encoder = SentenceTransformer(str(folder.fetch_base(downloads)), device="cpu")
    regression = LogisticRegression(max_iter=2000).fit(encoder.encode([s.text for s in others]), [s.label for s in others])
    accuracy = regression.score(encoder.encode([s.text for s in held_out]), [s.label for s in held_out])
    print(f"logistic regression on frozen embeddings: {accuracy:.4f}")


if __name__ == "__main__":
    main()
