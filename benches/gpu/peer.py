"""PyTorch in process, as a contender: a line of JSON in, a line of JSON out.

    {"how": "padded" | "varlen" | "nested", "order": "arrival" | "sorted" | "equal", "texts": 32, "seconds": 1}

`padded` is transformers' own model with scaled dot product attention on padded batches; the other two pack
as Penstock does, with torch's attention over `cu_seqlens` or over nested tensors, and one product for query,
key and value. The peer is measured at its best: inference mode, batches tokenized and pinned beforehand, two
batches in flight, copies that don't wait, a mask only where there is padding, and no result left on the device.
`{"check": 8}` answers with the first vectors of each way instead. Tokens are real ones: padding is computed
and not counted.
"""

import argparse
import json
import random
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from torch.nn import functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
IN_FLIGHT = 2
WARM = 3


@dataclass
class Batch:
    """Host memory of inputs and results, pinned if there is a device."""

    lengths: list[int]
    tensors: dict[str, torch.Tensor]
    out: torch.Tensor
    longest: int = field(init=False)

    def __post_init__(self):
        self.longest = max(self.lengths)


class Peer:
    def __init__(self, folder: Path, device: str, dtype: str, compiled: bool):
        self.device = torch.device(device)
        options = {"dtype": DTYPES[dtype], "attn_implementation": "sdpa"}
        self.model = transformers.AutoModel.from_pretrained(folder, **options).eval().to(self.device)
        self.hidden = self.model.config.hidden_size
        self.heads = self.model.config.num_attention_heads
        self.fused = [fuse(layer.attention.self) for layer in self.model.encoder.layer]
        self.ways = {"padded": self.padded, "varlen": self.varlen, "nested": self.nested}
        if compiled:
            # On a CPU only dynamo's half: the other compiles C++ for minutes.
            backend = "inductor" if device == "cuda" else "eager"
            self.ways = {name: torch.compile(way, dynamic=True, backend=backend) for name, way in self.ways.items()}

    def padded(self, batch: dict, longest: int) -> torch.Tensor:
        mask = batch.get("mask")
        hidden = self.model(input_ids=batch["ids"], attention_mask=mask).last_hidden_state
        if mask is None:
            return hidden.mean(1)
        return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)

    def varlen(self, batch: dict, longest: int) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        cuts = batch["cuts"]
        if cuts.device.type == "cpu":
            # No such kernel there: text by text, which tries out everything around it.
            return self.packed(batch, lambda q, k, v: apart(q, k, v, cuts.diff().tolist()))
        return self.packed(batch, lambda q, k, v: varlen_attn(q, k, v, cuts, cuts, longest, longest))

    def nested(self, batch: dict, longest: int) -> torch.Tensor:
        cuts = batch["cuts"].long()

        def attend(q, k, v):
            parts = (torch.nested.nested_tensor_from_jagged(x, cuts, max_seqlen=longest, min_seqlen=1) for x in (q, k, v))
            return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in parts)).transpose(1, 2).values()

        return self.packed(batch, attend)

    def packed(self, batch: dict, attend) -> torch.Tensor:
        embeddings, tokens = self.model.embeddings, batch["ids"].shape[0]
        x = embeddings.word_embeddings(batch["ids"]) + embeddings.position_embeddings(batch["positions"])
        x = embeddings.LayerNorm(x + embeddings.token_type_embeddings.weight[0])
        for layer, (weight, bias) in zip(self.model.encoder.layer, self.fused, strict=True):
            q, k, v = F.linear(x, weight, bias).view(tokens, 3, self.heads, -1).unbind(1)
            result = attend(q, k, v).reshape(tokens, self.hidden)
            x = layer.attention.output.LayerNorm(layer.attention.output.dense(result) + x)
            x = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)
        lengths = batch["cuts"].diff()
        sums = torch.zeros(lengths.shape[0], self.hidden, dtype=torch.float32, device=x.device)
        return sums.index_add_(0, batch["rows"], x.float()) / lengths.unsqueeze(1)

    @torch.inference_mode()
    def run(self, how: str, batch: Batch):
        """Starts a batch; the returned function waits for the result."""
        there = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.tensors.items()}
        batch.out.copy_(self.ways[how](there, batch.longest), non_blocking=True)
        if self.device.type == "cpu":
            return lambda: None
        done = torch.cuda.Event()
        done.record()
        return done.synchronize


def apart(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    texts = zip(*(x.transpose(0, 1).split(lengths, 1) for x in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*text) for text in texts], 1).transpose(0, 1)


def fuse(attention) -> tuple[torch.Tensor, torch.Tensor]:
    parts = (attention.query, attention.key, attention.value)
    return torch.cat([part.weight for part in parts]).detach(), torch.cat([part.bias for part in parts]).detach()


class Bursts:
    """The workload in every arrangement that was asked for, and where each stopped."""

    def __init__(self, peer: Peer, tokenizer: Path, texts: list[str]):
        self.peer = peer
        reader = Tokenizer.from_file(str(tokenizer))
        reader.no_padding()
        reader.enable_truncation(512)
        self.rows = [encoding.ids for encoding in reader.encode_batch(texts)]
        self.prepared: dict[str, tuple[list[Batch], list[int]]] = {}

    def arrange(self, wanted: dict) -> list[list[list[int]]]:
        chance = random.Random(1)
        if wanted["order"] == "equal":
            return [[[chance.randrange(1000, 20_000) for _ in range(wanted["length"])] for _ in range(wanted["texts"])]]
        ordered = sorted(self.rows, key=len) if wanted["order"] == "sorted" else self.rows
        batches: list[list[list[int]]] = []
        tokens = 0
        for row in ordered:
            tokens += len(row)
            if not batches or len(batches[-1]) >= wanted.get("texts", len(ordered)) or tokens > wanted.get("tokens", tokens):
                batches.append([])
                tokens = len(row)
            batches[-1].append(row)
        if wanted["order"] == "sorted":
            # A burst takes some batches: shuffled, each burst sees short and long ones.
            chance.shuffle(batches)
        return batches

    def batch(self, how: str, rows: list[list[int]]) -> Batch:
        lengths = [len(row) for row in rows]
        if how == "padded":
            longest = max(lengths)
            tensors = {"ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows])}
            if min(lengths) < longest:
                tensors["mask"] = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
        else:
            tensors = {
                "ids": torch.tensor([token for row in rows for token in row]),
                "positions": torch.tensor([i for n in lengths for i in range(n)]),
                "rows": torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)]),
                "cuts": torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32),
            }
        out = torch.empty(len(rows), self.peer.hidden, dtype=torch.float32)
        if self.peer.device.type == "cuda":
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
            out = out.pin_memory()
        return Batch(lengths, tensors, out)

    def check(self, count: int, ways: list[str]) -> dict:
        """The first vectors, or why a way doesn't work here."""
        answer = {}
        for how in ways:
            batch = self.batch(how, self.rows[:count])
            try:
                self.peer.run(how, batch)()
                answer[how] = batch.out.tolist()
            except Exception as error:  # noqa: BLE001: after any error of torch the run goes on without this way
                answer[how] = said(error)
        return answer

    def burst(self, wanted: dict) -> dict:
        key = json.dumps({name: value for name, value in wanted.items() if name != "seconds"}, sort_keys=True)
        if key not in self.prepared:
            batches = [self.batch(wanted["how"], rows) for rows in self.arrange(wanted)]
            for number in range(WARM):
                self.peer.run(wanted["how"], batches[number % len(batches)])()
            self.prepared[key] = (batches, [0])
        batches, cursor = self.prepared[key]
        flying, ends, ran = deque(), [], []
        start = time.perf_counter()
        while time.perf_counter() - start < wanted["seconds"]:
            batch = batches[cursor[0] % len(batches)]
            cursor[0] += 1
            flying.append(self.peer.run(wanted["how"], batch))
            ran.append(batch)
            if len(flying) >= IN_FLIGHT:
                flying.popleft()()
                ends.append(time.perf_counter())
        while flying:
            flying.popleft()()
            ends.append(time.perf_counter())
        return figures(ran, start, ends)


def figures(ran: list[Batch], start: float, ends: list[float]) -> dict:
    seconds = ends[-1] - start
    tokens = sum(sum(batch.lengths) for batch in ran)
    padded = sum(batch.longest * len(batch.lengths) if "cuts" not in batch.tensors else sum(batch.lengths) for batch in ran)
    steps = sorted(later - earlier for earlier, later in zip([start, *ends], ends))
    return {
        "texts": sum(len(batch.lengths) for batch in ran),
        "tokens": tokens,
        "batches": len(ran),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "texts_per_second": sum(len(batch.lengths) for batch in ran) / seconds,
        "padding_ratio": 1 - tokens / padded,
        "batch_ms_p50": 1e3 * steps[len(steps) // 2],
        "batch_ms_p99": 1e3 * steps[min(len(steps) - 1, len(steps) * 99 // 100)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    with open(arguments.texts, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    peer = Peer(arguments.model, arguments.device, arguments.dtype, arguments.compiled)
    bursts = Bursts(peer, arguments.model / "tokenizer.json", texts)
    # Libraries print where they like; the answers have standard output for themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"ready": f"torch {torch.__version__}, transformers {transformers.__version__}"}), file=answers, flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            answer = bursts.check(wanted["check"], wanted["ways"]) if "check" in wanted else bursts.burst(wanted)
        except Exception as error:  # noqa: BLE001: a way that fails at this size leaves the others
            traceback.print_exc()
            answer = {"error": said(error)}
        print(json.dumps(answer), file=answers, flush=True)


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


if __name__ == "__main__":
    main()
