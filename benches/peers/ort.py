"""ONNX Runtime in process, as a contender of compare_forward: a line of JSON in, a line of JSON out.

    {"order": "arrival" | "sorted" | "equal", "texts": 32, "length": 64, "seconds": 2, "tokenize": false}

measures for `seconds` and goes on where the same arrangement stopped, so that the rounds of a run cover
the whole workload. Tokens are real ones: padding is computed and not counted.
"""

import argparse
import json
import random
import sys
import time

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

CLS, SEP = 101, 102


def pad(rows: list[list[int]]) -> dict[str, np.ndarray]:
    length = max(len(row) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


class Runtime:
    def __init__(self, model: str, tokenizer: str, texts: list[str], threads: int, window: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(window)
        self.texts = texts
        self.rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        self.prepared: dict[str, tuple[list, list[int]]] = {}

    def arrange(self, wanted: dict) -> list[list[int]]:
        """The indices of the texts of each batch; for equal lengths, made-up rows are appended."""
        size = wanted["texts"]
        if wanted["order"] == "equal":
            start = len(self.rows)
            row = [CLS] + [2000 + i for i in range(wanted["length"] - 2)] + [SEP]
            self.rows += [row] * size
            return [list(range(start, start + size))]
        order = list(range(len(self.texts)))
        if wanted["order"] == "sorted":
            order.sort(key=lambda index: len(self.rows[index]))
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        if wanted["order"] == "sorted":
            # A burst takes some batches: shuffled, each burst sees short and long ones.
            random.Random(1).shuffle(batches)
        return batches

    def burst(self, wanted: dict) -> dict:
        key = json.dumps({k: v for k, v in wanted.items() if k != "seconds"}, sort_keys=True)
        if key not in self.prepared:
            batches = self.arrange(wanted)
            feeds = [pad([self.rows[i] for i in batch]) for batch in batches]
            counts = [sum(len(self.rows[i]) for i in batch) for batch in batches]
            self.prepared[key] = (list(zip(batches, feeds, counts)), [0])
            for feed in feeds[:2]:
                self.session.run(None, feed)
        work, cursor = self.prepared[key]
        texts = tokens = computed = 0
        times = []
        start = time.perf_counter()
        while True:
            batch, feed, count = work[cursor[0] % len(work)]
            cursor[0] += 1
            before = time.perf_counter()
            if wanted.get("tokenize"):
                feed = pad([e.ids for e in self.tokenizer.encode_batch([self.texts[i] for i in batch])])
            self.session.run(None, feed)
            now = time.perf_counter()
            times.append(now - before)
            texts, tokens, computed = texts + len(batch), tokens + count, computed + feed["input_ids"].size
            if now - start >= wanted["seconds"]:
                break
        times.sort()
        return {
            "texts": texts,
            "tokens": tokens,
            "batches": len(times),
            "seconds": now - start,
            "tokens_per_second": tokens / (now - start),
            "texts_per_second": texts / (now - start),
            "padding_ratio": 1 - tokens / computed,
            "batch_ms_p50": 1e3 * times[len(times) // 2],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=256)
    arguments = parser.parse_args()
    with open(arguments.texts, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines if line.strip()]
    runtime = Runtime(arguments.onnx, arguments.tokenizer, texts, arguments.threads, arguments.window)
    version = f"onnxruntime {onnxruntime.__version__}, numpy {np.__version__}"
    print(json.dumps({"ready": version}), flush=True)
    for line in sys.stdin:
        print(json.dumps(runtime.burst(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
