"""The two ceilings of the device: a large matrix product and a copy, by PyTorch. Shares are taken of these."""

import statistics
import time

import torch

from ..part import Part

WARM = 10
GROUPS = 5
EACH = 10


def run(part: Part) -> None:
    n = part.sizes.matrix
    for dtype, name in ((torch.bfloat16, "matmul_tflops"), (torch.float16, "matmul_f16_tflops")):
        # Random data: zeros run at higher clocks.
        a, b = (torch.randn(n, n, device=part.device, dtype=torch.float32).to(dtype) for _ in range(2))
        out = torch.empty(n, n, device=part.device, dtype=dtype)
        part.save(**{name: 2 * n**3 / seconds(part, lambda: torch.matmul(a, b, out=out)) / 1e12})
        del a, b, out
    source = torch.empty(part.sizes.copy_bytes, dtype=torch.uint8, device=part.device).random_()
    target = torch.empty_like(source)
    # A copy reads each byte and writes it.
    part.save(copy_tbps=2 * part.sizes.copy_bytes / seconds(part, lambda: target.copy_(source)) / 1e12)
    if part.device == "cuda":
        pinned = torch.empty(1 << 28, dtype=torch.uint8).pin_memory()
        there = seconds(part, lambda: source[: 1 << 28].copy_(pinned, non_blocking=True))
        back = seconds(part, lambda: pinned.copy_(source[: 1 << 28], non_blocking=True))
        part.save(to_device_gbps=(1 << 28) / there / 1e9, from_device_gbps=(1 << 28) / back / 1e9)


def seconds(part: Part, work) -> float:
    """Time of one call: the median over groups of calls that follow each other."""
    for _ in range(WARM):
        work()
    return statistics.median(group(part.device, work) for _ in range(GROUPS)) / EACH


def group(device: str, work) -> float:
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(EACH):
            work()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(EACH):
        work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3
