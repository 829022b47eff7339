#!/usr/bin/env python3
"""Trains the default sentiment model: MiniLM-L6 fine-tuned on sentences that people have rated.

    python3 train.py --output ../sentiment     trains on the whole train part, reports the held-out accuracy
    python3 train.py --validate                trains without the validation part, reports on that part only
"""

import argparse
import random
import time
from pathlib import Path

import torch
from transformers import BertForSequenceClassification

import folder
import sentences
from sentences import Sentence

TOKENS_MAX = 128


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--output", type=Path, help="model folder to write")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--softness", type=float, default=1.0, help="target is sigmoid(rating / softness); 0 is a hard label")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    chosen = parser.parse_args()
    if chosen.validate == bool(chosen.output):
        parser.error("give either --output or --validate")
    return chosen


def main() -> None:
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    base = folder.fetch_base(chosen.downloads)
    tokenizer = folder.tokenizer(base)
    parts = {"train": [], "validation": [], "held-out": []}
    for sentence in sentences.load(chosen.downloads):
        parts[sentence.part].append(sentence)
    model = BertForSequenceClassification.from_pretrained(
        base, num_labels=2, id2label=folder.LABELS, label2id={v: k for k, v in folder.LABELS.items()},
        problem_type="single_label_classification", dtype=torch.float32)
    # Nobody looks at the held-out part before the hyper-parameters are fixed.
    learned_from = parts["train"] if chosen.validate else parts["train"] + parts["validation"]
    train(model, encode(tokenizer, learned_from), chosen, encode(tokenizer, parts["validation"]) if chosen.validate else [])
    if chosen.output:
        folder.round_to_f16(model)
        folder.write(model, tokenizer, chosen.output)
        report("held-out", model, encode(tokenizer, parts["held-out"]))


def encode(tokenizer, part: list[Sentence]) -> list[tuple[list[int], Sentence]]:
    tokenizer.enable_truncation(TOKENS_MAX)
    ids = [encoding.ids for encoding in tokenizer.encode_batch([s.text for s in part])]
    tokenizer.no_truncation()
    return list(zip(ids, part))


def train(model, examples, chosen: argparse.Namespace, validation) -> None:
    optimizer = torch.optim.AdamW(groups(model), lr=chosen.learning_rate)
    steps = chosen.epochs * -(-len(examples) // chosen.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rise_and_fall(step / steps))
    order = random.Random(chosen.seed)
    began = time.monotonic()
    for epoch in range(1, chosen.epochs + 1):
        model.train()
        total = 0.0
        for batch in batches(examples, chosen.batch, order):
            ids, mask = padded(batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=chosen.bf16):
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), targets(batch, chosen.softness))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch}: loss {total / len(examples):.4f}, {time.monotonic() - began:.0f} s", flush=True)
        if validation:
            report("validation", model, validation)


def groups(model) -> list[dict]:
    """Biases and LayerNorm weights are not decayed."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


def rise_and_fall(done: float, warm_up: float = 0.1) -> float:
    return done / warm_up if done < warm_up else (1.0 - done) / (1.0 - warm_up)


def batches(examples, size: int, order: random.Random) -> list:
    """Texts of like length stand together, so that little is spent on padding; which ones is chance."""
    shuffled = order.sample(examples, len(examples))
    reach = size * 40
    alike = []
    for start in range(0, len(shuffled), reach):
        alike += sorted(shuffled[start : start + reach], key=lambda example: len(example[0]))
    cut = [alike[start : start + size] for start in range(0, len(alike), size)]
    order.shuffle(cut)
    return cut


def padded(batch) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
    return ids, mask


def targets(batch, softness: float) -> torch.Tensor:
    if softness == 0.0:
        return torch.tensor([sentence.label for _, sentence in batch])
    positive = torch.sigmoid(torch.tensor([sentence.rating / softness for _, sentence in batch]))
    return torch.stack([1 - positive, positive], dim=1)


@torch.no_grad()
def report(name: str, model, examples) -> None:
    model.eval()
    ordered = sorted(examples, key=lambda example: len(example[0]))
    right: dict[str, list[bool]] = {"all": []}
    for start in range(0, len(ordered), 64):
        batch = ordered[start : start + 64]
        ids, mask = padded(batch)
        guessed = model(input_ids=ids, attention_mask=mask).logits.argmax(dim=1).tolist()
        for label, (_, sentence) in zip(guessed, batch):
            right["all"].append(label == sentence.label)
            right.setdefault(sentence.source, []).append(label == sentence.label)
    for source, hits in right.items():
        print(f"{name} {source}: {sum(hits)} of {len(hits)} right, accuracy {sum(hits) / len(hits):.4f}", flush=True)


if __name__ == "__main__":
    main()
